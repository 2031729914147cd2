"""Stored embeddings: the scores of the definition, and a reason for each that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.embeddings.kept import (
    MODALITIES,
    N,
    config_of,
    keys_of,
    literal_cmc,
    rows_of,
    score,
    table,
    vectors,
    write,
)


def test_views_are_averaged_after_each_is_normalised(tmp_path: Path) -> None:
    both = [vectors(N, 12, seed) for seed in (0, 1)]
    lists = {name: np.concatenate([b[name] for b in both], axis=1) for name in MODALITIES}
    single = vectors(N, 12, 2)
    first = write(tmp_path / "a.parquet", table(keys_of(N), lists))
    second = write(
        tmp_path / "b.parquet",
        table(keys_of(N), {name: np.tile(x, (1, 2)) for name, x in single.items()}),
    )
    run, _ = score(config_of(tmp_path / "out", [first, second], embeddings={"views": 2}))
    held_out = run.held_out_rule.is_held_out(keys_of(N), "")
    unit = [
        sum(x / np.linalg.norm(x, axis=1, keepdims=True) for x in view.values()) for view in both
    ]
    mean = np.mean([total[held_out].mean(axis=0) for total in unit], axis=0)
    expected = np.mean([0.5 * (t**2).sum(1) - 0.5 * t @ mean for t in unit], axis=0)
    rows = rows_of(run.output)
    for at, key in enumerate(keys_of(N)):
        if not held_out[at]:
            assert rows[key]["cmc"][0] == pytest.approx(expected[at], abs=1e-5)


def test_what_cannot_be_used_is_listed_with_its_reason(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    keys = keys_of(N)
    keys[150] = keys[3]
    found[1]["image"][10, 0] = np.nan
    found[0]["text"][11] = 0
    lists = {name: [list(v) for v in x.astype(np.float64)] for name, x in found[0].items()}
    lists["audio"][12] = lists["audio"][12][:5]
    lists["audio"][13] = None
    lists["image"][14] = lists["text"][14] = None
    others = {name: [list(v) for v in x.astype(np.float64)] for name, x in found[1].items()}
    others["image"][14] = others["text"][14] = None
    models = [
        write(tmp_path / f"{number}.parquet", pa.table({"key": keys, **of_model}))
        for number, of_model in enumerate((lists, others))
    ]
    flags = np.zeros(N, bool)
    flags[100:140] = True
    held = tmp_path / "held.txt"
    held.write_text("\n".join(key for key, out in zip(keys, flags, strict=True) if out))
    run, _ = score(config_of(tmp_path / "out", models, embeddings={"held_out": str(held)}))
    errors = rows_of(run.output, "errors")
    assert {key: row["error"] for key, row in errors.items()} == {
        keys[3]: "repeated_key", keys[10]: "not_finite", keys[11]: "zero_vector",
        keys[12]: "wrong_dim", keys[13]: "missing_in_model", keys[14]: "too_few_modalities",
    }  # fmt: skip
    assert "model 001" in errors[keys[10]]["detail"]
    scored = rows_of(run.output)
    assert keys[3] in scored
    assert len(scored) + len(errors) + 40 == N


def test_absent_modalities_are_scored_with_the_rest(tmp_path: Path) -> None:
    found = [vectors(N, 8, seed) for seed in (0, 1)]
    models = []
    for number, of_model in enumerate(found):
        made = table(keys_of(N), of_model)
        image = made["image"].to_pylist()
        image[5] = None
        made = made.set_column(2, "image", pa.array(image, pa.list_(pa.float32(), 8)))
        models.append(write(tmp_path / f"{number}.parquet", made))
    flags = tmp_path / "held.txt"
    flags.write_text("\n".join(keys_of(N)[50:80]))
    run, _ = score(config_of(tmp_path / "out", models, embeddings={"held_out": str(flags)}))
    row = rows_of(run.output)[keys_of(N)[5]]
    assert row["modalities"] == ["audio", "text"]
    assert row["attribution_image"] is None
    two = [{n: x for n, x in of_model.items() if n != "image"} for of_model in found]
    held = np.isin(np.arange(N), np.arange(50, 80))
    np.testing.assert_allclose(row["cmc"], literal_cmc(two, held)[:, 5], atol=1e-5)
