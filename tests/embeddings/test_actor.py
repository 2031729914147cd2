"""Embeddings as files: every sample in one file per model, and nothing done twice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from multimem_ray.audit import embed, train
from multimem_ray.config import Config
from multimem_ray.embeddings.layout import About
from multimem_ray.progress import Progress
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.setup import inspect
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import batch_of
from tests.small import small_config, write_shards


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO(), width=200))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("embedded")
    shards = write_shards(folder / "shards", samples=40, shards=2)
    config = small_config(shards, folder / "out")
    train(config, quiet(), executor="local")
    embed(config, quiet(), executor="local")
    return config


def files(config: Config, model: str) -> list[Path]:
    return sorted(Path(config.output, "embeddings", f"model={model}").rglob("*.parquet"))


def test_every_sample_is_in_one_file_of_each_model(embedded: Config) -> None:
    run, shards = inspect(embedded)
    assert len(shards.scored) == 2
    for model in ("000", "001"):
        tables = [pq.read_table(path, partitioning=None) for path in files(embedded, model)]
        keys = sorted(key for table in tables for key in table["key"].to_pylist())
        assert keys == [f"s{number:04d}" for number in range(40)]
        for table in tables:
            flags = run.held_out_rule.is_held_out(table["key"].to_pylist(), "")
            assert table["held_out"].to_pylist() == flags.tolist()
            about = About.of(table.schema)
            assert about is not None
            assert (about.model, about.views, about.dim) == (model, 2, 16)
            assert table["image"].type.list_size == 32


def test_vectors_are_those_of_the_models_and_null_where_absent(embedded: Config) -> None:
    run, shards = inspect(embedded)
    bank = ScoringBank(run, torch.device("cpu"))
    rows = {
        (model, row["key"]): row
        for model in ("000", "001")
        for path in files(embedded, model)
        for row in pq.read_table(path, partitioning=None).to_pylist()
    }
    for item in list(read_shard(shards.scored[0].url, run.storage))[:6]:
        assert isinstance(item, Sample)
        batch = batch_of(run, {item.key: run.decoder.decode(item)})
        found = bank.embed(batch)
        for number, model in enumerate(("000", "001")):
            row = rows[model, item.key]
            assert (row["shard"], row["index"], row["label"]) == (
                item.shard, item.index, run.label_of(item),
            )  # fmt: skip
            for place, name in enumerate(run.modalities):
                if not batch.present(run.modalities)[0, place]:
                    assert row[name] is None
                    continue
                vectors = np.array(row[name]).reshape(2, 16)
                np.testing.assert_allclose(vectors, found[number, :, 0, place], atol=1e-6)
                np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_files_of_two_models_are_known_to_stand_alike(embedded: Config) -> None:
    for a, b in zip(files(embedded, "000"), files(embedded, "001"), strict=True):
        first, second = (About.of(pq.read_schema(path)) for path in (a, b))
        assert first is not None
        assert second is not None
        assert (a.name, first.keys) == (b.name, second.keys)


def test_only_what_is_missing_is_embedded_again(embedded: Config) -> None:
    folder = Path(embedded.output, "embeddings")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    marker = min((folder / "commits").iterdir())
    marker.unlink()
    embed(embedded, quiet(), executor="local")
    assert len(list((folder / "commits").glob(f"{marker.name.split('.')[0]}.*"))) == 1
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    fresh = {path for path, when in after.items() if before.get(path) != when}
    assert len(fresh) == 2
    assert len({path.name for path in fresh}) == 1
    # What the file of the marker that was lost would say twice is gone.
    assert len(after) == len(before)
    manifest = json.loads((folder / "embeddings.json").read_text())
    assert (manifest["models"], manifest["shards"]) == (["000", "001"], 2)
