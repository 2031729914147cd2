"""The golden run: later code gives the scores, names and sums that version 0.1.0 gave."""

from __future__ import annotations

import io
import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import audit
from multimem_ray.config import Config
from multimem_ray.progress import Progress
from multimem_ray.setup import apply_overrides, resolve
from multimem_ray.storage import Storage
from tests.golden.cases import BUCKET, CASES
from tests.golden.make import unpack
from tests.s3 import S3Server

_TIMES = ("plan", "started_at", "finished_at", "seconds", "versions")
# Errors are those of the verdict since there is one; details name the formats that can be read.
_OTHER_SINCE = ("noise", "mean_standing_out", "detail")


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    storage = s3_server.storage
    url = f"{s3_server.endpoint}/{BUCKET}"
    # It may be there from another test.
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10).close()
    for folder in CASES:
        storage.remove(f"s3://{BUCKET}/{folder}", recursive=True)
    return storage


# Workers of Ray need the credentials of the S3 server, so that Ray must be started after it: not in
# the session of the fast suite, whose Ray may be there before.
@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest, s3_server: S3Server) -> Any:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return request.param


def config_of(case: str, storage: Storage, cache: Any) -> Config:
    raw = {**CASES[case], "storage": storage.config.model_dump(mode="json")}
    sets = [f"output=s3://{BUCKET}/{case}", f"resources.cache_dir={cache}"]
    return resolve(apply_overrides(raw, sets))


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO(), width=200))


def assert_same(new: Any, old: Any, where: str, tolerance: float = 1e-6) -> None:
    """Equal, numbers within the tolerance; times do not count."""
    if isinstance(old, Mapping):
        assert new.keys() >= old.keys(), where
        for name, value in old.items():
            if name not in (*_TIMES, *_OTHER_SINCE):
                assert_same(new[name], value, f"{where}.{name}", tolerance)
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for number, pair in enumerate(zip(new, old, strict=True)):
            assert_same(*pair, f"{where}[{number}]", tolerance)
    elif isinstance(old, float) and not isinstance(new, str | None):
        assert math.isclose(new, old, rel_tol=tolerance, abs_tol=tolerance), (where, new, old)
    else:
        assert new == old, where


def rows_of(data: bytes) -> dict[str, dict[str, Any]]:
    table = pq.read_table(io.BytesIO(data))
    return {f"{row['shard']} {row['key']}": row for row in table.to_pylist()}


def assert_golden(
    case: str, storage: Storage, files: Mapping[str, bytes], tolerance: float
) -> None:
    kept = ("scores/", "errors/", "commits/")
    below = f"s3://{BUCKET}/{case}/"
    written = {info.url.removeprefix(below) for info in storage.list(below)}
    old = {name.removeprefix(f"{case}/") for name in files if name.startswith(f"{case}/")}
    names = {name for name in old if name.startswith(kept)}
    assert {name for name in written if name.startswith(kept)} == names
    for name in sorted(names - {n for n in names if n.startswith("commits/")}):
        rows, known = rows_of(storage.read_bytes(below + name)), rows_of(files[f"{case}/{name}"])
        assert rows.keys() == known.keys(), name
        assert_same(rows, known, name, tolerance)
    for name in ("summary.json", "held_out/held_out.json"):
        new = json.loads(storage.read_bytes(below + name))
        assert_same(new, json.loads(files[f"{case}/{name}"]), name, tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if case != "begun"])
def test_models_of_before_give_the_scores_of_before(
    case: str, storage: Storage, tmp_path: Any, executor: Any
) -> None:
    outcome = ("scores/", "errors/", "commits/", "held_out/", "summary.json")
    files = unpack(storage, leave=tuple(f"{case}/{name}" for name in outcome))
    audit(config_of(case, storage, tmp_path), quiet(), executor=executor)
    assert_golden(case, storage, files, 1e-6)


def test_an_output_that_was_begun_before_is_resumed(
    storage: Storage, tmp_path: Any, executor: Any
) -> None:
    files = unpack(storage)
    marker = min(name for name in files if name.startswith("halves/commits/"))
    storage.remove(f"s3://{BUCKET}/{marker}")
    audit(config_of("halves", storage, tmp_path), quiet(), executor=executor)
    assert_golden("halves", storage, files, 1e-6)


def test_a_training_that_was_begun_before_is_resumed(
    storage: Storage, tmp_path: Any, executor: Any
) -> None:
    """Two epochs with a break in between are two epochs: scores as of a run without one."""
    unpack(storage)
    config = config_of("begun", storage, tmp_path)
    audit(config, quiet(), executor=executor)
    history = storage.read_bytes(f"s3://{BUCKET}/begun/models/000/history.jsonl").splitlines()
    assert [json.loads(line)["epoch"] for line in history][-1] == 1


def test_training_gives_the_models_of_before(
    storage: Storage, tmp_path: Any, executor: Any
) -> None:
    """Sums of floats differ between processors: only as near as that is asked."""
    files = unpack(storage, leave=("grouped/",))
    audit(config_of("grouped", storage, tmp_path), quiet(), executor=executor)
    assert_golden("grouped", storage, files, 2e-3)
