"""Samples through decode and views; and a modality from outside the package."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from torch import Tensor

from multimem_ray.errors import ConfigError, DecodeError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Array, Modality
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import find_fields
from multimem_ray.modalities.image import Image
from multimem_ray.sample import Sample
from tests.modalities.media import gradient, image_bytes, ramp, sound_bytes, tone, video_bytes

FIELDS = {"video": "mp4", "text": "txt", "image": "jpg", "audio": "flac"}
MEMBERS = {
    "jpg": image_bytes(gradient(), "JPEG"),
    "flac": sound_bytes(tone()),
    "mp4": video_bytes(ramp(20)),
    "txt": b"a grey clip that gets brighter and brighter all the time",
}


def sample(key: str = "a", **members: bytes) -> Sample:
    return Sample(key, "shard.tar", 0, members or MEMBERS)


def views_of(
    decoder: Decoder, key: str, decoded: dict[str, Array], seed: int, view: int, *purpose: str
) -> dict[str, Tensor]:
    """One view of one sample, alone in its batch."""
    return decoder.views(decoder.stacked([key], [decoded], seed, [view], *purpose)).samples()[0]


def raw(views: dict[str, Tensor]) -> bytes:
    return b"".join(view.numpy().tobytes() for view in views.values())


def test_names_are_sorted_whatever_the_order_of_the_config() -> None:
    decoder = Decoder(FIELDS)
    assert decoder.names == ("audio", "image", "text", "video")
    assert tuple(m.name for m in decoder.modalities) == decoder.names


def test_four_modalities_become_a_batch() -> None:
    decoder = Decoder(FIELDS)
    decoded = [decoder.decode(sample(key)) for key in "abc"]
    batch = decoder.views(decoder.stacked("abc", decoded, 0, [0]))
    assert batch.size == 3
    assert batch.names == decoder.names
    for modality in decoder.modalities:
        assert batch.values[modality.name].shape == (3, *modality.spec.shape)
        assert str(batch.values[modality.name].dtype).endswith(modality.spec.dtype)
        assert batch.rows[modality.name].tolist() == [0, 1, 2]


def test_what_a_sample_lacks_is_left_out() -> None:
    decoder = Decoder(FIELDS)
    some = [
        sample("a", jpg=MEMBERS["jpg"], txt=MEMBERS["txt"]),
        sample("b", flac=MEMBERS["flac"], txt=MEMBERS["txt"]),
    ]
    batch = decoder.views(decoder.clean([decoder.decode(s) for s in some]))
    assert batch.names == ("audio", "image", "text")
    assert batch.rows["audio"].tolist() == [1]
    assert batch.rows["text"].tolist() == [0, 1]
    assert batch.present(decoder.names).tolist() == [
        [False, True, True, False],
        [True, False, True, False],
    ]


def test_the_settings_reach_their_modality() -> None:
    decoder = Decoder({"image": "jpg", "text": "txt"}, {"image": {"size": 16}, "audio": {}})
    assert decoder.modalities[0].spec.shape == (3, 16, 16)
    with pytest.raises(ConfigError, match="unknown modality"):
        Decoder({"image": "jpg"}, {"depth": {}})
    with pytest.raises(ConfigError, match=r"modalities\.audio\.rate"):
        Decoder({"image": "jpg"}, {"audio": {"rate": 1}})


@pytest.mark.parametrize("members", [{"jpg": MEMBERS["jpg"]}, {"cls": b"3"}])
def test_fewer_than_two_modalities(members: dict[str, bytes]) -> None:
    with pytest.raises(SampleError, match=r"audio, image, text, video.*data\.fields") as raised:
        Decoder(FIELDS).decode(sample(**members))
    assert (raised.value.kind, raised.value.stage) == ("too_few_modalities", "select")


@pytest.mark.parametrize("broken", ["jpg", "flac", "mp4", "txt"])
def test_one_broken_modality_fails_the_sample_and_is_named(broken: str) -> None:
    name = {field: name for name, field in FIELDS.items()}[broken]
    with pytest.raises(DecodeError, match=name) as raised:
        Decoder(FIELDS).decode(sample(**MEMBERS | {broken: b"\xff\x00garbage"}))
    assert (raised.value.kind, raised.value.stage) == ("undecodable", "decode")


def test_an_empty_caption() -> None:
    with pytest.raises(DecodeError, match="text") as raised:
        Decoder(FIELDS).decode(sample(**MEMBERS | {"txt": b" \n"}))
    assert raised.value.kind == "empty"


def test_an_unreadable_json() -> None:
    with pytest.raises(SampleError) as raised:
        Decoder({"image": "jpg", "text": "json.caption"}).decode(
            sample(jpg=MEMBERS["jpg"], json=b"{")
        )
    assert (raised.value.kind, raised.value.stage) == ("bad_json", "read")


def test_whatever_a_library_raises_is_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(self: Image, data: object) -> None:
        raise ZeroDivisionError("inside a codec")

    monkeypatch.setattr(Image, "decode", surprise)
    with pytest.raises(DecodeError, match=r"image: .*ZeroDivisionError: inside a codec"):
        Decoder(FIELDS).decode(sample())


def test_views_depend_on_seed_purpose_key_and_view_alone() -> None:
    decoder = Decoder(FIELDS)
    decoded = decoder.decode(sample())

    base = raw(views_of(decoder, "a", decoded, 0, 0))
    assert raw(views_of(decoder, "a", decoded, 0, 0, "score")) == base
    others = {
        raw(views_of(decoder, "b", decoded, 0, 0)),
        raw(views_of(decoder, "a", decoded, 1, 0)),
        raw(views_of(decoder, "a", decoded, 0, 1)),
        raw(views_of(decoder, "a", decoded, 0, 0, "train")),
    }
    assert len(others | {base}) == 5


def test_a_view_is_the_same_in_every_batch() -> None:
    settings = {
        "image": {"saturation": 0.3, "flip": 0.5},
        "audio": {"mask_time": 0.2, "mask_frequency": 0.2},
        "video": {"crop_time": 0.6},
    }
    decoder = Decoder(FIELDS, settings)
    short = {"flac": sound_bytes(tone()[:900]), "jpg": image_bytes(gradient()[:21, :21], "PNG")}
    some = [
        sample(),
        sample("b", **MEMBERS | short | {"txt": b"few words"}),
        sample("c", jpg=MEMBERS["jpg"], txt=MEMBERS["txt"]),
        sample("d", **MEMBERS | {"txt": b"other words of another length " * 9}),
    ]
    decoded = [decoder.decode(one) for one in some]
    together = decoder.views(decoder.stacked("abcd", decoded, 7, range(3))).samples()
    for row, one in enumerate(decoded):
        for view in range(3):
            alone = views_of(decoder, "abcd"[row], one, 7, view)
            assert raw(alone) == raw(together[view * len(some) + row])
    # Some of the rows, as a bank asks for them.
    batch = decoder.stacked("abcd", decoded, 7, range(3))
    part = decoder.views_of("audio", batch, slice(1, 3))
    assert torch.equal(part, decoder.views_of("audio", batch)[1:3])
    assert raw({"image": decoder.views(batch.at(2)).values["image"][1]}) == raw(
        {"image": together[4 + 2]["image"]}
    )


def test_a_view_does_not_depend_on_the_other_modalities() -> None:
    decoder, two = Decoder(FIELDS), Decoder({"image": "jpg", "text": "txt"})
    all_four = views_of(decoder, "a", decoder.decode(sample()), 3, 1)
    alone = views_of(two, "a", two.decode(sample()), 3, 1)
    assert torch.equal(all_four["image"], alone["image"])
    assert torch.equal(all_four["text"], alone["text"])


def test_several_threads_decode_the_same() -> None:
    decoder = Decoder(FIELDS)
    keys = [f"key{index}" for index in range(24)]

    def work(key: str) -> bytes:
        return raw(views_of(decoder, key, decoder.decode(sample(key)), 0, 0))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, keys)) == [work(key) for key in keys]


def test_a_decoder_can_be_pickled() -> None:
    decoder = Decoder(FIELDS, {"image": {"size": 16}})
    copy = pickle.loads(pickle.dumps(decoder))
    views = views_of(decoder, "a", decoder.decode(sample()), 0, 0)
    assert raw(views) == raw(views_of(copy, "a", copy.decode(sample()), 0, 0))


PLUGIN = """
import io

