"""Samples looked up by key, URL and content, with and without the shards."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import multimem_ray as mm
from multimem_ray.cli import app
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.lookup.find import Asked, lookup, read_asked
from multimem_ray.results.catalogue import Catalogue
from multimem_ray.results.scores import open_scores
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run
from tests.small import QUIET


@pytest.fixture
def alone(finished: str, tmp_path: Path) -> str:
    """The run catalogued, and its shards gone."""
    shards = Path(finished).parent
    copy = tmp_path / "moved"
    shutil.copytree(shards, copy)
    output = str(copy / "out")
    Catalogue(output, Storage()).ensure(progress=QUIET)
    (copy / "shards").rename(copy / "gone")
    return output


def hide(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading any shard fails from here on."""

    def gone(url: str, *_: object, **__: object) -> None:
        raise AssertionError(f"{url} was read")

    monkeypatch.setattr("multimem_ray.results.catalogue.read_shard", gone)


def test_keys_give_scores_membership_and_copies(finished: str) -> None:
    rows = {row["key"]: row for row in open_scores(finished).arrow().to_pylist()}
    found = mm.lookup(finished, [*rows, "nobody"])
    assert found.misses == ["nobody"]
    assert [match["key"] for match in found.matches] == list(rows)
    for match in found.matches:
        row = rows[match["key"]]
        assert match["state"] == "scored"
        assert match["multimem"] == row["multimem"]
        assert match["low"] == pytest.approx(row["multimem_low"])
        assert match["q"] == row["multimem_q"]
        assert match["attack_risk"] == row["attack_rmia"]
        seen = [f"{n:03d}" for n, member in enumerate(row["member"]) if member]
        assert match["models_in"] == seen
        assert match["trained_on"] is True
    copies = {m["key"]: m["duplicates"] for m in found.matches if m["duplicates"]["count"]}
    if "s0000" in rows:  # both of a group are held out, or none
        assert copies["s0000"]["samples"][0]["key"] == "s0001"
        assert copies["s0001"]["samples"][0]["key"] == "s0000"
        assert len(copies) == 2


