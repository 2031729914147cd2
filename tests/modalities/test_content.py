"""Equal contents have equal names, whatever is around them."""

from __future__ import annotations

import json

import pytest

from multimem_ray.errors import SampleError
from multimem_ray.modalities.content import content_name
from multimem_ray.modalities.fields import Fields
from multimem_ray.sample import Sample

FIELDS = Fields({"image": "jpg;jpeg", "text": "txt;json.caption"})


def name(fields: Fields = FIELDS, **members: bytes) -> str | None:
    return content_name(Sample("k", "s.tar", 0, members), fields)


def test_a_name_is_that_of_the_modalities_alone() -> None:
    one = name(jpg=b"picture", txt=b"a bird")
    assert one == name(jpeg=b"picture", txt=b"a bird", cls=b"4", json=b'{"id": 7}')
    assert one == name(jpg=b"picture", json=json.dumps({"caption": "a bird"}).encode())
    assert one is not None
    assert len(one) == 24
    others = [name(jpg=b"picture", txt=b"a bird."), name(jpg=b"picturea", txt=b" bird")]
    assert len({one, *others}) == 3


def test_a_sample_without_two_modalities_is_nobodys_copy() -> None:
    assert name(jpg=b"picture") is None
    assert name() is None
    with pytest.raises(SampleError):
        name(jpg=b"picture", json=b"{")


def test_what_two_modalities_share_is_digested_once() -> None:
    fields = Fields({"audio": "mp4", "video": "mp4"})
    assert name(fields, mp4=b"clip") == name(fields, mp4=b"clip")
    assert name(fields, mp4=b"clip") != name(fields, mp4=b"clap")
