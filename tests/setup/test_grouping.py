"""What samples are grouped by: the default, what was begun before, and what models bring along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.audit import audit
from multimem_ray.config import Config
from multimem_ray.errors import ConfigError, DesignError, ResumeError, StorageError
from multimem_ray.setup import apply_overrides, inspect, open_run, resolve
from multimem_ray.setup.grouping import settled_grouping
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from tests.small import QUIET, members, small_raw, write_shards


def config_of(shards: Path, output: Path, *sets: str) -> Config:
    raw: Any = dict(small_raw(shards, output))
    raw["design"] = {"models": 2}
    return resolve(apply_overrides(raw, sets))


def with_copies(folder: Path) -> Path:
    """Thirty samples, and under other keys in another shard exact copies of the first ten."""
    with ShardWriter(str(folder), max_samples=30) as writer:
        for number in range(40):
            writer.write(f"s{number:04d}", members(number % 30))
    return folder


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    files = sorted(output.joinpath("scores").rglob("*.parquet"))
    tables = [pq.read_table(path, partitioning=None) for path in files]
    return {row["key"]: row for table in tables for row in table.to_pylist()}


def assert_together(rows: dict[str, dict[str, Any]]) -> int:
    """Copies are scored together, seen by the same models, or held out together."""
    both = 0
    for number in range(10):
        one, other = rows.get(f"s{number:04d}"), rows.get(f"s{number + 30:04d}")
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one["group"], one["member"]) == (other["group"], other["member"])
            both += 1
    return both


def test_exact_copies_are_left_out_together_by_default(tmp_path: Path) -> None:
    shards, out = with_copies(tmp_path / "in"), tmp_path / "out"
    found = audit(config_of(shards, out), QUIET, executor="local")
    rows = rows_of(out)
    both = assert_together(rows)
    assert 0 < both <= 10
    told = found["duplicates"]
    assert (told["by"], told["groups"], told["samples"], told["copies"]) == (
        "content",
        both,
        2 * both,
        both,
    )
    assert len(told["examples"]) == both
    assert all(len(example["samples"]) == 2 for example in told["examples"])
    assert "exact copies" in (out / "report.html").read_text()
    # Copies share one membership: they are one group under the attack.
    assert found["attack"]["members"] + found["attack"]["others"] == len(rows) - both
    assert all(0 <= row["attack_rmia"] <= 1 for row in rows.values())
    assert found["attack"]["held_out"]["samples"] == found["held_out"]["samples"]
    again = audit(config_of(shards, out), QUIET, executor="local")
    assert again["duplicates"] == told


def test_an_output_that_was_begun_by_key_goes_on_by_key(tmp_path: Path) -> None:
    shards, out = write_shards(tmp_path / "in"), tmp_path / "out"
    begun, _ = open_run(config_of(shards, out, "design.group=key"))
    old = json.loads((out / "run.json").read_text())
    del old["config"]["design"]["group"], old["groups"]
    (out / "run.json").write_text(json.dumps(old))
    again, _ = open_run(config_of(shards, out))
    assert again.config.design.group is None
    assert again.fingerprint == begun.fingerprint
    with pytest.raises(ResumeError, match=r"design\.group: null → \"content\""):
        open_run(config_of(shards, out, "design.group=content"))


def test_a_table_groups_samples(tmp_path: Path) -> None:
    shards, table = with_copies(tmp_path / "in"), tmp_path / "groups.parquet"
    names = sorted(path.name for path in shards.glob("*.tar"))
    listed = {"key": ["s0011", "s0012", "gone"], "shard": [names[0]] * 3, "group": ["g"] * 3}
    pq.write_table(pa.table(listed), table)
    out = tmp_path / "out"
    found = audit(config_of(shards, out, f"design.group={table}"), QUIET, executor="local")
    rows = rows_of(out)
    assert_together(rows)
    assert rows["s0011"]["group"] == rows["s0012"]["group"] == "g"
    assert rows["s0011"]["member"] == rows["s0012"]["member"]
    assert found["duplicates"]["table"] == {"rows": 3, "scored": 2, "held_out": 0, "missed": 1}
    pq.write_table(pa.table({**listed, "group": ["g", "g", "h"]}), table)
    with pytest.raises(ResumeError, match="table of groups has other content"):
        open_run(config_of(shards, out, f"design.group={table}"))
    pq.write_table(pa.table({**listed, "shard": ["other.tar"] * 3}), table)
    with pytest.raises(ConfigError, match=r"other\.tar, and none of them is in data\.shards"):
        inspect(config_of(shards, tmp_path / "third", f"design.group={table}"))


def test_models_bring_what_their_memberships_were_drawn_by(tmp_path: Path) -> None:
    shards, out = write_shards(tmp_path / "in"), tmp_path / "first"
    audit(config_of(shards, out), QUIET, executor="local")
    target = f"design.target={{checkpoint: {out}/models/000, members: recorded}}"
    run, _ = inspect(config_of(shards, tmp_path / "second", target, "design.group=content"))
    assert run.config.design.group == "content"
    for wrong in ("key", "json.source"):
        with pytest.raises(DesignError, match=r"set design\.group to content"):
            inspect(config_of(shards, tmp_path / "second", target, f"design.group={wrong}"))
    fields = "data.fields={image: png, text: txt}"
    with pytest.raises(DesignError, match=r"set data\.fields"):
        inspect(config_of(shards, tmp_path / "second", target, fields))
    keys = tmp_path / "keys.txt"
    keys.write_text("s0001\n")
    listed = f"design.target={{checkpoint: {out}/models/000, members: {keys}}}"
    run, _ = inspect(config_of(shards, tmp_path / "second", listed))
    assert run.config.design.group is None


def test_a_partition_needs_a_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"design\.group is not a field"):
        config_of(tmp_path, tmp_path, "scoring.partition_by=group")


def test_a_damaged_run_is_one_line_before_its_groups_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"config": ')
    config = resolve({"output": str(tmp_path / "out"), "data": {"shards": "x"}})
    with pytest.raises(StorageError, match=r"run\.json: damaged"):
        settled_grouping(config, Storage())
