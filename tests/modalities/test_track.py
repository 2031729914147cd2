"""Sound in containers: of videos, and of files that libsndfile does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multimem_ray.errors import AbsentError, DecodeError, SampleError
from multimem_ray.modalities.audio import Audio, AudioSettings
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import find_fields
from multimem_ray.sample import Sample
from tests.modalities.media import ramp, sound_bytes, tone, track_bytes, video_bytes

RATE = 16_000
CONTAINERS = [
    ("mp4", "aac", RATE),
    ("mov", "pcm_s16le", RATE),
    ("adts", "aac", RATE),
    ("webm", "libopus", 48_000),
    ("matroska", "flac", RATE),
    ("avi", "pcm_s16le", RATE),
    ("avi", "mp2", RATE),
]


def audio(**settings: object) -> Audio:
    return Audio(AudioSettings.model_validate({"sample_rate": RATE} | settings))


def chirp(seconds: float, rate: int = RATE) -> np.ndarray:
    """A tone that rises by 100 Hz a second from 400 Hz on: its pitch tells the time."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (400 * time + 50 * time**2))).astype(np.float32)


def pitch(wave: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return float(spectrum.argmax() * rate / (8 * len(wave)))


@pytest.mark.parametrize(("kind", "codec", "rate"), CONTAINERS)
@pytest.mark.parametrize("seconds", [1.0, 9.0])
def test_the_middle_of_every_container(kind: str, codec: str, rate: int, seconds: float) -> None:
    decoded = audio(seconds=0.2).decode(track_bytes(chirp(seconds, rate), rate, kind, codec))
    assert decoded.dtype == np.int16
    assert abs(len(decoded) - 0.24 * RATE) < 3
    assert pitch(decoded) == pytest.approx(400 + 50 * seconds, abs=8)
    assert 0.4 < np.abs(decoded).max() / 32768 < 0.6


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "aac"), ("webm", "libopus"), ("avi", "mp2")])
def test_the_sound_of_a_video(kind: str, codec: str) -> None:
    rate = 48_000
    data = track_bytes(chirp(4.0, rate), rate, kind, codec, clip=ramp(100))
    decoded = audio(seconds=0.5).decode(data)
    assert pitch(decoded) == pytest.approx(600, abs=10)
    assert np.array_equal(decoded, audio(seconds=0.5).decode(data))


def test_a_short_track_is_given_whole_in_its_place() -> None:
    wave = tone(500, 0.3, RATE)
    decoded = audio(seconds=1.0).decode(track_bytes(wave, RATE, "matroska", "flac"))
    exact = audio(seconds=1.0).decode(sound_bytes(wave, RATE))
    assert np.abs(decoded.astype(int) - exact).max() <= 1


def test_lossless_sound_in_a_container_is_that_of_the_file() -> None:
    wave = chirp(5.0)
    in_matroska = audio(seconds=1.0).decode(track_bytes(wave, RATE, "matroska", "flac"))
    alone = audio(seconds=1.0).decode(sound_bytes(wave, RATE))
    assert len(in_matroska) == len(alone)
    assert np.abs(in_matroska.astype(int) - alone).max() <= 1


def test_six_channels_are_mixed() -> None:
    wave = np.repeat(tone(300, 1.0, RATE, 0.6)[:, None], 6, 1)
    wave[:, 3:] = 0
    decoded = audio(seconds=0.5).decode(track_bytes(wave, RATE, "matroska", "flac"))
    assert np.abs(decoded).max() == pytest.approx(0.3 * 32768, rel=0.05)


