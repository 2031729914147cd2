"""Rows of files and arrays of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multimem_ray.errors import StorageError
from multimem_ray.setup import inspect
from tests.embeddings.kept import (
    N,
    assert_literal,
    config_of,
    keys_of,
    score,
    vectors,
    write,
)


@pytest.mark.parametrize("kind", ["U", "S", "txt", "parquet"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_arrays_with_keys_of_every_kind(tmp_path: Path, kind: str, dtype: str) -> None:
    found = [{n: x.astype(dtype) for n, x in vectors(N, 16, seed).items()} for seed in (0, 1)]
    keys = keys_of(N)
    path = tmp_path / {"U": "k.npy", "S": "k.npy", "txt": "k.txt", "parquet": "k.parquet"}[kind]
    if kind in "US":
        np.save(path, np.array(keys, dtype=kind))
    elif kind == "txt":
        path.write_text("\n".join(keys) + "\n")
    else:
        write(path, pa.table({"key": keys}))
    models = []
    for number, of_model in enumerate(found):
        arrays = {}
        for name, x in of_model.items():
            np.save(tmp_path / f"{number}-{name}.npy", x)
            arrays[name] = str(tmp_path / f"{number}-{name}.npy")
        models.append({"arrays": arrays, "keys": str(path)})
    run, _ = score(config_of(tmp_path / "out", models))
    assert_literal(run, found, keys)


def test_pickled_keys_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array(["a", "b"], dtype=object), allow_pickle=True)
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    arrays = {name: str(tmp_path / "x.npy") for name in ("image", "text")}
    item = {"arrays": arrays, "keys": str(tmp_path / "k.npy"), "members": "all"}
    with pytest.raises(StorageError, match="never unpickled"):
        inspect(config_of(tmp_path / "out", [item, item], design={}))