def test_every_sample_is_scored_held_out_or_in_errors(
    alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(alone, monkeypatch)
    asked = [f"https://host{n % 3}.example/{n}.png" for n in range(41)]
    found = lookup(alone, asked, by="url", progress=QUIET)
    assert found.misses == ["https://host1.example/40.png"]
    assert found.notes == []
    counts = found.as_json()["counts"]
    scored = open_scores(alone).arrow(["key"]).num_rows
    assert counts == {"scored": scored, "held_out": 39 - scored, "error": 1, "missed": 1}
    assert 39 - scored > 2  # more than held_out.max_samples, which keys.parquet knows
    held_out = next(match for match in found.matches if match["state"] == "held_out")
    assert held_out["trained_on"] is False
    assert len(held_out["models_out"]) == 4
    (wrong,) = (match for match in found.matches if match["state"] == "error")
    assert wrong["key"] == "s0007"
    assert wrong["error"]["error"] == "undecodable"


def test_contents_are_found_without_a_catalogue(finished: str) -> None:
    rows = open_scores(finished).arrow(["key", "group"]).to_pylist()
    found = lookup(finished, [rows[0]["group"], "0" * 24], by="hash")
    assert rows[0]["key"] in {match["key"] for match in found.matches}
    assert all(match["content"] == rows[0]["group"] for match in found.matches)
    assert found.misses == ["0" * 24]


def test_urls_without_catalogue_and_shards_say_so(finished: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output, ignore=shutil.ignore_patterns("catalogue"))
    shards = pq.read_table(output / "shards.parquet").to_pydict()
    shards["url"] = [url.replace("/shards/", "/gone/") for url in shards["url"]]
    pq.write_table(pa.table(shards), output / "shards.parquet")
    with pytest.raises(StorageError, match="gone"):
        lookup(str(output), ["https://x"], by="url", progress=QUIET)


def test_a_shard_that_was_replaced_is_not_read(finished: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output, ignore=shutil.ignore_patterns("catalogue"))
    shards = pq.read_table(output / "shards.parquet").to_pydict()
    shards["version"] = ["1-1", "1-1"]
    pq.write_table(pa.table(shards), output / "shards.parquet")
    with pytest.raises(StorageError, match="another file than the run knows"):
        lookup(str(output), ["https://x"], by="url", progress=QUIET)


def test_keys_that_repeat_are_told_apart_by_their_shard(tmp_path: Path) -> None:
    names = ["/data/cc3m/0.tar", "/data/cc12m/0.tar"]
    run = fake_run(tmp_path, shard_names=names, keys=[["a", "b"], ["a", "c"]])
    run_json = Path(run.output, "run.json")
    content = json.loads(run_json.read_text())
    run_json.write_text(json.dumps(content | {"shard_parts": 2}))
    assert len(lookup(run.output, ["a"]).matches) == 2
    found = lookup(run.output, [Asked("a", "x/cc12m/0.tar"), Asked("b", "cc12m/0.tar")])
    assert [match["shard"] for match in found.matches] == ["/data/cc12m/0.tar"]
    assert found.misses == ["b"]
    assert "multimem catalogue" in found.notes[0]


@pytest.mark.parametrize("shard", ["/data/set-00000.tar", "/moved/since/set-00000.tar", None])
def test_near_duplicates_are_named(tmp_path: Path, shard: str | None) -> None:
    run = fake_run(tmp_path, shards=1, rows=9)
    shards = pa.array([shard] * 2, pa.string())
    table = {"key": ["00_00003", "00_00005"], "shard": shards}
    near = pa.table({**table, "group": ["near-1"] * 2})
    pq.write_table(near, Path(run.output, "duplicates.parquet"))
    found = lookup(run.output, ["00_00003", "00_00004"]).matches
    assert [match["duplicates"]["count"] for match in found] == [1, 0]
    assert [one["key"] for one in found[0]["duplicates"]["samples"]] == ["00_00005"]


def test_a_held_out_set_of_another_run_is_not_believed(finished: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    keys = output / "held_out" / "keys.parquet"
    table = pq.read_table(keys)
    key = table["key"][0].as_py()
    assert [m["state"] for m in lookup(str(output), [key]).matches] == ["held_out"]
    pq.write_table(table.replace_schema_metadata({"multimem_ray": "another"}), keys)
    assert lookup(str(output), [key]).misses == [key]


def test_lists_are_text_or_parquet(tmp_path: Path) -> None:
    text, table = tmp_path / "a.txt", tmp_path / "a.parquet"
    text.write_text("\ufeffa\n\n b \n")
    pq.write_table(pa.table({"key": ["a", None], "shard": ["x.tar", "y.tar"]}), table)
    assert read_asked(str(text), Storage(), "key") == [Asked("a"), Asked("b")]
    assert read_asked(str(table), Storage(), "key") == [Asked("a", "x.tar")]
    with pytest.raises(ConfigError, match="no column 'url'; it has key, shard"):
        read_asked(str(table), Storage(), "url")
    text.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="neither Parquet nor text"):
        read_asked(str(text), Storage(), "key")


def test_without_a_verdict_numbers_of_very_many_are_not_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path)
    monkeypatch.setattr(sys.modules[lookup.__module__], "_ESTIMATED", 10)
    found = lookup(run.output, ["00_00003"])
    assert found.matches[0].get("low") is None
    assert "multimem report" in found.notes[0]


def test_the_command_tells_people_and_programs(finished: str, tmp_path: Path) -> None:
    runner, keys = CliRunner(), tmp_path / "keys.txt"
    first = open_scores(finished).arrow(["key"])["key"][0].as_py()
    keys.write_text(f"{first}\nnobody\n")
    told = runner.invoke(app, ["lookup", finished, "--list", str(keys)])
    assert told.exit_code == 0
    assert "2 of 4 models" in told.stdout
    assert "missed: nobody" in told.stdout
    asked = ["lookup", finished, "https://host1.example/1.png", "--url", "--json"]
    answer = json.loads(runner.invoke(app, asked).stdout)
    assert answer["matches"][0]["key"] == "s0001"
    assert isinstance(runner.invoke(app, ["lookup", finished]).exception, ConfigError)
    both = runner.invoke(app, ["lookup", finished, "a", "--url", "--hash"]).exception
    assert "one of --url and --hash" in str(both)
