"""Parts: a shard that is scored in pieces, by several, comes out as if it were one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from multimem_ray.run import Run, Shards
from multimem_ray.sample import Failure
from multimem_ray.scoring import actor, chunks, poison, shard
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.chunks import decoded_chunks
from multimem_ray.scoring.poison import CrashLog, careful_parts
from multimem_ray.scoring.rows import schema_of
from multimem_ray.scoring.shard import ScoredShard, assembled, score_shard
from multimem_ray.storage import Storage
from multimem_ray.store.commits import commit_log
from multimem_ray.store.parts import Part, PartFolder, joined
from tests.scoring.bank_of import bank_of, finish_models, some_statistics
from tests.small import small_run, write_shards


class KilledError(BaseException):
    """Stands for a dead process: nothing in the scoring may catch it."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, shard, actor):
        monkeypatch.setattr(module, "PART_POSITIONS", 6)


def whole(run: Run, shards: Shards, bank: ScoringBank) -> ScoredShard:
    return score_shard(run, bank, some_statistics(run), shards.scored[0])


def same(a: ScoredShard, b: ScoredShard) -> bool:
    return bool(
        a.scores.drop_columns(NUMERIC).equals(b.scores.drop_columns(NUMERIC))
        and a.errors.equals(b.errors)
        and a.receipt.samples == b.receipt.samples
        and all(
            x == pytest.approx(y, abs=1e-5)
            for x, y in zip(a.scores["cmc_in"].to_pylist(), b.scores["cmc_in"].to_pylist())  # noqa: B905
        )
    )


NUMERIC = [
    "multimem", "multimem_normalized", "cmc_in", "cmc_out", "cmc", "multimem_se",
    *(f"{kind}_{pair}" for kind in ("pair", "clipmem")
      for pair in ("audio_image", "audio_text", "image_text")),
    *(f"{kind}_{name}" for kind in ("attribution", "unseen")
      for name in ("audio", "image", "text")),
    "unseen_clipmem",
]  # fmt: skip


