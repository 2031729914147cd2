"""Where each modality lies, said by the user or found in the shards."""

from __future__ import annotations

import json

import pytest

from multimem_ray.errors import ConfigError, SampleError
from multimem_ray.modalities.fields import Fields, find_fields
from multimem_ray.sample import Sample


def sample(index: int = 0, **members: bytes) -> Sample:
    return Sample(f"key{index}", "a.tar", index, members)


def described(**content: object) -> bytes:
    return json.dumps(content).encode()


def test_the_first_alternative_that_is_there_wins() -> None:
    fields = Fields({"image": "jpg;jpeg; .PNG", "text": "txt;json.meta.caption"})
    assert fields.names == ("image", "text")
    assert fields.alternatives["image"] == ("jpg", "jpeg", "png")
    both = sample(png=b"p", jpeg=b"j", json=described(meta={"caption": "in json"}))
    assert fields.value(both, "image") == b"j"
    assert fields.value(both, "text") == "in json"
    assert fields.value(sample(txt=b"in txt", json=b"{}"), "text") == b"in txt"


def test_what_is_absent_is_none() -> None:
    fields = Fields({"image": "jpg", "text": "json.caption"})
    nothing = sample(json=described(caption=None))
    assert fields.value(nothing, "image") is None
    assert fields.value(nothing, "text") is None
    assert fields.value(sample(), "text") is None


def test_json_paths_keep_their_case() -> None:
    fields = Fields({"text": "json.Caption"})
    assert fields.value(sample(json=described(Caption="x")), "text") == "x"


def test_an_unreadable_json_is_an_error_only_where_it_is_needed() -> None:
    broken = sample(json=b"{", txt=b"t")
    assert Fields({"text": "txt"}).value(broken, "text") == b"t"
    with pytest.raises(SampleError) as raised:
        Fields({"text": "json.caption"}).value(broken, "text")
    assert raised.value.kind == "bad_json"


@pytest.mark.parametrize("field", ["", " ; ", "."])
def test_an_empty_field_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.fields\.image is empty"):
        Fields({"image": field})


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match="'vidoe'; did you mean 'video'"):
        Fields({"vidoe": "mp4"})


def test_check_counts_and_names_what_is_in_no_sample() -> None:
    samples = [sample(0, jpg=b"", txt=b""), sample(1, jpg=b"", flac=b"")]
    assert Fields({"image": "jpg", "text": "txt"}).check(samples) == {"image": 2, "text": 1}
    with pytest.raises(ConfigError, match=r"data\.fields\.audio.*2 samples.*a\.tar.*'wav'"):
        Fields({"image": "jpg", "audio": "wav"}).check(samples)


def test_check_names_the_nearest_extension() -> None:
    with pytest.raises(ConfigError, match="did you mean 'jpeg'"):
        Fields({"image": "jpg", "text": "txt"}).check([sample(jpeg=b"", txt=b"")])


def test_check_of_no_sample_has_no_opinion() -> None:
    assert Fields({"image": "jpg"}).check([]) == {"image": 0}


def test_members_are_found_in_order_of_preference() -> None:
    samples = [sample(0, png=b"", txt=b"", cls=b""), sample(1, jpg=b"", mp4=b"", flac=b"")]
    assert find_fields(samples) == {
        "audio": "flac",
        "image": "jpg;png",
        "text": "txt",
        "video": "mp4",
    }


def test_json_is_looked_at_where_there_is_no_member() -> None:
    caption = described(caption="a dog")
    assert find_fields([sample(jpg=b"", json=caption)])["text"] == "json.caption"
    assert find_fields([sample(jpg=b"", json=caption, txt=b"")])["text"] == "txt"
    many = described(captions=["a", "b"])
    assert find_fields([sample(0, jpg=b"", json=b"{"), sample(1, json=many)]) == {
        "image": "jpg",
        "text": "json.captions",
    }


def test_one_modality_is_not_enough() -> None:
    with pytest.raises(ConfigError, match=r"found image.*cls, jpg.*data\.fields"):
        find_fields([sample(jpg=b"", cls=b"")])


def test_no_sample_at_all() -> None:
    with pytest.raises(ConfigError, match="no modality"):
        find_fields([])
