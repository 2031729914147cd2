"""A driver that finds 100,000 shards committed is done in seconds, in little memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from multimem_ray.setup import open_run
from multimem_ray.store.names import marker_name, shard_id, source_version
from tests.small import small_config, write_shards

SHARDS = 100_000
SCRIPT = """
import sys, time
from pathlib import Path
from multimem_ray.setup import load
from multimem_ray.progress import Progress
from multimem_ray.setup import open_run
from multimem_ray.distributed.executor import LOCAL
from multimem_ray.scoring.pipeline import score
from multimem_ray.scoring.shard_source import ShardSource
started = time.monotonic()
run, shards = open_run(load(sys.argv[1]))
totals = score(run, shards, Progress(), ShardSource(run), LOCAL)
# Not getrusage: its peak counts the process that this one was forked from.
status = dict(x.split(":", 1) for x in Path("/proc/self/status").read_text().splitlines())
peak = status["VmHWM"].split()[0]
print(totals.shards, totals.rows, totals.fresh, time.monotonic() - started, peak)
"""


@pytest.mark.slow
def test_nothing_to_do_for_a_hundred_thousand_shards(tmp_path: Path) -> None:
    import yaml

    folder = write_shards(tmp_path / "shards", 4, 1)
    one = next(folder.glob("*.tar"))
    for number in range(1, SHARDS):
        if number % 10_000 == 0:  # file systems bound the links of a file
            one = Path(shutil.copy(one, folder / f"{number:06d}.tar"))
        else:
            (folder / f"{number:06d}.tar").hardlink_to(one)
    config = small_config(folder, tmp_path / "out")
    run, shards = open_run(config)
    commits = tmp_path / "out" / "commits"
    commits.mkdir(parents=True)
    for shard in shards.scored:
        source = source_version(shard)
        name = marker_name(shard_id(shard.url), run.fingerprint, source, 3, 1, 0)
        (commits / name).write_text("{}")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-c", SCRIPT, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    committed, rows, fresh, seconds, peak = (float(part) for part in told)
    assert (committed, rows, fresh) == (SHARDS, 3 * SHARDS, 0)
    assert seconds < 30
    assert peak * 1024 < 1e9
