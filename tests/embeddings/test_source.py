"""Scores from stored embeddings are those of the run that wrote them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import audit, embed, train
from multimem_ray.config import Config
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.setup import resolve
from tests.small import small_config, write_shards


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO(), width=200))


def rows_of(output: str, kind: str = "scores") -> dict[str, dict[str, Any]]:
    files = sorted(Path(output, kind).rglob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], leave: set[str]) -> None:
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        assert row.keys() == theirs[key].keys()
        for name, value in row.items():
            if name in leave:
                continue
            other = theirs[key][name]
            if isinstance(value, float):
                assert value == pytest.approx(other, abs=1e-5), (key, name)
            elif name == "cmc":
                np.testing.assert_allclose(value, other, atol=1e-5)
            else:
                assert value == other, (key, name)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("source")
    shards = write_shards(folder / "shards", samples=60, shards=3)
    config = small_config(shards, folder / "out", "design.models=4", "design.group=json.source")
    audit(config, quiet(), executor="local")
    embed(config, quiet(), executor="local")
    return config


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_one_line_reproduces_the_run(
    source: Config, tmp_path: Path, executor: Any, request: pytest.FixtureRequest
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_session")
    config = resolve({"output": str(tmp_path / "out"), "data": {"embeddings": source.output}})
    summary = audit(config, quiet(), executor=executor)
    assert_same(rows_of(config.output), rows_of(source.output), set())
    assert summary["coverage"]["agrees"]
    assert summary["coverage"]["samples"] == 60
    ours, theirs = (
        json.loads(Path(c.output, "held_out", "held_out.json").read_text())
        for c in (config, source)
    )
    for model, level in theirs["models"].items():
        assert ours["models"][model] == pytest.approx(level, abs=1e-5)
    page = Path(config.output, "report.html").read_text()
    assert "cannot be shown" not in page


def test_embeddings_of_some_models_out_of_order_are_joined_by_tasks(
    source: Config, tmp_path: Path
) -> None:
    """What a user may do with our files: another order of rows, no shard, only names of columns."""
    folder = Path(source.output, "embeddings")
    models = []
    for model in ("000", "001", "002", "003"):
        files = sorted(folder.glob(f"model={model}/**/*.parquet"))
        table = pa.concat_tables(pq.read_table(path, partitioning=None) for path in files)
        if model == "002":
            table = table.take(np.random.default_rng(0).permutation(table.num_rows))
        path = tmp_path / f"{model}.parquet"
        columns = ["key", "held_out", "group", "label", "audio", "image", "text"]
        pq.write_table(table.select(columns).replace_schema_metadata(None), path)
        models.append(str(path))
    raw = {
        "output": str(tmp_path / "out"),
        "data": {"embeddings": {"models": models, "views": 2}},
        "design": {"kind": "complementary_halves", "group": "group"},
        "held_out": {"fraction": 0.2},
    }
    summary = audit(resolve(raw), quiet(), executor="local")
    assert_same(
        rows_of(raw["output"]),
        rows_of(source.output),
        {"shard", "index"},  # type: ignore[arg-type]
    )
    assert summary["coverage"]["agrees"]
    assert not list(Path(str(raw["output"])).glob("join-*"))


def test_there_is_nothing_to_train_or_embed(source: Config, tmp_path: Path) -> None:
    config = resolve({"output": str(tmp_path / "out"), "data": {"embeddings": source.output}})
    for stage, name in ((train, "train"), (embed, "embed")):
        with pytest.raises(ConfigError, match=f"nothing to {name} without shards"):
            stage(config, quiet())


def test_defaults_come_from_the_run_and_give_way_to_the_user(
    source: Config, tmp_path: Path
) -> None:
    raw = {"output": str(tmp_path / "out"), "data": {"embeddings": source.output}}
    config = resolve(raw)
    assert (config.design.models, config.design.group) == (4, "group")
    assert config.held_out.fraction == source.held_out.fraction
    assert resolve({**raw, "held_out": {"max_samples": 7}}).held_out.max_samples == 7
    assert Config.model_validate(config.model_dump(mode="json")) == config
