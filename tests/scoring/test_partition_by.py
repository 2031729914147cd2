"""``scoring.partition_by`` in a run: the same scores in other folders, resumed and retried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import ConfigError, ResumeError, SampleError
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.run import Run, Shards
from multimem_ray.scoring import chunks
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.setup import inspect, open_run
from multimem_ray.status import run_status
from multimem_ray.storage import Storage
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import finish_models, row_of, some_statistics
from tests.small import small_config, write_shards


def opened(folder: Path, *sets: str) -> tuple[Run, Shards]:
    if not (folder / "shards").exists():
        write_shards(folder / "shards", 20, 1)
    run, shards = open_run(small_config(folder / "shards", folder / "out", *sets))
    if not run.is_trained("000"):
        finish_models(run)
    return run, shards


def scored(run: Run) -> dict[str, dict[str, Any]]:
    table = ScoreTable(run.output, Storage())
    return {row["key"]: row for b in table.batches(table.columns) for row in b.to_pylist()}


@pytest.fixture
def without_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOut.statistics",
        lambda self: some_statistics(self._run),
    )


@pytest.mark.usefixtures("without_held_out")
@pytest.mark.parametrize(
    ("by", "folders"),
    [
        ("json.source", {f"source=tape-{n}" for n in range(10)}),
        ("label", {f"partition_label={c}" for c in ("red", "green", "blue")}),
        ("json.nothing", {"nothing=__HIVE_DEFAULT_PARTITION__"}),
    ],
)
def test_it_changes_no_score(tmp_path: Path, by: str, folders: set[str]) -> None:
    plain, shards = opened(tmp_path / "plain")
    ShardScorer(plain, restarted=False)(row_of(plain, shards))
    run, shards = opened(tmp_path / "by", f"scoring.partition_by={by}")
    ShardScorer(run, restarted=False)(row_of(run, shards))
    assert plain.config.fingerprint() == run.config.fingerprint()
    found, expected = scored(run), scored(plain)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert row.keys() == expected[key].keys()
        assert row["cmc"] == pytest.approx(expected[key]["cmc"], abs=1e-5)
    there = {path.name for path in Path(run.output, "scores").iterdir()}
    assert there <= folders
    assert len(there) >= len(folders) - 2, "but for tapes of which every sample is held out"
    best = max(found.values(), key=lambda row: row["multimem"] or -9)
    assert top(ScoreTable(run.output, Storage()), n=1)[0]["key"] == best["key"]


@pytest.mark.usefixtures("without_held_out")
def test_a_retry_and_the_status_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = opened(tmp_path, "scoring.partition_by=json.source", "held_out.fraction=0.01")
    scorer, identity, bad = (
        ShardScorer(run, restarted=False),
        chunks.ChunkReader.identity,
        {4, 5, 11},
    )

    def failing(self: Any, sample: Any) -> Any:
        if sample.index in bad:
            raise SampleError("today", "undecodable", "decode")
        return identity(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(chunks.ChunkReader, "identity", failing)
        first = scorer(row_of(run, shards))
    before = scored(run)
    (failed,) = commit_log(run).split(shards.scored)[0]
    assert (failed.rows, failed.errors) == (first["rows"], 3)
    assert not Path(run.output, "scores", "source=tape-2").exists()

    seen: list[int] = []

    def noted(self: Any, sample: Any) -> Any:
        seen.append(sample.index)
        return identity(self, sample)

    monkeypatch.setattr(chunks.ChunkReader, "identity", noted)
    again = scorer(row_of(run, shards, stale=f'["{failed.url}"]', retry=failed.url))
    assert set(seen) == bad
    assert (again["rows"], again["errors"]) == (first["rows"] + 3, 0)
    healed = scored(run)
    assert len(healed) == again["rows"]
    for key, row in before.items():
        assert healed[key]["cmc"] == pytest.approx(row["cmc"], abs=1e-6)
    owned = set(Path(run.output, "scores").rglob("*.parquet"))
    files = ScoreTable(run.output, Storage()).score_files
    assert owned == {Path(file.url) for file in files}, "the files before the retry are gone"
    document = ScoreTable(run.output, Storage()).document("run.json")
    found = run_status(run.output, document, Storage())
    assert (found.shards_done, found.rows, found.errors) == (1, again["rows"], 0)


def test_another_field_is_refused_with_the_difference(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ResumeError, match=r'scoring\.partition_by: null → "json\.source"'):
        opened(tmp_path, "scoring.partition_by=json.source")
    opened(tmp_path, "scoring.max_partition_values=7", "scoring.partitions=2")


@pytest.mark.usefixtures("without_held_out")
def test_a_retry_under_another_number_of_partitions(tmp_path: Path) -> None:
    run, shards = opened(tmp_path)
    ShardScorer(run, restarted=False)(row_of(run, shards))
    (done,) = commit_log(run).split(shards.scored)[0]
    before = scored(run)
    for partitions in (1, 3, 7, 50):
        run, shards = opened(tmp_path, f"scoring.partitions={partitions}")
        retry = row_of(run, shards, stale=f'["{done.url}"]', retry=done.url)
        ShardScorer(run, restarted=False)(retry)
        (done,) = commit_log(run).split(shards.scored)[0]
        assert scored(run).keys() == before.keys()
        assert len(list(Path(run.output, "scores").rglob("*.parquet"))) == 1


@pytest.mark.usefixtures("without_held_out")
def test_a_file_left_under_another_number_of_partitions_is_not_read(tmp_path: Path) -> None:
    run, shards = opened(tmp_path)
    ShardScorer(run, restarted=False)(row_of(run, shards))
    (path,) = Path(run.output, "scores").rglob("*.parquet")
    for number in ("000", "999"):
        left = path.parents[1] / f"partition={number}" / path.name
        if not left.exists():
            left.parent.mkdir(exist_ok=True)
            left.write_bytes(path.read_bytes())
    assert [Path(file.url) for file in ScoreTable(run.output, Storage()).score_files] == [path]


def test_refusals(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 4, 1)
    with pytest.raises(ConfigError, match="partition_by"):
        small_config(shards, tmp_path / "out", "scoring.partition_by=source")
    with pytest.raises(ConfigError, match=r"partition_by = group.*design\.group"):
        small_config(shards, tmp_path / "out", "scoring.partition_by=group")
    run, _ = inspect(
        small_config(
            shards, tmp_path / "out", "scoring.partition_by=group", "design.group=json.source"
        )
    )
    assert run.config.scoring.partition_by == "group"
