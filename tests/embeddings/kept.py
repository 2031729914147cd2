"""Embeddings as a user may have kept them, and the scores that follow from them, literally."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.config import Config
from multimem_ray.embeddings.join import spill
from multimem_ray.embeddings.source import source_of
from multimem_ray.embeddings.units import load_units
from multimem_ray.embeddings.worker import UnitScorer
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.held_out_plan import plan_held_out
from multimem_ray.setup import open_run, resolve

MODALITIES = ("audio", "image", "text")
N = 200
"""Samples of most tests."""


def vectors(
    samples: int, dim: int, seed: int, names: Sequence[str] = MODALITIES
) -> dict[str, np.ndarray[Any, Any]]:
    """Per modality (N, dim) float32, of any length."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((samples, dim)).astype(np.float32) for name in names}


def keys_of(samples: int) -> list[str]:
    return [f"sample-{number:05d}" for number in range(samples)]


def table(
    keys: Sequence[str], found: Mapping[str, np.ndarray[Any, Any]], **columns: Any
) -> pa.Table:
    """Fixed-size lists with a key."""
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
        for name, x in found.items()
    }
    return pa.table({"key": list(keys), **lists, **columns})


def write(path: Path, made: pa.Table, row_group_size: int = 16) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=row_group_size)
    return str(path)


def config_of(output: Path, models: Sequence[Any], **more: Any) -> Config:
    raw = {
        "output": str(output),
        "data": {"embeddings": {"models": list(models), **more.pop("embeddings", {})}},
        "design": {"kind": "complementary_halves"},
        "held_out": {"fraction": 0.3},
        "scoring": {"partitions": 2},
    }
    raw["data"] |= more.pop("data", {})
    return resolve({**raw, **more})


def score(config: Config) -> tuple[Run, Shards]:
    """What `multimem score` does, in this process and without Ray."""
    run, shards = open_run(config)
    units = load_units(run)
    for model, places in enumerate(units.joined):
        for place in places:
            spill(run, units, model, place)
    progress = Progress(Console(file=io.StringIO()))
    chosen = plan_held_out(run, shards, progress, source=source_of(run))
    scorer = UnitScorer(run, restarted=False)
    for item in chosen:
        scorer(row(item.shard, "held_out", item.keys))
    for shard in shards.scored:
        scorer({**row(shard.url, "shard"), "size": shard.size, "version": shard.version})
    return run, shards


def row(url: str, kind: str, names: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "kind": kind, "url": url, "size": 0, "version": "",
        "names": json.dumps(list(names)), "stale": "[]", "retry": "",
    }  # fmt: skip


def rows_of(output: str, kind: str = "scores") -> dict[str, dict[str, Any]]:
    """Rows of a run by key."""
    files = sorted(Path(output, kind).rglob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def literal_cmc(
    found: Sequence[Mapping[str, np.ndarray[Any, Any]]], held_out: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """(M, N): ½‖s‖² - ½ s · m of normalised vectors, in float64."""
    values = []
    for of_model in found:
        unit = [
            x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
            for x in of_model.values()
        ]
        total = np.sum(unit, axis=0)
        mean = total[held_out].mean(axis=0)
        values.append(0.5 * (total**2).sum(axis=1) - 0.5 * total @ mean)
    return np.stack(values)


def written(folder: Path, found: list[dict[str, Any]], **columns: Any) -> list[str]:
    return [
        write(folder / f"model{number}.parquet", table(keys_of(N), of_model, **columns))
        for number, of_model in enumerate(found)
    ]


def assert_literal(run: Run, found: list[dict[str, Any]], keys: list[str]) -> None:
    """Every score column that the definition gives in a line."""
    held_out = run.held_out_rule.is_held_out(keys, "")
    expected = literal_cmc(found, held_out)
    members = run.design.members(keys)
    rows = rows_of(run.output)
    assert sorted(rows) == sorted(key for key, out in zip(keys, held_out, strict=True) if not out)
    for at, key in enumerate(keys):
        if held_out[at]:
            continue
        np.testing.assert_allclose(rows[key]["cmc"], expected[:, at], atol=1e-5)
        signs = np.where(members[at], 1, -1)
        assert rows[key]["multimem"] == pytest.approx(signs @ expected[:, at], abs=1e-5)
        shares = sum(rows[key][f"attribution_{name}"] for name in MODALITIES)
        assert shares == pytest.approx(rows[key]["multimem"], abs=1e-5)
        assert rows[key]["member"] == members[at].tolist()
