"""A run folder in exactly the layout that scoring writes, from made-up consistencies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.setup import resolve
from multimem_ray.store.names import marker_name, partition_of, shard_id
from multimem_ray.store.schema import error_schema, score_schema


@dataclass
class FakeRun:
    """Where it is, and every row as written, in the order of the shards."""

    output: str
    truth: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def column(self, name: str) -> np.ndarray:
        """A score column, NaN where null."""
        return np.array([np.nan if r[name] is None else r[name] for r in self.rows])


def fake_run(
    folder: Path,
    *,
    shards: int = 3,
    rows: int = 200,
    models: int = 4,
    modalities: Sequence[str] = ("audio", "image", "text"),
    kind: str = "complementary_halves",
    planted: float = 0.05,
    labels: Sequence[str] | None = tuple("0123456789"),
    undefined: int = 0,
    held_out: int = 10,
    seed: int = 0,
    shard_names: Sequence[str] | None = None,
    keys: Sequence[Sequence[str]] | None = None,
    planted_keys: dict[str, str] | None = None,
) -> FakeRun:
    """Write a run; planted samples fit together badly and are memorized more.

    ``undefined`` rows of each shard lie outside the pool: no model saw them.
    """
    rng = np.random.default_rng(seed)
    names = list(shard_names or (f"/data/set-{i:05d}.tar" for i in range(shards)))
    output = folder / "run"
    run = FakeRun(str(output), str(folder / "planted.parquet"))
    level = rng.normal(0.0, 0.03, models)
    truth = []
    for number, shard in enumerate(names):
        own = list(keys[number]) if keys else [f"{number:02d}_{i:05d}" for i in range(rows)]
        written = []
        for index, key in enumerate(own):
            if planted_keys is None:
                wrong = rng.random() < planted
                which = str(rng.choice(list(modalities))) if wrong else None
            else:
                which = planted_keys.get(key)
                wrong = which is not None
            outside = index < undefined
            row = _row(rng, models, modalities, kind, wrong, which, outside, level)
            label = None if labels is None else str(rng.choice(list(labels)))
            written.append({"key": key, "shard": shard, "index": index, **row, "label": label})
            truth.append({"shard": shard, "key": key, "planted": wrong, "modality": which})
        _write_shard(output, shard, written, held_out, modalities, models)
        run.rows += written
    pq.write_table(pa.Table.from_pylist(truth, schema=TRUTH), run.truth)
    _write_documents(output, names, models, modalities, kind, level, held_out)
    return run


TRUTH = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("planted", pa.bool_()),
        ("modality", pa.string()),
    ]
)


def _row(
    rng: np.random.Generator,
    models: int,
    modalities: Sequence[str],
    kind: str,
    wrong: bool,
    which: str | None,
    outside: bool,
    level: np.ndarray,
) -> dict[str, Any]:
    split = None
    if kind == "candidate":
        split = str(rng.choice(["S_S", "S_C", "S_I"], p=[0.8, 0.1, 0.1]))
        even, odd = split in {"S_S", "S_C"}, split in {"S_S", "S_I"}
        member = np.array([even, odd] * (models // 2))
        sides = np.arange(models) % 2 == 0
    elif kind == "leave_subset_out":
        member = np.ones(models, bool)
        member[1 + rng.integers(models - 1)] = False
        sides = member
    elif kind == "three_folds":
        member = (rng.integers(3, size=(models // 3, 1)) != np.arange(3)).reshape(-1)
        sides = member
    else:
        bits = rng.random(models // 2) < 0.5
        member = np.stack([bits, ~bits], axis=1).reshape(-1)
        sides = member
    if outside:
        member = np.zeros(models, bool)
        sides = member
    gain = abs(rng.normal(0.35, 0.12)) if wrong else abs(rng.normal(0.06, 0.05))
    base = rng.normal(0.05, 0.1) if wrong else rng.normal(0.7, 0.14)
    cmc = base + level + gain * member + rng.normal(0, 0.03, models)
    n_in, n_out = int(sides.sum()), int((~sides).sum())
    inside, out = cmc[sides], cmc[~sides]
    score = float(inside.mean() - out.mean()) if n_in and n_out else None
    se = None
    pair_se = None
    size = 3 if kind == "three_folds" else 2
    if kind != "leave_subset_out" and not outside and models > size:
        d = np.where(sides, cmc / (size - 1), -cmc).reshape(-1, size).sum(axis=1)
        pair_se = float(d.std(ddof=1) / np.sqrt(len(d)))
    if n_in > 1 and n_out > 1:
        se = float(np.sqrt(inside.var(ddof=1) / n_in + out.var(ddof=1) / n_out))
    weights = rng.dirichlet([8.0 if m == which else 2.0 for m in modalities])
    row: dict[str, Any] = {
        "modalities": list(modalities),
        "group": None,
        "split": split,
        "multimem": score,
        "multimem_normalized": None if score is None else score / (len(modalities) - 1),
        "multimem_se": se,
        "multimem_pair_se": pair_se,
        "n_in": n_in,
        "n_out": n_out,
        "cmc_in": float(inside.mean()) if n_in else None,
        "cmc_out": float(out.mean()) if n_out else None,
        "cmc": cmc.tolist(),
        "member": member.tolist(),
    }
    parts = dict(zip(modalities, weights, strict=True))
    for m in modalities:
        row[f"attribution_{m}"] = None if score is None else score * parts[m]
        fits = float(out.mean()) / len(modalities) - 0.5 if n_out else None
        row[f"unseen_{m}"] = None if fits is None else fits - (0.2 if m == which else 0.0)
    for a, b in combinations(modalities, 2):
        value = None if score is None else score * (parts[a] + parts[b]) / 2
        row[f"pair_{a}_{b}"] = value
        row[f"clipmem_{a}_{b}"] = value
    return row


def _write_shard(
    output: Path,
    shard: str,
    rows: list[dict[str, Any]],
    held_out: int,
    modalities: Sequence[str],
    models: int,
) -> None:
    name, part = shard_id(shard), partition_of(shard, 16)
    errors = [
        _error(shard, f"{name}_bad", "decode", "undecodable", "image: <b>not</b> a JPEG"),
        _error(shard, f"{name}_one", "select", "too_few_modalities", "only text"),
        _error(shard, None, "read", "no_end_marker", "at byte 4096"),
    ]
    for folder, table in (
        ("scores", pa.Table.from_pylist(rows, schema=score_schema(modalities, models))),
        ("errors", pa.Table.from_pylist(errors, schema=error_schema())),
    ):
        place = output / folder / part
        place.mkdir(parents=True, exist_ok=True)
        marked = table.replace_schema_metadata({"multimem_ray": "feedfacefeedface"})
        pq.write_table(marked, place / f"{name}.parquet", row_group_size=64)
    commits = output / "commits"
    commits.mkdir(exist_ok=True)
    marker = {
        "shard": shard,
        "size": 1_000_000,
        "version": "1-1000000",
        "rows": len(rows),
        "held_out": held_out,
        "errors": len(errors),
        "sha256": "0" * 64,
        "fingerprint": "feedfacefeedface",
        "seconds": 1.5,
        "finished_at": 1_700_000_100.0,
    }
    sums = (len(rows), held_out, len(errors))
    marker_file = marker_name(name, "feedfacefeedface", "0badcafe", *sums)
    (commits / marker_file).write_text(json.dumps(marker))


def _error(shard: str, key: str | None, stage: str, error: str, detail: str) -> dict[str, Any]:
    index = None if key is None else 3
    fields = ("shard", "key", "index", "stage", "error", "detail")
    return dict(zip(fields, (shard, key, index, stage, error, detail), strict=True))


def _write_documents(
    output: Path,
    shards: Sequence[str],
    models: int,
    modalities: Sequence[str],
    kind: str,
    level: np.ndarray,
    held_out: int,
) -> None:
    fields = {"audio": "flac", "image": "jpg;png", "text": "txt", "video": "mp4"}
    run = {
        "config": resolve(
            {
                "output": str(output),
                "data": {"shards": list(shards)},
                "design": {"kind": kind, "models": models},
            }
        ).model_dump(mode="json"),
        "fingerprint": "feedfacefeedface",
        "fields": {m: fields.get(m, m) for m in modalities},
        "modalities": list(modalities),
        "label": "json.class_label",
        "versions": {"multimem-ray": "0.1.0", "torch": "2.11.0", "ray": "2.60.0"},
        "shards": len(shards),
        "missing": ["/data/set-00099.tar"],
        "started_at": 1_700_000_000.0,
    }
    (output / "run.json").write_text(json.dumps(run))
    held = {
        "samples": held_out * len(shards),
        "keys_seen": held_out * len(shards),
        "modalities": {m: held_out * len(shards) for m in modalities},
        "models": {
            f"{m:03d}": {"cmc_mean": 0.7 + float(level[m]), "cmc_se": 0.01} for m in range(models)
        },
    }
    (output / "held_out").mkdir(exist_ok=True)
    (output / "held_out" / "held_out.json").write_text(json.dumps(held))
