from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from multimem_ray.report import samples
from multimem_ray.report.samples import Content, contents_of, fetch_contents
from multimem_ray.sample import Sample
from multimem_ray.storage import Storage
from tests.report import fake_shards as fake

FIELDS = {"audio": "flac", "image": "jpg;png", "text": "txt", "video": "mp4"}


def _data(content: Content) -> bytes:
    return base64.b64decode(content.uri.partition(",")[2])


def _one(parts: dict[str, bytes], fields: dict[str, str], limit: int = 10**6) -> list[Content]:
    return contents_of(Sample("k", "s.tar", 0, parts), fields, limit)


def test_every_modality_is_made_anew() -> None:
    parts = fake.members(3)
    audio, image, text, video = _one(parts, FIELDS)
    assert [c.kind for c in (audio, image, text, video)] == ["audio", "image", "text", "video"]
    with Image.open(io.BytesIO(_data(image))) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) == 360
        assert not picture.getexif()
    assert b"SECRET-PLACE" in parts["jpg"]
    assert b"SECRET-PLACE" not in _data(image)
    with Image.open(io.BytesIO(_data(video))) as strip:
        assert strip.width > 3.9 * strip.height
    clip, rate = soundfile.read(io.BytesIO(_data(audio)))
    assert rate == 16_000
    assert len(clip) == pytest.approx(32_000, rel=0.1)
    assert audio.uri.startswith("data:audio/mpeg;base64,")
    assert max(audio.peaks) == 1.0
    assert text.lines == (fake.caption(3),)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_pictures_of_any_kind(mode: str) -> None:
    pixels = np.arange(100 * 80, dtype=np.uint16).reshape(80, 100) * 8
    image = Image.fromarray(pixels) if mode == "I;16" else Image.new(mode, (100, 80))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    (content,) = _one({"jpg": buffer.getvalue()}, {"image": "jpg"})
    assert content.kind == "image"
    with Image.open(io.BytesIO(_data(content))) as shown:
        assert shown.size == (100, 80)
        if mode == "I;16":
            assert np.asarray(shown.convert("L")).max() > 240


def test_pictures_of_a_few_pixels_are_kept_exactly() -> None:
    (content,) = _one({"png": fake.picture(0, (28, 28), "PNG")}, {"image": "jpg;png"})
    assert content.tiny
    assert content.uri.startswith("data:image/png")


def test_what_cannot_be_shown_is_said() -> None:
    parts = {"jpg": b"garbage", "flac": b"fLaC", "mp4": b"....ftyp", "txt": b"fine"}
    audio, image, text, video = _one(parts, FIELDS)
    assert [c.kind for c in (audio, image, text, video)] == ["note", "note", "text", "note"]
    assert image.lines == (
        "image cannot be shown: it is none of JPEG, PNG, WEBP, AVIF, TIFF, GIF, BMP",
    )
    assert "cannot be shown" in audio.lines[0]
    assert "cannot be shown" in video.lines[0]


def test_huge_pictures_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_PIXELS", 1000)
    (content,) = _one({"jpg": fake.picture(0)}, {"image": "jpg"})
    assert content.lines == ("image cannot be shown: 480 x 320 pixels are too many",)


def test_absent_modalities_are_left_out() -> None:
    assert [c.modality for c in _one({"txt": b"x"}, FIELDS)] == ["text"]


def test_captions_from_json_and_many_of_them() -> None:
    document = {"captions": [f"caption {i}" for i in range(7)], "deep": {"one": "\u202eevil"}}
    parts = {"json": json.dumps(document).encode()}
    (many,) = _one(parts, {"text": "txt;json.captions"})
    assert many.lines == (*(f"caption {i}" for i in range(5)), "… and 2 more")
    (one,) = _one(parts, {"text": "json.deep.one"})
    assert one.lines == ("evil",)
    (broken,) = _one({"json": b"{"}, {"text": "json.x"})
    assert broken.kind == "note"


def test_a_modality_from_a_plugin_is_shown_if_it_is_a_picture() -> None:
    depth, touch = _one(
        {"dep": fake.picture(1), "tch": b"\x00" * 99}, {"depth": "dep", "touch": "tch"}
    )
    assert depth.kind == "image"
    assert touch.lines == ("touch: 99 bytes",)


@pytest.mark.parametrize("limit", [60_000, 12_000, 3_000, 100])
def test_a_sample_stays_within_its_limit(limit: int) -> None:
    contents = _one(fake.members(1), FIELDS, limit)
    assert sum(len(c.uri) for c in contents) <= limit
    assert len(contents) == 4
    assert contents[2].lines == (fake.caption(1),)


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [
        fake.write_shard(
            tmp_path / f"{s}.tar", {f"{s}-{i}": {"txt": f"{s}-{i}".encode()} for i in range(9)}
        )
        for s in range(3)
    ]
    opened = []
    real = samples.read_shard

    def spy(url: str, storage: Storage):  # type: ignore[no-untyped-def]
        for item in real(url, storage):
            opened.append((url, item.index))
            yield item

    monkeypatch.setattr(samples, "read_shard", spy)
    places = [(shards[0], "0-2"), (shards[2], "2-8"), (shards[0], "0-1")]
    found = fetch_contents(places, {"text": "txt"}, Storage())
    assert set(found) == set(places)
    assert found[shards[2], "2-8"][0].lines == ("2-8",)
    assert {url for url, _ in opened} == {shards[0], shards[2]}
    assert max(index for url, index in opened if url == shards[0]) == 2


def test_lost_shards_and_samples_become_notes(tmp_path: Path) -> None:
    shard = fake.write_shard(tmp_path / "a.tar", {"x": {"txt": b"x"}})
    gone = str(tmp_path / "gone.tar")
    found = fetch_contents([(shard, "y"), (gone, "z")], {"text": "txt"}, Storage())
    assert "not in the shard any more" in found[shard, "y"][0].lines[0]
    assert "no such file" in found[gone, "z"][0].lines[0]


def test_many_samples_share_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PAGE_BYTES", 60_000)
    keys = [f"k{i}" for i in range(6)]
    shard = fake.write_shard(tmp_path / "a.tar", {k: fake.members(i) for i, k in enumerate(keys)})
    found = fetch_contents([(shard, k) for k in keys], FIELDS, Storage())
    assert sum(len(c.uri) for contents in found.values() for c in contents) <= 60_000


@pytest.mark.data
@pytest.mark.parametrize("name", ["grid_s1_avt", "esc10_ait", "fsdd_mnist_ait", "coco_cc_it"])
def test_real_shards(shared_data, name: str) -> None:  # type: ignore[no-untyped-def]
    url = str(shared_data(name)[0])
    items = samples.read_shard(url, Storage())
    sample = next(item for item in items if isinstance(item, Sample))
    fields = FIELDS | {"image": "jpg;jpeg;png"}
    contents = _one(dict(sample.members), fields, samples.SAMPLE_BYTES)
    assert len(contents) >= 2
    assert not [c for c in contents if c.kind == "note"]