import numpy as np
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import Modality, ModalitySettings, Spec, as_bytes, too_large
from multimem_ray.modalities.registry import register


class TouchSettings(ModalitySettings):
    length: int = Field(64, ge=1, description="values of a view")
    max_bytes: int = Field(100_000, ge=1, description="largest file")


@register
class Touch(Modality):
    name = "touch"
    extensions = ("npy",)
    Settings = TouchSettings

    @property
    def spec(self):
        return Spec("series", (3, self.settings.length), "float32")

    def decode(self, data):
        raw = as_bytes(data, self.name)
        if len(raw) > self.settings.max_bytes:
            raise too_large(self.name, f"{len(raw)} bytes", "max_bytes", self.settings.max_bytes)
        try:
            series = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DecodeError(f"touch: {error}") from error
        return np.asarray(series, dtype=np.float32)[:, : self.settings.length + 8]

    def view(self, decoded, rng):
        start = 4 if rng is None or not self.settings.strength else int(rng.integers(8))
        return decoded[:, start : start + self.settings.length].copy()
"""


@pytest.fixture
def touch_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "a_touch_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(registry._KNOWN)
    yield "a_touch_plugin"
    registry._KNOWN.clear()
    registry._KNOWN.update(before)
    sys.modules.pop("a_touch_plugin", None)


def npy(series: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, series, **options)
    return buffer.getvalue()


def test_a_fifth_modality_needs_no_line_of_the_package(touch_plugin: str) -> None:
    registry.load_plugins([touch_plugin])
    assert "touch" in registry.names()
    series = np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    with_touch = sample("s", npy=npy(series), txt=b"a machine that shakes")
    fields = find_fields([with_touch])
    assert fields == {"touch": "npy", "text": "txt"}
    decoder = pickle.loads(pickle.dumps(Decoder(fields, {"touch": {"length": 32}})))
    decoded = decoder.decode(with_touch)
    batch = decoder.views(decoder.stacked(["s"], [decoded], 0, range(20)))
    assert batch.values["touch"].shape == (20, 3, 32)
    assert len({view.numpy().tobytes() for view in batch.values["touch"]}) > 3
    assert raw(views_of(decoder, "s", decoded, 0, 9)) == raw(batch.samples()[9])
    clean = decoder.views(decoder.clean([decoded])).values["touch"]
    assert np.array_equal(clean[0].numpy(), series[:, 4:36])


def test_a_modality_without_views_is_refused() -> None:
    with pytest.raises(ConfigError, match="define `views`"):

        @registry.register
        class Nothing(Image):
            name = "nothing"
            views = Modality.views


def test_a_plugin_may_not_unpickle(touch_plugin: str) -> None:
    registry.load_plugins([touch_plugin])
    decoder = Decoder({"touch": "npy", "text": "txt"})
    foreign = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DecodeError, match="touch"):
        decoder.decode(sample("s", npy=foreign, txt=b"text"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("fsdd_mnist_ait", {"audio", "image", "text"}),
        ("grid_s1_avt", {"audio", "image", "text", "video"}),
        ("esc10_ait", {"audio", "image", "text"}),
        ("coco_cc_it", {"image", "text"}),
    ],
)
def test_real_shards(
    shared_data: Callable[[str], list[Path]], folder: str, names: set[str]
) -> None:
    shard = str(shared_data(folder)[0])
    read = webdataset.WebDataset(shard, shardshuffle=False, empty_check=False)
    samples = []
    for index, item in enumerate(read):
        members = {k: v for k, v in item.items() if not k.startswith("__")}
        samples.append(Sample(item["__key__"], shard, index, members))
        if index == 15:
            break
    fields = find_fields(samples)
    assert set(fields) == names
    decoder = Decoder(fields)
    keys, decoded = [s.key for s in samples], [decoder.decode(s) for s in samples]
    batch = decoder.views(decoder.stacked(keys, decoded, 0, [0]))
    assert batch.size == 16
    for name in names:
        assert batch.values[name].float().std() > 0
    if folder == "coco_cc_it":
        assert len(json.loads(samples[0].members["json"])["captions"]) == 5
        captions = Decoder(fields | {"text": "json.captions"}).decode(samples[0])["text"]
        assert len(captions) == 5
