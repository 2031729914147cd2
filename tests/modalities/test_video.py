"""Clips as they come: containers, codecs, wrong headers, damage; and their views."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.containers import is_mirrored
from multimem_ray.modalities.video import Video, VideoSettings
from tests.modalities.media import gradient, ramp, sound_bytes, tone, video_bytes


def video(**settings: object) -> Video:
    return Video(VideoSettings.model_validate(settings))


def levels(decoded: np.ndarray) -> np.ndarray:
    """Mean brightness of each frame."""
    return decoded.reshape(-1, *decoded.shape[-3:]).mean((1, 2, 3))


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("webm", "libvpx"),
        ("webm", "libvpx-vp9"),
        ("matroska", "libx264"),
    ],
)
def test_every_container_gives_evenly_spaced_frames(kind: str, codec: str) -> None:
    decoded = video(frames=8).decode(video_bytes(ramp(48), kind, codec))
    assert decoded.shape == (8, 2, 3, 36, 36)
    assert decoded.dtype == np.uint8
    shown = (np.arange(16) + 0.5) * 3
    np.testing.assert_allclose(levels(decoded), 20 + 200 * shown.astype(int) / 48, atol=4)


def test_avi_says_less_of_time_and_has_coarser_pictures() -> None:
    shown = levels(video(frames=8).decode(video_bytes(ramp(48), "avi", "mpeg4")))
    expected = 20 + 200 * ((np.arange(16) + 0.5) * 3).astype(int) / 48
    np.testing.assert_allclose(shown, expected, atol=8)


@pytest.mark.parametrize("gop", [1, 4, 12, 250])
def test_groups_of_pictures_that_are_not_needed_change_nothing(gop: int) -> None:
    clip = ramp(90)
    decoded = video(frames=3, jitter=False).decode(video_bytes(clip, gop=gop))
    np.testing.assert_allclose(levels(decoded), 20 + 200 * np.array([15, 45, 75]) / 90, atol=3)


def test_only_wanted_groups_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    import multimem_ray.modalities.video as module

    fed = 0

    class Counting:
        def __init__(self, context: object) -> None:
            self.context = context

        def decode(self, packet: object) -> object:
            nonlocal fed
            fed += 1
            return self.context.decode(packet)  # type: ignore[attr-defined]

        def flush_buffers(self) -> None:
            self.context.flush_buffers()  # type: ignore[attr-defined]

    original = module._decode_at
    monkeypatch.setattr(
        module, "_decode_at", lambda context, *rest: original(Counting(context), *rest)
    )
    video(frames=2, jitter=False).decode(video_bytes(ramp(200), gop=10))
    assert fed < 40


def test_open_groups_of_pictures() -> None:
    data = video_bytes(ramp(90), **{"x264-params": "open-gop=1:bframes=3:keyint=12:scenecut=0"})
    decoded = video(frames=30, jitter=False).decode(data)
    np.testing.assert_allclose(levels(decoded), 20 + 200 * (np.arange(30) * 3 + 1) / 90, atol=3)


def test_a_single_frame() -> None:
    modality = video(frames=4)
    decoded = modality.decode(video_bytes(ramp(1)))
    assert decoded.shape == (4, 2, 3, 36, 36)
    assert np.ptp(levels(decoded)) == 0
    assert modality.view(decoded, np.random.default_rng(0)).shape == modality.spec.shape


def test_fewer_frames_than_wanted() -> None:
    decoded = video(frames=8, jitter=False).decode(video_bytes(ramp(3)))
    assert np.unique(levels(decoded)).size == 3


def test_the_centre_square() -> None:
    clip = np.repeat(gradient(96, 64)[None], 4, 0)
    decoded = video(frames=2).decode(video_bytes(clip))
    frame = decoded[0, 0].astype(int)
    assert abs(frame[0, 18, 0] - 255 / 6) < 16
    assert abs(frame[0, 18, -1] - 255 * 5 / 6) < 16
    assert frame[1, 0, 18] < 20
    assert frame[1, -1, 18] > 235


def test_an_upright_clip() -> None:
    clip = np.repeat(gradient(64, 96)[None], 4, 0)
    frame = video(frames=2).decode(video_bytes(clip))[0, 0].astype(int)
    assert abs(frame[1, 0, 18] - 255 / 6) < 16
    assert frame[0, 18, -1] > 235


def _box(data: bytes, name: bytes) -> int:
    """Offset of the content of the first MP4 box of that name."""
    return data.index(name) + 4


def test_a_wrong_duration_in_the_header_changes_nothing() -> None:
    good = video_bytes(ramp(48))
    bad = bytearray(good)
    for name, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        at = _box(good, name) + offset
        bad[at : at + 4] = struct.pack(">I", 2**31)
    modality = video()
    assert np.array_equal(modality.decode(bytes(bad)), modality.decode(good))


TURNS: dict[str, tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "90": ((0, 1, 0, -1, 0), lambda p: np.rot90(p, -1, (1, 2))),
    "180": ((-1, 0, 0, 0, -1), lambda p: np.rot90(p, 2, (1, 2))),
    "270": ((0, -1, 0, 1, 0), lambda p: np.rot90(p, 1, (1, 2))),
    "mirrored": ((-1, 0, 0, 0, 1), lambda p: p[:, :, ::-1]),
    "upside down": ((1, 0, 0, 0, -1), lambda p: p[:, ::-1]),
    "transposed": ((0, 1, 0, 1, 0), lambda p: p.swapaxes(1, 2)),
    "transversed": ((0, -1, 0, -1, 0), lambda p: np.rot90(p, 2, (1, 2)).swapaxes(1, 2)),
    "no matrix at all": ((0, 0, 0, 0, 0), lambda p: p),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_clip_is_shown_upright_whatever_turns_or_mirrors_it(turn: str) -> None:
    data = video_bytes(np.repeat(gradient(64, 64)[None], 4, 0))
    matrix, shown = TURNS[turn]
    turned = bytearray(data)
    at = _box(data, b"tkhd") + 40
    turned[at : at + 20] = struct.pack(">5i", *(value << 16 for value in matrix))
    modality = video(frames=1, jitter=False)
    plain, upright = modality.decode(data)[0, 0], modality.decode(bytes(turned))[0, 0]
    assert np.abs(upright - shown(plain).astype(int)).mean() < 3
    assert is_mirrored(bytes(turned)) == ("mirr" in turn or "upside" in turn or "trans" in turn)


def test_pixels_that_are_no_squares() -> None:
    clip = np.repeat(gradient(64, 64)[None], 4, 0)
    for kind in ("mp4", "matroska"):
        data = video_bytes(clip, kind, aspect=Fraction(2))
        frame = video(frames=1, jitter=False).decode(data)[0, 0].astype(int)
        # Twice as wide as high: of red, the middle half is left.
        assert abs(frame[0, 18, 0] - 255 / 4) < 16
        assert abs(frame[0, 18, -1] - 255 * 3 / 4) < 16
        assert frame[1, 0, 18] < 20


def test_a_strip_that_would_be_scaled_to_gigabytes() -> None:
    data = video_bytes(np.zeros((2, 2, 4096, 3), np.uint8))
    with pytest.raises(DecodeError, match="max_pixels") as raised:
        video(size=1024).decode(data)
    assert raised.value.kind == "too_large"


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_frames_are_spaced_in_time(kind: str) -> None:
    """Ten frames in a second, then ten of a second each: most of the clip is the second half."""
    clip = np.repeat(np.array([40, 200], np.uint8), 10)[:, None, None, None]
    clip = np.broadcast_to(clip, (20, 48, 64, 3))
    times = [*range(0, 1000, 100), *range(1000, 11_000, 1000)]
    decoded = video(frames=11, jitter=False).decode(video_bytes(clip, kind, times=times))
    assert (levels(decoded) < 100).sum() == 1


ODD = Path(__file__).resolve().parents[3] / "shared" / "data" / "odd" / "video"


@pytest.mark.skipif(not ODD.exists(), reason="files that are not part of the project")
def test_files_of_others() -> None:
    modality = video(frames=8, jitter=False, size=64, oversize=1)
    first = {path.stem: modality.decode(path.read_bytes())[:, 0] for path in ODD.glob("*.mp4")}
    red = first["vfr"][:, 0].mean((1, 2)) > 150
    assert red.tolist() == [True] + [False] * 7
    corners = first["hflip"][0][:, [8, 8, -8, -8], [8, -8, 8, -8]].argmax(0)
    assert corners.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("fast_start", [False, True])
def test_mp4_cut_short(share: float, fast_start: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    data = video_bytes(noise, faststart=fast_start)
    assert (data.index(b"moov") < data.index(b"mdat")) == fast_start
    with pytest.raises(DecodeError, match="video") as raised:
        video().decode(data[: int(len(data) * share)])
    assert raised.value.kind == "undecodable"


def test_a_live_webm_does_not_say_how_long_it_is() -> None:
    data = video_bytes(ramp(48), "webm", "libvpx")
    segment = data.index(b"\x18\x53\x80\x67") + 4
    live = data[:segment] + b"\x01" + b"\xff" * 7 + data[segment + 8 :]
    assert np.array_equal(video().decode(live), video().decode(data))


def test_webm_cut_short() -> None:
    data = video_bytes(ramp(48), "webm", "libvpx")
    with pytest.raises(DecodeError, match="cut short") as raised:
        video().decode(data[: len(data) // 2])
    assert raised.value.kind == "undecodable"


@pytest.mark.parametrize("data", [b"\x00" * 300, b"\x00\x00\x00\x18ftypisom", b"\x1a\x45\xdf\xa3"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(DecodeError, match="video") as raised:
        video().decode(data)
    assert raised.value.kind == "undecodable"


@pytest.mark.parametrize(
    "data",
    [b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", b"ffconcat version 1.0\nfile '/etc/hostname'\n"],
)
def test_playlists_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="neither MP4"):
        video().decode(data)


def test_a_file_without_pictures() -> None:
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = np.zeros((1, 4000), np.float32)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DecodeError, match="no video stream"):
        video().decode(buffer.getvalue())


def test_sound_instead_of_a_clip() -> None:
    with pytest.raises(DecodeError, match="neither MP4"):
        video().decode(sound_bytes(tone(), 8000, "WAV"))


def test_no_bytes() -> None:
    with pytest.raises(DecodeError) as raised:
        video().decode(b"")
    assert raised.value.kind == "empty"


@pytest.mark.parametrize(
    ("setting", "value"), [("max_frames", 20), ("max_seconds", 0.5), ("max_pixels", 1000)]
)
def test_limits_name_their_setting(setting: str, value: float) -> None:
    with pytest.raises(DecodeError, match=rf"modalities\.video\.{setting}") as raised:
        video(**{setting: value}).decode(video_bytes(ramp(30)))
    assert raised.value.kind == "too_large"


def test_decoding_twice_gives_the_same() -> None:
    data = video_bytes(np.repeat(gradient()[None], 20, 0))
    assert np.array_equal(video().decode(data), video().decode(data))


def test_the_clean_view_is_the_first_choice_in_the_centre() -> None:
    modality = video(oversize=1.25)
    decoded = modality.decode(video_bytes(ramp(48)))
    clean = modality.view(decoded, None)
    assert clean.shape == modality.spec.shape == (8, 3, 32, 32)
    assert clean.dtype == np.uint8
    assert np.array_equal(clean, decoded[:, 0, :, 4:36, 4:36])


def test_strength_zero_is_the_clean_view() -> None:
    modality = video(strength=0)
    decoded = modality.decode(video_bytes(ramp(48)))
    view = modality.view(decoded, np.random.default_rng(1))
    assert np.array_equal(view, modality.view(decoded, None))


def test_every_part_of_a_view_can_be_switched_off() -> None:
    modality = video(jitter=False, oversize=1)
    decoded = modality.decode(video_bytes(ramp(48)))
    assert decoded.shape == (8, 1, 3, 32, 32)
    view = modality.view(decoded, np.random.default_rng(1))
    assert np.array_equal(view, modality.view(decoded, None))


def test_views_jitter_in_time_and_keep_the_order() -> None:
    modality = video()
    decoded = modality.decode(video_bytes(ramp(48)))
    seen = set()
    for seed in range(20):
        shown = modality.view(decoded, np.random.default_rng(seed)).mean((1, 2, 3))
        assert (np.diff(shown) > 0).all()
        seen.add(tuple(shown.round()))
    assert len(seen) > 10


def test_all_frames_of_a_view_have_one_crop() -> None:
    modality = video(jitter=False)
    decoded = modality.decode(video_bytes(np.repeat(gradient()[None], 20, 0), crf="0"))
    crops = set()
    for seed in range(30):
        view = modality.view(decoded, np.random.default_rng(seed)).astype(int)
        assert np.abs(view - view[0]).max() <= 6
        crops.add(tuple(view[0, 0, 0, :3]))
    assert len(crops) > 3


def test_views_depend_on_the_seed_alone() -> None:
    modality = video()
    decoded = modality.decode(video_bytes(np.repeat(gradient()[None], 20, 0)))
    decoded.setflags(write=False)
    one, two, other = (modality.view(decoded, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("jitter", [False, True])
def test_a_view_may_show_a_part_of_the_clip(jitter: bool) -> None:
    modality = video(frames=16, crop_time=0.3, jitter=jitter, oversize=1)
    decoded = modality.decode(video_bytes(ramp(64)))
    whole = np.ptp(levels(modality.view(decoded, None)[:, None]))
    spans, starts = [], []
    for seed in range(60):
        shown = levels(modality.view(decoded, np.random.default_rng(seed))[:, None])
        assert (np.diff(shown) > -6).all()
        spans.append(np.ptp(shown) / whole)
        starts.append(shown.min())
    assert 0.2 < min(spans) < 0.5
    assert 0.8 < max(spans) <= 1.05
    assert np.std(starts) > 10