@pytest.mark.usefixtures("small_parts")
def test_chunks_cover_a_shard_and_leave_out_what_is_done(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    url = shards.scored[0].url
    every = list(decoded_chunks(run, url))
    assert [c.first for c in every] == [0, *(c.end for c in every[:-1])]
    assert every[-1].end == 20
    assert {6, 12, 18} <= {c.end for c in every}
    rest = list(decoded_chunks(run, url, [(0, 5), (9, 11), (19, 20)]))
    covered = {at for c in rest for at in range(c.first, c.end)}
    assert covered == {5, 6, 7, 8, *range(11, 19)}


@pytest.mark.usefixtures("small_parts")
def test_a_shard_goes_on_from_its_parts(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank = bank_of(run)
    folder = commit_log(run).parts(shards.scored[0])
    first = score_shard(run, bank, some_statistics(run), shards.scored[0], folder)
    assert folder.names() == [f"{a:09d}-{b:09d}.arrow" for a, b in ((0, 6), (6, 12), (12, 18))]
    listed = commit_log(run).known_parts()
    assert listed == {folder.url: folder.names()}

    class NoBank:
        def agreements(self, views: Any, means: Tensor) -> Any:
            assert len(views.present) <= 2, "known samples are not embedded again"
            return bank.agreements(views, means)

    again = score_shard(
        run,
        NoBank(),
        some_statistics(run),
        shards.scored[0],
        folder,
        folder.read(),  # type: ignore[arg-type]
    )
    assert same(first, again)
    assert same(first, whole(run, shards, bank))
    folder.remove()
    assert folder.names() == []


def test_parts_that_overlap_or_leave_gaps_are_told(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    empty = schema_of(run).empty_table()

    def part(first: int, end: int) -> Part:
        return Part(first, end, empty, end - first, [])

    folder = PartFolder(Storage(), str(tmp_path / "parts"))
    for first, end in ((0, 4), (0, 8), (4, 8), (6, 10), (8, 12)):
        folder.write(part(first, end))
    (tmp_path / "parts" / "attempt.json").write_text("{}")
    assert [(p.first, p.end) for p in folder.read()] == [(0, 8), (8, 12)]
    with pytest.raises(RuntimeError, match="gap"):
        joined([part(0, 4), part(6, 10)], empty.schema)
    with pytest.raises(RuntimeError, match="came to"):
        Part(0, 4, empty, 3, [])


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
    good = whole(run, shards, bank)
    folder = commit_log(run).parts(source)
    killer = good.scores["key"][place].as_py()
    add, score = chunks.ChunkBuilder.add, poison.score_chunk

    def deadly_add(self: Any, item: Any) -> None:
        if item.key == killer:
            raise KilledError
        add(self, item)

    def deadly_score(*args: Any) -> Part:
        if killer in args[4].who.keys:
            raise KilledError
        return score(*args)

    if stage == "decode":
        monkeypatch.setattr(chunks.ChunkBuilder, "add", deadly_add)
    else:
        monkeypatch.setattr(poison, "score_chunk", deadly_score)
    for died in itertools.count():
        try:
            parts = careful_parts(run, bank, some_statistics(run), source, folder)
            break
        except KilledError:
            assert died < 10
    assert died == deaths, "one death with the chunk, if it holds more; two with the sample"
    found = assembled(run, source, parts, 0.0)
    assert found.errors.to_pylist()[0] | {"detail": ""} == {
        "shard": source.url, "key": killer, "index": place, "stage": stage,
        "error": "killed_worker", "detail": "",
    }  # fmt: skip
    left = [key for key in good.scores["key"].to_pylist() if key != killer]
    assert found.scores["key"].to_pylist() == left


def test_deaths_by_chance_blame_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank, source = bank_of(run), shards.scored[0]
    good = whole(run, shards, bank)
    folder, calls, score = commit_log(run).parts(source), itertools.count(), poison.score_chunk

    def unlucky(*args: Any) -> Part:
        if next(calls) % 3 == 1:
            raise KilledError
        return score(*args)

    monkeypatch.setattr(poison, "score_chunk", unlucky)
    for _ in range(30):
        try:
            parts = careful_parts(run, bank, some_statistics(run), source, folder)
            break
        except KilledError:
            pass
    assert same(assembled(run, source, parts, 0.0), good)


def test_a_shard_that_kills_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank, source = bank_of(run), shards.scored[0]
    folder = commit_log(run).parts(source)
    monkeypatch.setattr(poison, "score_chunk", raising(KilledError()))
    for died in itertools.count():
        try:
            parts = careful_parts(run, bank, some_statistics(run), source, folder)
            break
        except KilledError:
            assert died < 50
    assert died == poison.DEATHS_OF_A_SHARD
    found = assembled(run, source, parts, 0.0)
    assert found.receipt.rows + found.receipt.errors + found.receipt.held_out == 20
    assert {row["error"] for row in found.errors.to_pylist()} == {"killed_worker"}


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_a_reader_that_kills_ends_the_shard(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    bank, source = bank_of(run), shards.scored[0]
    folder = commit_log(run).parts(source)
    CrashLog(stage="read", first=5, end=6, repeated=1, suspects=[(5, 8)]).save(folder)
    found = assembled(
        run, source, careful_parts(run, bank, some_statistics(run), source, folder), 0.0
    )
    (failure,) = found.errors.to_pylist()
    assert (failure["stage"], failure["error"], failure["key"]) == ("read", "killed_worker", None)
    assert found.receipt.rows + found.receipt.held_out == 5


def test_a_sample_the_models_cannot_take_is_a_failure(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.000001")
    bank, held_out = bank_of(run), some_statistics(run)
    good = whole(run, shards, bank)

    class Picky:
        def agreements(self, views: Any, means: Tensor) -> Any:
            if not views.present[:, 1].all():
                raise ValueError("no picture")
            return bank.agreements(views, means)

    found = score_shard(run, Picky(), held_out, shards.scored[0])  # type: ignore[arg-type]
    failed = {row["key"] for row in found.errors.to_pylist()}
    assert failed == {
        row["key"] for row in good.scores.to_pylist() if "image" not in row["modalities"]
    }
    assert {row["error"] for row in found.errors.to_pylist()} == {"model_error"}
    assert found.receipt.samples == 20

    class Broken:
        agreements = staticmethod(raising(ValueError("always")))

    with pytest.raises(ValueError, match="always"):
        score_shard(run, Broken(), held_out, shards.scored[0])  # type: ignore[arg-type]


def row_of(run: Run, shards: Shards, **changes: Any) -> dict[str, Any]:
    source = shards.scored[0]
    return {
        "kind": "shard", "url": source.url, "size": source.size, "version": source.version,
        "names": "[]", "stale": "[]", "retry": "",
    } | changes  # fmt: skip


@pytest.mark.usefixtures("small_parts")
def test_a_retry_goes_to_what_failed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards", 20, 1)
    run, shards = small_run(tmp_path, "held_out.fraction=0.1")
    finish_models(run)
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOutMeans.statistics", lambda self: some_statistics(run)
    )
    scorer = ShardScorer(run, restarted=False)
    good = scorer._score(shards.scored[0], row_of(run, shards))
    before = commit_log(run).split(shards.scored)[0][0]
    clean = scores_of(run, shards)
    add = chunks.ChunkBuilder.add
    bad = {clean[3]["index"], clean[4]["index"], clean[-1]["index"]}

    def failing(self: Any, item: Any) -> None:
        if item.index in bad:
            item = Failure(item.shard, item.key, item.index, "decode", "undecodable", "today")
        add(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(chunks.ChunkBuilder, "add", failing)
        scorer(row_of(run, shards, stale=f'["{before.url}"]'))
    failed = commit_log(run).split(shards.scored)[0][0]
    assert (failed.rows, failed.errors) == (good.rows - 3, 3)

    seen: list[int] = []
    monkeypatch.setattr(
        chunks.ChunkBuilder, "add", lambda self, item: (seen.append(item.index), add(self, item))
    )
    again = scorer(row_of(run, shards, stale=f'["{failed.url}"]', retry=failed.url))
    assert set(seen) == bad
    assert (again["rows"], again["errors"]) == (good.rows, 0)
    healed = scores_of(run, shards)
    assert [row["key"] for row in healed] == [row["key"] for row in clean]
    for a, b in zip(healed, clean, strict=True):
        assert a["cmc"] == pytest.approx(b["cmc"], abs=1e-5)
    (kept,) = commit_log(run).load()
    assert kept.errors == 0
    assert not list((tmp_path / "out" / "parts").rglob("*.arrow"))


def scores_of(run: Run, shards: Shards) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    url = commit_log(run).data_url("scores", shards.scored[0].url)
    rows: list[dict[str, Any]] = pq.read_table(url, partitioning=None).to_pylist()
    assert rows == sorted(rows, key=lambda row: -row["multimem"])
    return sorted(rows, key=lambda row: row["index"])


def test_a_restarted_worker_knows_what_it_had_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path)
    finish_models(run)
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOutMeans.statistics", lambda self: some_statistics(run)
    )
    first = ShardScorer(run, restarted=True)(row_of(run, shards))
    monkeypatch.setattr(ShardScorer, "_score", raising(AssertionError("scored twice")))
    assert ShardScorer(run, restarted=True)(row_of(run, shards)) == first
