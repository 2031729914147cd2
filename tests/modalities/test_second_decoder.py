"""torchcodec: an extra that is asked for, settled once for a run, and refused where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from multimem_ray.errors import ConfigError, DecodeError
from multimem_ray.modalities import registry, second_decoder
from multimem_ray.modalities.video import Video, VideoSettings
from multimem_ray.run import Run
from multimem_ray.setup import inspect
from tests.modalities.media import gradient, ramp, video_bytes
from tests.small import small_config, write_shards


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    second_decoder.unavailable.cache_clear()
    yield
    second_decoder.unavailable.cache_clear()


def video(**settings: object) -> Video:
    return Video(VideoSettings.model_validate(settings))


def opened(folder: Path, *sets: str) -> Run:
    if not (folder / "shards").exists():
        write_shards(folder / "shards")
    return inspect(small_config(folder / "shards", folder / "out", *sets))[0]


@pytest.mark.usefixtures("absent")
def test_asked_for_and_absent_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"modalities\.video\.backend.*torchcodec.*backend: pyav"):
        registry.create("video", {"backend": "torchcodec"})


@pytest.mark.usefixtures("absent")
def test_auto_is_settled_when_the_run_is_opened(tmp_path: Path) -> None:
    auto = opened(tmp_path, "modalities.video.backend=auto")
    assert auto.config.modalities["video"] == {"backend": "pyav"}
    named = opened(tmp_path, "modalities.video.backend=pyav")
    assert auto.fingerprint == named.fingerprint
    assert "video" not in opened(tmp_path).config.modalities


def test_which_one_decodes_is_part_of_what_scores_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_decoder, "unavailable", lambda: None)
    auto = opened(tmp_path, "modalities.video.backend=auto")
    assert auto.config.modalities["video"] == {"backend": "torchcodec"}
    assert auto.fingerprint != opened(tmp_path, "modalities.video.backend=pyav").fingerprint


torchcodec = pytest.mark.skipif(
    second_decoder.unavailable() is not None, reason="torchcodec cannot be loaded here"
)


@torchcodec
@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
@pytest.mark.parametrize("shape", [(64, 48), (48, 64)])
def test_both_show_the_same(kind: str, codec: str, shape: tuple[int, int]) -> None:
    data = video_bytes(ramp(48, *shape), kind, codec)
    one, two = video().decode(data), video(backend="torchcodec").decode(data)
    assert one.shape == two.shape
    np.testing.assert_allclose(one.astype(int), two, atol=6)
    pattern = video_bytes(np.repeat(gradient(*shape)[None], 4, 0), kind, codec)
    one, two = video().decode(pattern), video(backend="torchcodec").decode(pattern)
    assert np.abs(one.astype(int) - two).mean() < 4


@torchcodec
def test_limits_and_damage_are_the_same() -> None:
    data = video_bytes(ramp(48))
    for settings in ({"max_frames": 20}, {"max_seconds": 0.5}, {"max_pixels": 1000}):
        with pytest.raises(DecodeError) as got:
            video(backend="torchcodec", **settings).decode(data)
        assert got.value.kind == "too_large"
    with pytest.raises(DecodeError) as got:
        video(backend="torchcodec").decode(data[: len(data) // 2])
    assert got.value.kind == "undecodable"
