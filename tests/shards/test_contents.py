"""What a sample carries, and its members with one modality from a donor."""

from __future__ import annotations

import json

from multimem_ray.sample import Sample
from multimem_ray.shards.contents import Value, label_of, look, replaced

FIELDS = {"image": ("jpg", "png"), "text": ("txt", "json.caption")}


def sample(**members: bytes) -> Sample:
    return Sample("k", "s.tar", 0, members)


def test_the_first_field_that_is_there_counts() -> None:
    item = look(sample(png=b"p", json=b'{"caption": "c", "label": 3}'), FIELDS, "json.label")
    assert item.label == "3"
    assert item.values == {"image": Value("png", b"p"), "text": Value("json.caption", "c")}


def test_what_is_empty_or_unreadable_is_left_out() -> None:
    assert set(look(sample(jpg=b"", txt=b"t"), FIELDS, None).values) == {"text"}
    broken = look(sample(jpg=b"j", json=b"{"), FIELDS, "json.label")
    assert (broken.label, broken.values) == (None, {})


def test_a_video_goes_with_its_sound() -> None:
    fields = {"audio": ("mp4",), "video": ("mp4",), "text": ("txt",)}
    assert set(look(sample(mp4=b"m", txt=b"t"), fields, None).values) == {"video", "text"}


def test_labels_are_text() -> None:
    assert label_of(sample(cls=b" 7\n"), "cls") == "7"
    assert label_of(sample(json=b'{"a": {"b": [1]}}'), "json.a") == '{"b": [1]}'
    assert label_of(sample(cls=b""), "cls") is label_of(sample(), None) is None


def test_a_member_takes_the_place_of_every_alternative() -> None:
    own, donated = Value("jpg", b"1"), Value("png", b"2")
    members = replaced(sample(jpg=b"1", png=b"0", txt=b"t"), own, donated, ("jpg", "png"))
    assert members == {"png": b"2", "txt": b"t"}


def test_a_value_of_the_json_is_exchanged_alone() -> None:
    given = sample(json=b'{"a": {"caption": "old", "n": 1}}')
    old, new = Value("json.a.caption", "old"), Value("json.a.caption", "n\u00e4")
    members = replaced(given, old, new, ("json.a.caption",))
    assert json.loads(members["json"]) == {"a": {"caption": "nä", "n": 1}}
    assert given.metadata()["a"]["caption"] == "old"
