"""The golden run: later code gives the scores, names and sums of before; see ``make``."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq
import pytest

from multimem_ray.audit import audit
from multimem_ray.errors import ResumeError
from multimem_ray.results.scores import open_scores
from multimem_ray.storage import Storage
from tests.golden.cases import BUCKET, CASES
from tests.golden.make import OF_0_1, config_of, empty_bucket, quiet, unpack
from tests.s3 import S3Server

# Times, and sums over files in which times stand.
_TIMES = ("plan", "started_at", "finished_at", "seconds", "versions", "sources", "report")


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    return empty_bucket(s3_server)


# Workers of Ray need the credentials of the S3 server, so that Ray must be started after it: not in
# the session of the fast suite, whose Ray may be there before.
@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest, s3_server: S3Server) -> Any:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return request.param


def assert_same(new: Any, old: Any, where: str, tolerance: float = 1e-6) -> None:
    """Equal, numbers within the tolerance; times do not count."""
    if isinstance(old, Mapping):
        assert new.keys() >= old.keys(), where
        for name, value in old.items():
            if name not in _TIMES:
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


def test_an_output_of_0_1_can_be_read_and_is_not_gone_on_with(
    storage: Storage, tmp_path: Any
) -> None:
    """Its models and scores know other views."""
    unpack(storage, leave=tuple(f"{case}/" for case in CASES))
    files = unpack(storage, tar=OF_0_1)
    scores = open_scores(f"s3://{BUCKET}/halves", storage)
    known = [rows_of(data) for name, data in files.items() if name.startswith("halves/scores/")]
    rows = {f"{row['shard']} {row['key']}": row for row in scores.arrow().to_pylist()}
    assert rows.keys() == {key for part in known for key in part}
    for part in known:
        assert_same({key: rows[key] for key in part}, part, "scores")
    with pytest.raises(
        ResumeError, match=r"views are made \(version 1 then, 2 now\).*0\.1\.0 can"
    ) as refused:
        audit(config_of("halves", storage, tmp_path), quiet(), executor="local")
    assert "\n" not in str(refused.value)
    left = {
        info.url.removeprefix(f"s3://{BUCKET}/") for info in storage.list(f"s3://{BUCKET}/halves")
    }
    assert left == set(files)
