"""Two data sets that are numbered alike: each sample is known by shard and key, everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from multimem_ray.audit import audit, embed, evaluate, mitigate, score
from multimem_ray.design.key_list import hashed
from multimem_ray.errors import ConfigError
from multimem_ray.mitigation.choice import CHOSEN
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run, load_run
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


def test_evaluated_samples_are_those_that_are_held_out(
    shards: Path, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = contents(map(str, sorted(shards.glob("*/*.tar"))))
    evaluated: list[str] = []
    decode = Decoder.decode

    def recorded(self: Decoder, sample: Sample) -> dict[str, Array]:
        evaluated.append(content(sample))
        return decode(self, sample)

    monkeypatch.setattr(Decoder, "decode", recorded)
    result = evaluate(resolve(load_run(done, STORAGE)["config"]), QUIET)
    assert sorted(evaluated) == sorted(every[name] for name in held_out_of(done))
    assert result["samples"] == len(evaluated)
    scored = {every[name_of(shard), key] for shard, key in scores_of(done)}
    assert scored.isdisjoint(evaluated)


def test_a_mitigation_treats_what_was_selected(shards: Path, done: str, tmp_path: Path) -> None:
    every = contents(map(str, sorted(shards.glob("*/*.tar"))))
    made = select_samples(ScoreTable(done, STORAGE), Wanted(top=8))
    parts = made.parts["remove"]
    listed = {(name_of(row["shard"]), row["key"]) for url in parts for row in rows_of(url)}
    raw = load_run(done, STORAGE)["config"]
    recipe = {
        "kind": "in_training",
        "references": done,
        "by": "list",
        "samples": f"{made.folder}/remove",
        "treatment": "drop",
        "start": 0,
    }
    config = resolve({**raw, "output": str(tmp_path / "out"), "mitigation": recipe})
    result = mitigate(config, QUIET, executor="local")
    run = Run.from_json(load_run(str(tmp_path / "out"), STORAGE))
    hashes = {int(hashed([key], [shard])[0]): every[shard, key] for shard, key in every}
    for number, model in enumerate(run.design.model_ids()):
        chosen = rows_of(str(tmp_path / "out" / "models" / model / CHOSEN))
        seen = {name for name in listed if run.design.members([name[1]])[0, number]}
        assert {hashes[row["id"]] for row in chosen} == {every[name] for name in seen}
    before, after = scores_of(done), scores_of(str(tmp_path / "out"))
    assert result["memory"]["count"]["all"] == len(before.keys() & after.keys()) == len(before)
    assert accounted(done) == accounted(str(tmp_path / "out")) == sorted(every)


def name_of(url: str) -> str:
    return "/".join(url.split("/")[-2:])


def rows_of(url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(url, partitioning=None).to_pylist()
    return rows


def held_out_of(output: str) -> list[tuple[str, str]]:
    rows = rows_of(f"{output}/held_out/keys.parquet")
    return [(name_of(row["shard"]), row["key"]) for row in rows]


def accounted(output: str) -> list[tuple[str, str]]:
    """Name of the shard and key of whatever is scored, held out or an error; sorted."""
    written = [
        (name_of(row["shard"]), row["key"])
        for part in ("scores", "errors")
        for path in Path(output, part).rglob("*.parquet")
        for row in rows_of(str(path))
    ]
    return sorted(written + held_out_of(output))


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
