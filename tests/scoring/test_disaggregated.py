"""Two fleets: the same numbers as one actor doing everything, and who chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.progress import Progress
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run
from multimem_ray.scoring.disaggregated import wants_split
from multimem_ray.scoring.pipeline import score
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import open_run
from tests.scoring.bank_of import finish_models
from tests.small import small_config, small_run, write_shards


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


@pytest.mark.parametrize(
    ("sets", "nodes", "split"),
    [
        ((), [node(2)], False),
        (("gpus=1",), [node(32, 1), node(64)], False),
        (("gpus=1",), [node(4, 1), node(64)], True),
        (("gpus=1",), [node(4, 1)], False),
        (("gpus=1", "layout=fused"), [node(4, 1), node(64)], False),
        (("layout=split",), [node(2)], True),
    ],
)
def test_who_has_too_few_cores_gets_help(
    tmp_path: Path, sets: tuple[str, ...], nodes: list[dict[str, float]], split: bool
) -> None:
    run, _ = small_run(tmp_path, *(f"resources.score.{item}" for item in sets))
    assert wants_split(run.config.resources.score, nodes) is split


def rows_of(run: Run) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for batch in ScoreTable(run.output, run.storage).batches(["key", "cmc"]):
        for key, cmc in zip(batch["key"].to_pylist(), batch["cmc"].to_pylist(), strict=True):
            assert key not in found
            found[key] = cmc
    return found


@pytest.mark.timeout(600)
def test_two_fleets_score_like_one(tmp_path: Path, ray_session: object) -> None:
    folder = write_shards(tmp_path / "shards", 60, 3)
    scored = {}
    for layout, more in (("fused", ()), ("split", ("scoring.partition_by=json.source",))):
        sets = f"resources.score.layout={layout}", "resources.score.actors=1", *more
        run, shards = open_run(
            small_config(folder, tmp_path / layout, *sets, "scoring.batch_size=6")
        )
        finish_models(run)
        totals = score(run, shards, Progress(Console(quiet=True)), ShardSource(run), RayExecutor())
        scored[layout] = rows_of(run)
        assert totals.rows == len(scored[layout])
        assert not (tmp_path / layout / "parts").exists()
    assert {path.name for path in (tmp_path / "split" / "scores").iterdir()} <= {
        f"source=tape-{n}" for n in range(30)
    }
    assert scored["fused"].keys() == scored["split"].keys()
    fused = np.array([scored["fused"][key] for key in sorted(scored["fused"])])
    split = np.array([scored["split"][key] for key in sorted(scored["split"])])
    np.testing.assert_allclose(fused, split, atol=1e-5)
