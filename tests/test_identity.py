"""Two data sets that are numbered alike: each sample is known by shard and key, everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multimem_ray.audit import audit, embed, score
from multimem_ray.errors import ConfigError
from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import load_run
from multimem_ray.sample import Sample
from multimem_ray.setup import resolve
from multimem_ray.shards.plant import plant
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.reshard import reshard
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from tests.small import QUIET, members, small_config

STORAGE = Storage()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a`` and ``b`` with shards and keys of the same names, and other content."""
    folder = tmp_path_factory.mktemp("in")
    for number, name in enumerate("ab"):
        with ShardWriter(str(folder / name), max_samples=12) as writer:
            for place in range(24):
                writer.write(f"s{place:04d}", members(place + 100 * number))
    return folder


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    config = small_config(
        shards, tmp_path_factory.mktemp("done") / "out", f"data.shards={shards}/*/*.tar"
    )
    audit(config, QUIET, executor="local")
    return str(config.output)


def content(sample: Sample) -> str:
    return hashlib.sha256(sample.members["flac"]).hexdigest()


def contents(urls: Iterable[str]) -> dict[tuple[str, str], str]:
    """Shard with its folder, and key, to a hash of what the sample holds."""
    return {
        ("/".join(url.split("/")[-2:]), item.key): content(item)
        for url in urls
        for item in read_shard(url, STORAGE)
        if isinstance(item, Sample)
    }


def test_the_run_states_how_much_of_a_path_is_a_shards_name(done: str) -> None:
    assert load_run(done, STORAGE)["shard_parts"] == 2


def test_what_is_selected_is_what_resharding_leaves_out(
    shards: Path, done: str, tmp_path: Path
) -> None:
    made = select_samples(ScoreTable(done, STORAGE), Wanted(top=8))
    listed = pq.read_table(made.parts["remove"]).to_pylist()
    named = {("/".join(row["shard"].split("/")[-2:]), row["key"]) for row in listed}
    every = contents(map(str, sorted(shards.glob("*/*.tar"))))
    report = reshard(f"{shards}/*/*.tar", str(tmp_path), f"{made.folder}/remove")
    left = contents(report.shards)
    assert (report.left_out, report.agrees, len(named)) == (8, True, 8)
    assert set(every.values()) - set(left.values()) == {every[name] for name in named}
    # Under the same names, so that the list still holds for the copy and for part of the data.
    assert left == {name: hash_ for name, hash_ in every.items() if name not in named}
    one = reshard(f"{shards}/a/*.tar", str(tmp_path / "a"), f"{made.folder}/remove")
    assert one.left_out == sum(shard.startswith("a/") for shard, _ in named)


def test_a_list_that_does_not_say_which_shard_is_refused(shards: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"key": ["s0001"], "shard": ["000000.tar"]}), tmp_path / "l.parquet")
    with pytest.raises(ConfigError, match="several have that file name; write the last 2 parts"):
        reshard(f"{shards}/*/*.tar", str(tmp_path / "out"), str(tmp_path / "l.parquet"))


def test_keys_that_mean_more_samples_than_were_listed_are_told(
    shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_text("s0001\n")
    report = reshard(f"{shards}/*/*.tar", str(tmp_path / "out"), str(tmp_path / "keys.txt"))
    assert not report.agrees
    assert any("2 samples have the 1 keys of the list" in line for line in report.lines())


def test_embeddings_that_come_back_give_the_same_scores(done: str, tmp_path: Path) -> None:
    config = resolve(load_run(done, STORAGE)["config"])
    embed(config, QUIET, executor="local")
    back = resolve({"output": str(tmp_path / "back"), "data": {"embeddings": done}})
    summary = score(back, QUIET, executor="local")
    known = scores_of(done)
    again = scores_of(str(tmp_path / "back"))
    assert summary["coverage"]["errors"] == 0
    assert again.keys() == known.keys()
    assert all(abs(again[who] - known[who]) < 1e-4 for who in known)


def scores_of(output: str) -> dict[tuple[str, str], float]:
    rows = ScoreTable(output, STORAGE).query(
        "SELECT shard, key, multimem FROM scores WHERE multimem IS NOT NULL",
        ["shard", "key", "multimem"],
    )
    return {(row["shard"], row["key"]): row["multimem"] for row in rows}


def test_planted_truth_names_the_copies_apart(shards: Path, tmp_path: Path) -> None:
    fields = {"image": "png", "text": "txt"}
    made = plant(f"{shards}/*/*.tar", str(tmp_path), fraction=0.3, fields=fields)
    truth = pq.read_table(made.truth).to_pylist()
    assert {row["shard"] for row in truth} == {
        f"{name}/{number:06d}.tar" for name in "ab" for number in range(2)
    }
    assert len({(row["shard"], row["key"]) for row in truth}) == 48