def test_eight_channels_do_not_end_the_process() -> None:
    wave = np.repeat(tone(300, 1.0, RATE, 0.5)[:, None], 8, 1)
    for kind, codec in (("mp4", "aac"), ("matroska", "flac")):
        decoded = audio(seconds=0.5).decode(track_bytes(wave, RATE, kind, codec))
        assert np.abs(decoded).max() == pytest.approx(0.5 * 32768, rel=0.15)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_silent_film_has_no_audio(kind: str) -> None:
    film = video_bytes(ramp(10), kind, "libvpx" if kind == "webm" else "libx264")
    with pytest.raises(AbsentError, match="no sound track"):
        audio().decode(film)
    decoder = Decoder({"audio": "flac;mp4", "text": "txt", "video": "mp4"})
    sample = Sample("s", "s.tar", 0, {"mp4": film, "txt": b"a film"})
    assert set(decoder.decode(sample)) == {"text", "video"}
    without = Decoder({"audio": "mp4", "text": "txt"})
    with pytest.raises(SampleError, match="has text of audio, text") as got:
        without.decode(sample)
    assert got.value.kind == "too_few_modalities"


def test_a_member_of_its_own_comes_before_the_track() -> None:
    film = track_bytes(tone(300, 1.0, RATE), RATE, "mp4", "aac", clip=ramp(25))
    decoder = Decoder({"audio": "flac;mp4", "video": "mp4"}, {"audio": {"sample_rate": RATE}})
    own = sound_bytes(tone(900, 1.0, RATE), RATE)
    both = decoder.decode(Sample("s", "s.tar", 0, {"mp4": film, "flac": own}))
    assert pitch(both["audio"]) == pytest.approx(900, abs=5)
    film_only = decoder.decode(Sample("s", "s.tar", 0, {"mp4": film}))
    assert pitch(film_only["audio"]) == pytest.approx(300, abs=5)


def test_sound_is_found_in_videos_where_no_sample_has_a_member_of_it() -> None:
    heard = track_bytes(tone(300, 0.5, RATE), RATE, "mp4", "aac", clip=ramp(5))
    silent = video_bytes(ramp(5))
    first = Sample("a", "s.tar", 0, {"mp4": silent, "txt": b"a"})
    second = Sample("b", "s.tar", 1, {"mp4": heard, "txt": b"b"})
    assert find_fields([first, second]) == {"audio": "mp4", "text": "txt", "video": "mp4"}
    assert find_fields([first]) == {"text": "txt", "video": "mp4"}
    own = Sample("c", "s.tar", 2, {"flac": sound_bytes(tone()), "txt": b"c"})
    assert find_fields([first, second, own])["audio"] == "flac"
    broken = Sample("d", "s.tar", 3, {"mp4": heard[:200], "txt": b"d"})
    assert "audio" not in find_fields([broken])


@pytest.mark.parametrize(("kind", "codec", "rate"), CONTAINERS)
def test_cut_short_is_refused(kind: str, codec: str, rate: int) -> None:
    data = track_bytes(chirp(3.0, rate), rate, kind, codec)
    data = data[: len(data) // 2]
    with pytest.raises(DecodeError) as got:
        audio(seconds=2.5).decode(data)
    assert got.value.kind == "undecodable"


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"max_seconds": 2.0}, "max_seconds"),
        ({"max_channels": 1}, "max_channels"),
        ({"max_sample_rate": 8000}, "max_sample_rate"),
    ],
)
def test_limits_name_their_setting(settings: dict[str, float], limit: str) -> None:
    wave = np.repeat(chirp(3.0)[:, None], 2, 1)
    data = track_bytes(wave, RATE, "mp4", "aac")
    with pytest.raises(DecodeError, match=rf"modalities\.audio\.{limit}") as got:
        audio(**settings).decode(data)
    assert got.value.kind == "too_large"


def test_only_the_middle_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from multimem_ray.modalities import track

    seen = []

    class Floats(track._Floats):
        def __call__(self, frame: Any) -> np.ndarray:
            seen.append(frame)
            return super().__call__(frame)

    monkeypatch.setattr(track, "_Floats", Floats)
    audio(seconds=0.5).decode(track_bytes(chirp(30.0), RATE, "mp4", "aac"))
    assert sum(frame.samples for frame in seen) < 1.2 * RATE
