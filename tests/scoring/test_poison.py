"""Samples that kill their process are found, recorded and left out; those by chance are not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.scoring import chunks, poison
from multimem_ray.scoring.poison import CrashLog, isolated_parts
from multimem_ray.scoring.rows import schema_of
from multimem_ray.scoring.shard import assembled, part_of, score_shard
from multimem_ray.store.commits import commit_log
from multimem_ray.store.parts import Part
from tests.scoring.bank_of import KilledError, bank_of, scores_of
from tests.scoring.test_shard import same
from tests.small import small_run


@pytest.mark.parametrize("stage", ["decode", "score"])
@pytest.mark.parametrize(
    ("place", "batch_size", "deaths"), [(13, 6, 3), (19, 19, 2)], ids=["amid", "alone at the end"]
)
def test_a_sample_that_kills_is_found_and_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    place: int,
    batch_size: int,
    deaths: int,
) -> None:
    sets = f"scoring.batch_size={batch_size}", "held_out.fraction=0.000001"
    run, shards = small_run(tmp_path, *sets)
    bank, source = bank_of(run), shards.scored[0]
    good = score_shard(scores_of(run, bank), source)
    folder = commit_log(run).parts(source)
    killer = good.scores["key"][place].as_py()
    identity, score = chunks.ChunkReader.identity, part_of

    def deadly_identity(self: Any, sample: Any) -> Any:
        if sample.key == killer:
            raise KilledError
        return identity(self, sample)

    def deadly_score(*args: Any) -> Part[Any]:
        if killer in args[1].who.keys:
            raise KilledError
        return score(*args)

    if stage == "decode":
        monkeypatch.setattr(chunks.ChunkReader, "identity", deadly_identity)
    else:
        monkeypatch.setattr(poison, "part_of", deadly_score)
    for died in itertools.count():
        try:
            parts = isolated_parts(scores_of(run, bank), source.url, folder)
            break
        except KilledError:
            assert died < 10
    assert died == deaths, "one death with the chunk, if it holds more; two with the sample"
    found = assembled(schema_of(run), source, parts, 0.0)
    assert found.errors.to_pylist()[0] | {"detail": ""} == {
        "shard": source.url, "key": killer, "index": place, "stage": stage,
        "error": "killed_worker", "detail": "",
    }  # fmt: skip
    left = [key for key in good.scores["key"].to_pylist() if key != killer]
    assert found.scores["key"].to_pylist() == left


def test_deaths_by_chance_blame_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank, source = bank_of(run), shards.scored[0]
    good = score_shard(scores_of(run, bank), source)
    folder, calls, score = commit_log(run).parts(source), itertools.count(), part_of

    def unlucky(*args: Any) -> Part[Any]:
        if next(calls) % 3 == 1:
            raise KilledError
        return score(*args)

    monkeypatch.setattr(poison, "part_of", unlucky)
    for _ in range(30):
        try:
            parts = isolated_parts(scores_of(run, bank), source.url, folder)
            break
        except KilledError:
            pass
    assert same(assembled(schema_of(run), source, parts, 0.0), good)


def test_a_shard_that_kills_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank, source = bank_of(run), shards.scored[0]
    folder = commit_log(run).parts(source)
    monkeypatch.setattr(poison, "part_of", raising(KilledError()))
    for died in itertools.count():
        try:
            parts = isolated_parts(scores_of(run, bank), source.url, folder)
            break
        except KilledError:
            assert died < 50
    assert died == poison.DEATHS_OF_A_SHARD
    found = assembled(schema_of(run), source, parts, 0.0)
    assert found.receipt.rows + found.receipt.errors + found.receipt.held_out == 20
    assert {row["error"] for row in found.errors.to_pylist()} == {"killed_worker"}


def test_a_reader_that_kills_ends_the_shard(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    bank, source = bank_of(run), shards.scored[0]
    folder = commit_log(run).parts(source)
    CrashLog(stage="read", first=5, end=6, repeated=1, suspects=[(5, 8)]).save(folder)
    parts = isolated_parts(scores_of(run, bank), source.url, folder)
    found = assembled(schema_of(run), source, parts, 0.0)
    (failure,) = found.errors.to_pylist()
    assert (failure["stage"], failure["error"], failure["key"]) == ("read", "killed_worker", None)
    assert found.receipt.rows + found.receipt.held_out == 5


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail
