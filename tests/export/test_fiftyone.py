"""The folder for FiftyOne, against the format that its reader takes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from multimem_ray.errors import ConfigError
from multimem_ray.export.fiftyone import write_fiftyone
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


def documents(folder: Path) -> list[dict[str, object]]:
    told: list[dict[str, object]] = json.loads((folder / "samples.json").read_text())["samples"]
    return told


def test_samples_come_with_their_media_best_first(finished: str, tmp_path: Path) -> None:
    table = ScoreTable(finished, Storage())
    made = write_fiftyone(table, str(tmp_path / "fo"), 12, "audit")
    rows = {row["key"]: row for row in top(table, None, 12)}
    without = {key for key in rows if int(key[1:]) % 5 == 4}
    told = documents(tmp_path / "fo")
    assert [one["key"] for one in told] == [key for key in rows if key not in without]
    assert {(key, reason) for _, key, reason in made.left_out} == {
        (key, "it has no image") for key in without
    }
    for one in told:
        assert re.fullmatch(r"data/[\w-]+/\d{9}\.png", str(one["filepath"]))
        assert Image.open(tmp_path / "fo" / str(one["filepath"])).size == (24, 24)
        row = rows[str(one["key"])]
        assert one["multimem"] == row["multimem"]
        assert one["label"] == {**one["label"], "_cls": "Classification", "label": row["label"]}
        assert one["caption"] == f"a {row['label']} thing number {int(row['key'][1:])}" or (
            row["key"] == "s0000"
        )
    again = write_fiftyone(table, str(tmp_path / "again"), 12, "audit")
    assert again.rows == made.rows
    assert documents(tmp_path / "again") == told


def test_every_field_of_a_document_is_declared(finished: str, tmp_path: Path) -> None:
    write_fiftyone(ScoreTable(finished, Storage()), str(tmp_path), 12, "audit")
    about = json.loads((tmp_path / "metadata.json").read_text())
    declared = {one["db_field"]: one for one in about["sample_fields"]}
    for document in documents(tmp_path):
        assert set(document) <= set(declared)
        for name, value in document.items():
            kind = declared[name]["ftype"].rsplit(".", 1)[-1]
            if kind in {"FloatField", "IntField", "StringField"}:
                types = {"FloatField": (int, float), "IntField": int, "StringField": str}
                assert isinstance(value, types[kind]), name
    assert about["media_type"] == "image"


def test_shards_that_are_gone_are_told(finished: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shards = Path(finished).parent / "shards"
    hidden = shards.rename(tmp_path / "gone")
    try:
        made = write_fiftyone(ScoreTable(str(copy), Storage()), str(tmp_path / "fo"), 5, "audit")
    finally:
        hidden.rename(shards)
    assert made.rows == 0
    assert len(made.left_out) == 5


def test_a_run_with_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path, modalities=("text", "touch"))
    content = json.loads(Path(run.output, "run.json").read_text())
    content["fields"] = {"text": "txt"}
    Path(run.output, "run.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="shows pictures, clips and sounds"):
        write_fiftyone(ScoreTable(run.output, Storage()), str(tmp_path / "fo"), 5, "audit")
