"""Files that do not stand alike are joined by key on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimem_ray.embeddings import join, units
from tests.embeddings.kept import (
    N,
    assert_literal,
    config_of,
    keys_of,
    rows_of,
    score,
    table,
    write,
    written,
)


def test_files_in_another_order_are_joined(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    first = written(tmp_path, found)[0]
    order = np.random.default_rng(3).permutation(N)
    keys = [keys_of(N)[at] for at in order]
    shuffled = {name: x[order] for name, x in found[1].items()}
    for part, span in enumerate((slice(0, 70), slice(70, N))):
        made = table(keys[span], {name: x[span] for name, x in shuffled.items()})
        write(tmp_path / "second" / f"{part}.parquet", made)
    run, shards = score(config_of(tmp_path / "out", [first, str(tmp_path / "second")]))
    assert [shard.url for shard in shards.scored] == ["joined/00000-of-00001"]
    assert_literal(run, found, keys_of(N))


def test_many_buckets_and_spills_change_nothing(
    tmp_path: Path, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BUCKET_BYTES", 20_000)
    monkeypatch.setattr(join, "SPILL_BYTES", 15_000)
    monkeypatch.setattr(join, "_READ_ROWS", 16)
    first = written(tmp_path, found)[0]
    order = np.arange(N)[::-1]
    other = table([keys_of(N)[at] for at in order], {n: x[order] for n, x in found[1].items()})
    second = write(tmp_path / "reversed.parquet", other)
    run, shards = score(config_of(tmp_path / "out", [first, second]))
    assert len(shards.scored) == 8
    assert_literal(run, found, keys_of(N))


def test_a_key_that_a_model_lacks_is_listed(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    first = written(tmp_path, found)[0]
    rows = np.r_[0:20, 25:N, 7]
    keys = [keys_of(N)[at] for at in rows]
    second = write(
        tmp_path / "s.parquet", table(keys, {name: x[rows] for name, x in found[1].items()})
    )
    run, _ = score(config_of(tmp_path / "out", [first, second]))
    errors = rows_of(run.output, "errors")
    kinds = {key: row["error"] for key, row in errors.items()}
    assert kinds == {
        **dict.fromkeys(keys_of(N)[20:25], "missing_in_model"),
        keys_of(N)[7]: "repeated_key",
    }
    assert "by model 001" in errors[keys_of(N)[20]]["detail"]
