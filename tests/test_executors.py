"""Two executors, one run: the same files and scores, and either goes on where the other stopped."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import audit, train
from multimem_ray.config import Config
from multimem_ray.distributed.executor import ExecutorName
from multimem_ray.errors import TrainingError
from multimem_ray.progress import Progress, Shown
from tests.small import small_config, write_shards

EPOCH = re.compile(r"\.[0-9a-f]{16}\.e\d+(?=\.parquet)|\.e\d+(?=\.safetensors)|-e\d+(?=\.json)")
"""What the names of a run that was opened again have beside."""
ORDERS: list[tuple[ExecutorName, ExecutorName]] = [("local", "ray"), ("ray", "local")]


class Interrupting(Progress):
    """Stops what it is told of as ^C would, when so much of a task is done; None = never."""

    def __init__(self, task: str | None = None, at: int = 0) -> None:
        super().__init__(Console(file=io.StringIO(), width=200))
        self._task, self._at = task, at

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Shown]:
        with super().task(name, total, unit, done) as shown:
            if name == self._task:
                shown.update = self._stopping(shown.update)  # type: ignore[method-assign]
            yield shown

    def _stopping(self, update: Callable[[int, str], None]) -> Callable[[int, str], None]:
        def stopping(done: int, detail: str = "") -> None:
            update(done, detail)
            if done >= self._at:
                raise KeyboardInterrupt

        return stopping


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=60, shards=3)


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = small_config(shards, tmp_path_factory.mktemp("undisturbed") / "out")
    audit(config, Interrupting(), executor="local")
    return config


def files(output: str) -> set[str]:
    """What a run left, but for what tells of the attempts."""
    found = (str(p.relative_to(output)) for p in Path(output).rglob("*") if p.is_file())
    by_epoch = re.compile(
        r"\.[0-9a-f]{16}\.e\d+(?=\.parquet)|\.e\d+(?=\.safetensors)|-e\d+(?=\.json)"
    )
    return {by_epoch.sub("", name) for name in found if not name.startswith("epochs/")}


def rows(output: str) -> dict[str, dict[str, Any]]:
    tables = [pq.read_table(p, partitioning=None) for p in Path(output).glob("scores/**/*.parquet")]
    return {row["key"]: row for table in tables for row in table.to_pylist()}


def assert_same(ours: Config, theirs: Config) -> None:
    assert files(ours.output) == files(theirs.output)
    a, b = rows(ours.output), rows(theirs.output)
    assert a.keys() == b.keys()
    for key, row in a.items():
        for name, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(b[key][name], abs=1e-6), (key, name)
            elif name == "cmc":
                np.testing.assert_allclose(value, b[key][name], atol=1e-6)
            else:
                assert value == b[key][name], (key, name)


def test_ray_does_what_this_process_does(
    undisturbed: Config, shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    del ray_session
    config = small_config(shards, tmp_path / "out")
    audit(config, Interrupting(), executor="ray")
    assert_same(config, undisturbed)


@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_a_run_begun_by_one_is_finished_by_the_other(
    undisturbed: Config,
    shards: Path,
    ray_session: Any,
    tmp_path: Path,
    first: ExecutorName,
    second: ExecutorName,
) -> None:
    """Stopped between two epochs, then after the first shard, each time gone on by the other."""
    del ray_session
    config = small_config(shards, tmp_path / "out")
    models = tmp_path / "out" / "models"
    if first == "local":
        # On Ray, a bank that is under way does not hear of it.
        with pytest.raises(KeyboardInterrupt):
            train(config, Interrupting("train", at=4), executor=first)
        assert list(models.glob("*/checkpoint.safetensors"))
        assert not list(models.glob("*/DONE"))
        audit_until_a_shard_is_scored(config, second)
    else:
        audit_until_a_shard_is_scored(config, first)
    audit(config, Interrupting(), executor=first if first == "local" else second)
    assert_same(config, undisturbed)


def audit_until_a_shard_is_scored(config: Config, executor: ExecutorName) -> None:
    with pytest.raises(KeyboardInterrupt):
        audit(config, Interrupting("score", at=1), executor=executor)
    assert list(Path(config.output).glob("commits/*"))


def test_one_process_has_one_worker(shards: Path, tmp_path: Path) -> None:
    config = small_config(shards, tmp_path / "out", "resources.train.workers_per_bank=2")
    with pytest.raises(TrainingError, match="workers_per_bank = 2: in one process a bank has one"):
        train(config, Interrupting(), executor="local")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_spoken_digits(
    shared_data: Callable[[str], list[Path]], ray_session: Any, tmp_path: Path
) -> None:
    """Real sound, pictures and words: all that is asked of the small set, on 800 samples."""
    del ray_session
    listed = [str(shard) for shard in shared_data("fsdd_mnist_ait")]
    sets = [f"data.shards={listed}", "model={preset: tiny}", "modalities={}", "training.epochs=3"]
    here, there = (small_config(tmp_path, tmp_path / name / "out", *sets) for name in ("a", "b"))
    audit(here, Interrupting(), executor="local")
    audit_until_a_shard_is_scored(there, "ray")
    audit(there, Interrupting(), executor="local")
    assert_same(there, here)
