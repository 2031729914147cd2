"""A whole audit on Ray: what it leaves behind, resumption, and what must not change a score."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from multimem_ray.audit import audit, score, train
from multimem_ray.config import Config
from multimem_ray.errors import HeldOutError, ModelError, ResumeError
from multimem_ray.progress import Progress
from multimem_ray.results.terminal import print_summary
from multimem_ray.store.names import epoch_of
from tests.small import small_config, write_shards

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=60, shards=3)


@pytest.fixture(scope="module")
def done(shards: Path, ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An undisturbed audit that the tests compare with."""
    config = small_config(shards, tmp_path_factory.mktemp("undisturbed") / "out")
    audit(config, quiet())
    return config


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO(), width=200))


def scores(output: str) -> dict[str, dict[str, Any]]:
    """All score rows by key; every key once."""
    rows = [r for p in sorted(Path(output, "scores").rglob("*.parquet")) for r in rows_of(p)]
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows), "a key was scored twice"
    return by_key


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
    return found


def assert_same_scores(a: str, b: str) -> None:
    ours, theirs = scores(a), scores(b)
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        for name, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(theirs[key][name], abs=1e-5), (key, name)
            elif name == "cmc":
                np.testing.assert_allclose(value, theirs[key][name], atol=1e-5)
            elif name != "shard":
                assert value == theirs[key][name], (key, name)


def mtimes(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_a_run_leaves_behind(done: Config) -> None:
    output = Path(done.output)
    run = json.loads((output / "run.json").read_text())
    assert run["modalities"] == ["audio", "image", "text"]
    assert run["label"] == "json.label"
    for model in ("000", "001"):
        found = {p.name for p in (output / "models" / model).iterdir()}
        assert found == {
            "DONE", "config.json", "history.jsonl", "membership.json", "model.safetensors",
        }  # fmt: skip
        history = (output / "models" / model / "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in history] == [0, 1]
    held_out = json.loads((output / "held_out" / "held_out.json").read_text())
    assert held_out["samples"] == pq.read_table(output / "held_out" / "keys.parquet").num_rows
    summary = json.loads((output / "summary.json").read_text())
    assert summary["coverage"]["agrees"]
    assert summary["coverage"]["samples"] == 60
    assert summary["coverage"]["held_out"] == held_out["samples"]
    page = (output / "report.html").read_text()
    assert "a red thing" in page
    assert len(list((output / "commits").iterdir())) == 3


def test_duckdb_and_polars_read_the_scores_in_one_line(done: Config) -> None:
    query = f"SELECT count(*), max(multimem) FROM '{done.output}/scores/**/*.parquet'"
    count, highest = duckdb.sql(query).fetchall()[0]
    table = polars.scan_parquet(f"{done.output}/scores", hive_partitioning=True)
    best = table.sort("multimem", descending=True).head(1).collect()
    assert count == len(scores(done.output))
    assert best["multimem"][0] == pytest.approx(highest)


def test_the_summary_reads_well_in_a_terminal(done: Config) -> None:
    summary = json.loads(Path(done.output, "summary.json").read_text())
    console = Console(file=io.StringIO(), width=200)
    print_summary(summary, done.output, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "60 samples:" in text
    assert "the sums agree" in text
    assert "have their 95 % interval above zero" in text


def test_running_it_again_does_nothing(done: Config) -> None:
    before = mtimes(Path(done.output))
    audit(done, quiet())
    changed = {p for p, t in mtimes(Path(done.output)).items() if before.get(p) != t}
    assert {Path(p).name for p in changed if Path(p).parent.name != "epochs"} == {"run.json"}


def test_only_what_is_missing_is_done(done: Config, tmp_path: Path) -> None:
    output = Path(done.output)
    before, rows = mtimes(output), scores(done.output)
    marker = sorted((output / "commits").iterdir())[1]
    marker.unlink()
    score(done, quiet())
    (again,) = (output / "commits").glob(f"{marker.name.split('.')[0]}.*")
    assert epoch_of(again.stem.replace("-e", ".e")) > 1
    after = mtimes(output)
    touched = {Path(p).stem for p, t in after.items() if before.get(p) != t and "/scores/" in p}
    assert len(touched) == 1
    assert scores(done.output).keys() == rows.keys()


def test_nothing_of_the_layout_changes_a_score(done: Config, shards: Path, tmp_path: Path) -> None:
    backwards = sorted(map(str, shards.glob("*.tar")), reverse=True)
    other = small_config(
        shards,
        tmp_path / "out",
        f"data.shards={json.dumps([str(shards / 'gone.tar'), *backwards])}",
        "scoring.batch_size=3",
        "scoring.partitions=1",
        "resources.train.models_per_bank=1",
        "resources.train.concurrent_banks=2",
        "resources.score.actors=1",
        "training.cache_gb=0",
    )
    summary = audit(other, quiet())
    assert_same_scores(done.output, other.output)
    # A shard that is named and not there stops nothing, and is not passed over in silence.
    assert [Path(p).name for p in summary["coverage"]["shards"]["missing"]] == ["gone.tar"]
    (listed,) = [r for p in Path(other.output, "errors").rglob("*.parquet") for r in rows_of(p)]
    assert (listed["error"], listed["key"]) == ("missing_shard", None)


def test_scoring_without_models_says_what_to_do(
    shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    config = small_config(shards, tmp_path / "out")
    with pytest.raises(ModelError, match=r"000, 001 are not trained yet.*multimem train"):
        score(config, quiet())


def test_another_configuration_is_refused_with_the_difference(done: Config, shards: Path) -> None:
    other = small_config(shards, Path(done.output), "training.lr=0.5")
    with pytest.raises(ResumeError, match=r"training\.lr: 0\.002 → 0\.5"):
        train(other, quiet())


def test_more_shards_than_the_models_know_are_refused(done: Config, shards: Path) -> None:
    fewer = str(min(shards.glob("*.tar")))
    other = small_config(shards, Path(done.output), f"data.shards={fewer}")
    with pytest.raises(ResumeError, match="set of shards: 3 then, 1 now"):
        train(other, quiet())


def test_an_empty_held_out_set_names_the_way_out(
    shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    config = small_config(shards, tmp_path / "out", "held_out.fraction=1e-9")
    with pytest.raises(HeldOutError, match=r"raise held_out\.fraction"):
        audit(config, quiet())


def _command(config: Config, folder: Path) -> list[str]:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return [sys.executable, "-c", "from multimem_ray.cli import main; main()", "audit", str(path)]


def _kill_when(command: list[str], ready: Callable[[], bool], env: dict[str, str]) -> bool:
    """Start the command, and kill it -9 once ``ready``; False if it was faster than that."""
    driver = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 240
        while not ready():
            if driver.poll() is not None:
                return False
            assert time.monotonic() < end, "the moment to kill it never came"
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        return True
    finally:
        if driver.poll() is None:
            driver.kill()
        driver.wait()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["first checkpoint", "one model done", "first commit"])
def test_a_killed_driver_is_resumed(
    done: Config, shards: Path, tmp_path: Path, moment: str
) -> None:
    config = small_config(shards, tmp_path / "out", "resources.train.models_per_bank=1")
    command = _command(config, tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pattern = {
        "first checkpoint": "models/*/checkpoint.safetensors",
        "one model done": "models/*/DONE",
        "first commit": "commits/*.json",
    }[moment]
    output = Path(config.output)
    assert _kill_when(command, lambda: any(output.glob(pattern)), env)
    finished = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "the sums agree" in finished.stdout
    assert_same_scores(done.output, config.output)
