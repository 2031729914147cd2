"""Certificates of what was removed, and what is found when they are checked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.export.certificate import certify, sample_hash
from multimem_ray.export.certificate_check import check
from multimem_ray.results.scores import open_scores
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.reshard import reshard
from multimem_ray.storage import Storage
from tests.export.conftest import change_byte

STORAGE = Storage()


def test_it_tells_what_is_gone_with_hashes_rule_and_scores(rewritten: tuple[str, str]) -> None:
    run, out = rewritten
    made = certify(out, STORAGE)
    best = {row["key"]: row for row in open_scores(run).top(5)}
    rows = pq.read_table(Path(out, "certificate", "removed.parquet")).to_pylist()
    assert {row["key"] for row in rows} == set(best)
    for row in rows:
        assert row["before_multimem"] == best[row["key"]]["multimem"]
        assert row["before_low"] == pytest.approx(best[row["key"]]["multimem_low"])
        assert row["after_multimem"] is None
        found = (i for i in read_shard(row["shard"], STORAGE) if i.key == row["key"])
        sample = next(found)
        assert isinstance(sample, Sample)
        assert row["sha256"] == sample_hash(sample)
    assert (made["samples"], made["removed"], made["kept"]) == (40, 5, 35)
    assert made["rule"]["selection"]["asked"] == {"top": 5}
    assert made["scores"]["before"]["run"] == run
    for shard in made["shards"]:
        for side in ("before", "after"):
            data = Path(shard[side]["url"]).read_bytes()
            assert shard[side]["sha256"] == hashlib.sha256(data).hexdigest()
    text = Path(out, "certificate", "certificate.md").read_text()
    assert "5 of 40 samples were removed" in text
    assert made["sha256"] in text
    checked = check(out, STORAGE)
    assert checked.faults == checked.notes == []
    assert (checked.hashes, checked.removed) == (6, 5)


def test_scores_after_are_joined_by_identity(rewritten: tuple[str, str], tmp_path: Path) -> None:
    run, out = rewritten
    after = tmp_path / "after"
    shutil.copytree(run, after)
    made = certify(out, STORAGE, after=str(after))
    assert made["scores"]["after"]["scored"] == 5
    assert made["scores"]["after"]["mean"] == made["scores"]["before"]["mean"]
    emptied = tmp_path / "emptied"
    shutil.copytree(run, emptied, ignore=shutil.ignore_patterns("commits"))
    made = certify(out, STORAGE, after=str(emptied))
    assert (made["scores"]["after"]["scored"], made["scores"]["after"]["not_scored"]) == (0, 5)


def test_a_keep_list_and_a_shard_of_which_nothing_is_left(
    rewritten: tuple[str, str], tmp_path: Path
) -> None:
    run, _ = rewritten
    shards = Path(run).parent / "shards"
    listed, out = tmp_path / "keep.txt", str(tmp_path / "few")
    listed.write_text("s0003\ns0004\n")
    reshard(str(shards / "*.tar"), out, str(listed), keep=True, storage=STORAGE)
    made = certify(out, STORAGE)
    assert (made["kept"], made["removed"]) == (2, 38)
    assert made["rule"]["removed"] == "all but the listed"
    assert made["scores"]["before"] is None
    assert made["shards"][1]["after"] is None
    assert check(out, STORAGE).faults == []


def test_nothing_false_is_certified(rewritten: tuple[str, str]) -> None:
    run, out = rewritten
    with pytest.raises(ConfigError, match=r"no reshard\.json"):
        certify(run, STORAGE)
    with pytest.raises(ConfigError, match="no certificate"):
        check(out, STORAGE)
    shards = sorted(Path(out).glob("*.tar"))
    kept = shards[0].read_bytes()
    change_byte(shards[0])
    with pytest.raises(StorageError, match=r"is not as in|lacks"):
        certify(out, STORAGE)
    shards[0].write_bytes(kept)
    source = min((Path(run).parent / "shards").glob("*.tar"))
    source.write_bytes(source.read_bytes() + bytes(512))
    with pytest.raises(StorageError, match="another file than was rewritten"):
        certify(out, STORAGE)
    source.unlink()
    with pytest.raises(StorageError, match="gone; a certificate needs the shard"):
        certify(out, STORAGE)
