"""Sound as it comes: formats, rates, channels, lengths, damage; and its views."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.audio import Audio, AudioSettings
from tests.modalities.media import sound_bytes, tone, track_bytes


def audio(**settings: object) -> Audio:
    return Audio(AudioSettings.model_validate(settings))


def pitch(wave: np.ndarray, rate: int = 8000) -> float:
    spectrum = np.abs(np.fft.rfft(wave.astype(float) * np.hanning(len(wave))))
    return float(spectrum.argmax() * rate / len(wave))


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "PCM_U8"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
        ("AIFF", "PCM_16"),
    ],
)
def test_every_format(kind: str, subtype: str | None) -> None:
    data = sound_bytes(tone(seconds=1.0), 8000, kind, subtype)
    wave = audio().decode(data)
    assert wave.dtype == np.int16
    assert abs(len(wave) - 8000) < 1300  # MP3 pads
    assert pitch(wave) == pytest.approx(440, abs=2)
    loudness = np.sqrt((wave[1000:-1000].astype(float) ** 2).mean())
    assert loudness == pytest.approx(0.5 * 32768 / 2**0.5, rel=0.05)


def test_sixteen_bits_at_the_same_rate_come_back_exactly() -> None:
    wave = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    assert np.array_equal(audio().decode(sound_bytes(wave)), wave)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_every_rate_keeps_pitch_and_length(rate: int) -> None:
    wave = audio().decode(sound_bytes(tone(440, 1.0, rate), rate))
    assert len(wave) == 8000
    assert pitch(wave) == pytest.approx(440, abs=1.5)


def test_what_the_new_rate_cannot_hold_is_filtered_out() -> None:
    wave = audio().decode(sound_bytes(tone(7000, 1.0, 44100), 44100))
    assert np.abs(wave[200:-200]).max() < 0.01 * 32768


def test_an_odd_rate_needs_no_gigabytes() -> None:
    wave = audio().decode(sound_bytes(tone(440, 1.0, 44099), 44099))
    assert abs(len(wave) - 8000) <= 1
    assert pitch(wave) == pytest.approx(440, abs=1.5)


def test_a_rate_out_of_all_proportion_is_refused() -> None:
    with pytest.raises(DecodeError, match="2 Hz"):
        audio().decode(sound_bytes(tone(0.5, 100, 2), 2, "WAV"))


def test_eight_channels_at_96_khz_are_mixed() -> None:
    wave = np.zeros((96000, 8), np.float32)
    wave[:, 3] = tone(440, 1.0, 96000, level=0.8)
    mono = audio().decode(sound_bytes(wave, 96000, "WAV"))
    assert len(mono) == 8000
    assert np.abs(mono).max() == pytest.approx(0.1 * 32768, rel=0.03)


def test_only_the_middle_of_a_long_recording_is_kept() -> None:
    wave = np.concatenate([tone(200, 4), tone(1000, 1), tone(200, 4)])
    mono = audio(seconds=0.5, shift=0.2).decode(sound_bytes(wave))
    assert len(mono) == round(0.7 * 8000)
    assert pitch(mono) == pytest.approx(1000, abs=3)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", None), ("OGG", "VORBIS"), ("MP3", None)])
def test_the_middle_is_found_in_every_format(kind: str, subtype: str | None) -> None:
    wave = np.concatenate([tone(200, 4), tone(1000, 1), tone(200, 4)])
    mono = audio(seconds=0.5).decode(sound_bytes(wave, 8000, kind, subtype))
    assert pitch(mono) == pytest.approx(1000, abs=3)


def test_one_value() -> None:
    modality = audio()
    decoded = modality.decode(sound_bytes(np.array([0.5], np.float32), 8000, "WAV"))
    assert decoded.tolist() == [16384]
    clean = modality.view(decoded, None)
    assert clean.shape == (8000,)
    assert np.flatnonzero(clean).tolist() == [4000]
    assert modality.view(decoded, np.random.default_rng(0)).shape == (8000,)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_no_value_at_all(kind: str) -> None:
    with pytest.raises(DecodeError) as raised:
        audio().decode(sound_bytes(np.zeros(0, np.float32), 8000, kind))
    assert raised.value.kind == "empty"


def test_no_bytes() -> None:
    with pytest.raises(DecodeError) as raised:
        audio().decode(b"")
    assert raised.value.kind == "empty"


@pytest.mark.parametrize("data", [b"\x00" * 200, b"RIFF\x00\x00\x00\x00WAVE", b"fLaC", b"{}"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(DecodeError, match="audio") as raised:
        audio().decode(data)
    assert raised.value.kind in {"undecodable", "empty"}


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_flac_cut_short(share: float) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 40000).astype(np.float32)
    data = sound_bytes(wave, 8000, "FLAC")
    with pytest.raises(DecodeError) as raised:
        audio(seconds=5).decode(data[: int(len(data) * share)])
    assert raised.value.kind == "undecodable"


def test_values_that_are_not_finite() -> None:
    wave = tone()
    wave[4000] = np.nan
    with pytest.raises(DecodeError, match="not finite"):
        audio().decode(sound_bytes(wave, 8000, "WAV", "FLOAT"))


def test_floats_beyond_full_scale_are_clipped() -> None:
    wave = np.array([2.0, -2.0, 0.0], np.float32)
    mono = audio().decode(sound_bytes(wave, 8000, "WAV", "FLOAT"))
    assert mono.tolist() == [32767, -32768, 0]


@pytest.mark.parametrize(
    ("setting", "value", "wave", "rate"),
    [
        ("max_seconds", 0.5, tone(seconds=1), 8000),
        ("max_channels", 1, np.zeros((100, 2), np.float32), 8000),
        ("max_sample_rate", 16000, tone(rate=44100), 44100),
    ],
)
def test_limits_name_their_setting(setting: str, value: float, wave: np.ndarray, rate: int) -> None:
    with pytest.raises(DecodeError, match=rf"modalities\.audio\.{setting}") as raised:
        audio(**{setting: value}).decode(sound_bytes(wave, rate, "WAV"))
    assert raised.value.kind == "too_large"


def _without_length(flac: bytes) -> bytes:
    """The same FLAC as a live stream writes it: with 0 as its number of values."""
    head, last = bytearray(flac), struct.unpack(">Q", flac[18:26])[0] & ~((1 << 36) - 1)
    head[18:26] = struct.pack(">Q", last)
    return bytes(head)


def test_a_stream_of_unknown_length() -> None:
    wave = np.concatenate([tone(200, 4), tone(1000, 1), tone(200, 4)])
    data = _without_length(sound_bytes(wave))
    mono = audio(seconds=0.5).decode(data)
    assert pitch(mono) == pytest.approx(1000, abs=3)
    with pytest.raises(DecodeError, match="max_seconds"):
        audio(seconds=0.5, max_seconds=2).decode(data)


def test_the_clean_view_is_the_middle() -> None:
    modality = audio(seconds=0.5, shift=0.2)
    decoded = modality.decode(sound_bytes(tone(seconds=3)))
    clean = modality.view(decoded, None)
    assert clean.shape == modality.spec.shape == (4000,)
    assert modality.spec.sample_rate == 8000
    assert np.array_equal(clean, decoded[800:4800])


def test_a_short_recording_lies_in_the_middle_of_silence() -> None:
    modality = audio()
    decoded = modality.decode(sound_bytes(tone(seconds=0.25)))
    clean = modality.view(decoded, None)
    assert np.array_equal(clean[3000:5000], decoded)
    assert not clean[:3000].any()
    assert not clean[5000:].any()


def test_strength_zero_is_the_clean_view() -> None:
    modality = audio(strength=0)
    decoded = modality.decode(sound_bytes(tone(seconds=3)))
    view = modality.view(decoded, np.random.default_rng(0))
    assert np.array_equal(view, modality.view(decoded, None))


def test_every_part_of_a_view_can_be_switched_off() -> None:
    modality = audio(shift=0, gain_db=0, noise=False)
    decoded = modality.decode(sound_bytes(tone(seconds=3)))
    for seed in range(5):
        view = modality.view(decoded, np.random.default_rng(seed))
        assert np.array_equal(view, modality.view(decoded, None))


def test_noise_is_20_to_60_db_below_the_signal() -> None:
    modality = audio(shift=0, gain_db=0)
    decoded = modality.decode(sound_bytes(tone(seconds=1)))
    clean = modality.view(decoded, None).astype(float)
    ratios = []
    for seed in range(50):
        noise = modality.view(decoded, np.random.default_rng(seed)) - clean
        ratios.append(10 * np.log10((clean**2).mean() / (noise**2).mean()))
    assert 19.8 < min(ratios) < 25
    assert 54 < max(ratios) < 60.2


def test_gain_stays_within_its_range() -> None:
    modality = audio(shift=0, noise=False, gain_db=6)
    decoded = modality.decode(sound_bytes(tone(seconds=1, level=0.3)))
    clean = np.abs(modality.view(decoded, None)).max()
    gains = [
        20 * np.log10(np.abs(modality.view(decoded, np.random.default_rng(i))).max() / clean)
        for i in range(60)
    ]
    assert -6.1 < min(gains) < -4
    assert 4 < max(gains) < 6.1


def test_loud_views_are_clipped_not_wrapped() -> None:
    modality = audio(gain_db=40, noise=False)
    decoded = modality.decode(sound_bytes(np.full(8000, 0.9, np.float32), 8000, "WAV"))
    views = [modality.view(decoded, np.random.default_rng(i)) for i in range(10)]
    assert max(view.max() for view in views) == 32767
    assert min(view.min() for view in views) >= 0


def test_silence_stays_silence() -> None:
    modality = audio()
    decoded = modality.decode(sound_bytes(np.zeros(8000, np.float32)))
    assert not modality.view(decoded, np.random.default_rng(0)).any()


def test_views_depend_on_the_seed_alone() -> None:
    modality = audio()
    decoded = modality.decode(sound_bytes(tone(seconds=3)))
    kept = decoded.copy()
    decoded.setflags(write=False)
    one, two, other = (modality.view(decoded, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.array_equal(decoded, kept)


def test_the_range_of_the_noise_is_a_setting() -> None:
    modality = audio(shift=0, gain_db=0, snr_db=[0, 10])
    decoded = modality.decode(sound_bytes(tone(seconds=1, level=0.2)))
    clean = modality.view(decoded, None).astype(float)
    for seed in range(20):
        noise = modality.view(decoded, np.random.default_rng(seed)) - clean
        assert -0.2 < 10 * np.log10((clean**2).mean() / (noise**2).mean()) < 10.2
    with pytest.raises(ValueError, match="lower bound first"):
        audio(snr_db=[10, 0])


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_the_clean_view_does_not_depend_on_the_strength(rate: int) -> None:
    data = sound_bytes(tone(seconds=3.1, rate=rate), rate)
    clean = [audio(strength=s).view(audio(strength=s).decode(data), None) for s in (0, 0.3, 1)]
    assert np.array_equal(clean[0], clean[1])
    assert np.array_equal(clean[0], clean[2])


LONG = AudioSettings.model_validate({"seconds": 8, "sample_rate": 8000})


@pytest.mark.parametrize("kind", ["OGG", "MP3"])
def test_parts_joined_end_to_end_are_all_read(kind: str) -> None:
    first = sound_bytes(tone(level=0.1, rate=16_000), 16_000, kind)
    second = sound_bytes(tone(level=0.8, rate=16_000), 16_000, kind)
    decoded = Audio(LONG).decode(first + second).astype(float)
    assert abs(len(decoded) - 16_000) < 1500
    assert decoded[-6000:-2000].std() > 5 * decoded[2000:6000].std()


def test_links_of_a_chain_stand_where_each_ends_by_itself() -> None:
    first, second = (tone(hertz, 1.3, 16_000) for hertz in (300.0, 700.0))
    chain = sound_bytes(first, 16_000, "OGG") + sound_bytes(second, 16_000, "OGG")
    decoded = Audio(LONG).decode(chain).astype(float)
    one = Audio(LONG).decode(sound_bytes(np.concatenate([first, second]), 16_000)).astype(float)
    assert len(decoded) == len(one)
    for part in (slice(400, 10_000), slice(10_800, 20_400)):
        assert np.corrcoef(decoded[part], one[part])[0, 1] > 0.999
    short = AudioSettings.model_validate({"seconds": 1, "sample_rate": 8000, "shift": 0})
    middle = Audio(short).decode(chain).astype(float)
    assert np.abs(middle - decoded[6400:14_400])[100:-100].max() < 300


def test_mpeg_sound_without_a_length_is_read_whole() -> None:
    # Layers I and II never tell it, WAV rounds it up to whole frames, and tags stand between
    # joined files.
    wave, long = tone(seconds=3.2, rate=44_100), 3.2 * 8000
    mp3 = track_bytes(wave, 44_100, "mp3", "mp3")
    for data, times in (
        (track_bytes(wave, 44_100, "mp2", "mp2"), 1),
        (track_bytes(wave, 44_100, "wav", "mp3"), 1),
        (mp3 + mp3, 2),
        (bytes(300) + mp3, 1),
    ):
        decoded = Audio(LONG).decode(data).astype(float)
        assert abs(len(decoded) - times * long) < 800
        assert decoded.std() > 0.9 * Audio(LONG).decode(sound_bytes(wave, 44_100)).std()


def test_what_the_library_reads_and_nobody_asked_for_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match="but VOC"):
        Audio(LONG).decode(sound_bytes(tone(), 8000, "VOC", "PCM_16"))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "W64", "AU", "OGG", "avi"])
def test_half_a_file_is_cut_short(kind: str) -> None:
    if kind == "avi":
        whole = track_bytes(tone(), 8000, kind, "pcm_s16le")
    else:
        whole = sound_bytes(tone(), 8000, kind, None if kind == "OGG" else "PCM_16")
    with pytest.raises(DecodeError, match="cut short"):
        Audio(LONG).decode(whole[: len(whole) // 2])
    assert len(Audio(LONG).decode(whole)) == 8000


def test_aac_behind_a_tag_and_flac_in_ogg() -> None:
    aac = track_bytes(tone(), 8000, "adts", "aac")
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    np.testing.assert_array_equal(Audio(LONG).decode(tag + aac), Audio(LONG).decode(aac))
    assert abs(len(Audio(LONG).decode(track_bytes(tone(), 8000, "ogg", "flac"))) - 8000) < 10


ODD = Path(__file__).resolve().parents[3] / "shared" / "data" / "odd" / "audio"


@pytest.mark.skipif(not ODD.exists(), reason="files that are not part of the project")
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        *[("piped_0.9s.mp3", 0.94), ("noxing_16000.mp3", 3.1), ("vbr_noxing.mp3", 3.03)],
        *[("aac_id3.aac", 3.04), ("chained.ogg", 6.0)],
    ],
)
def test_files_of_others(name: str, seconds: float) -> None:
    decoded = Audio(LONG).decode((ODD / name).read_bytes())
    assert abs(len(decoded) / 8000 - seconds) < 0.02
    assert name != "vbr_noxing.mp3" or decoded.astype(float).std() > 3000


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("silence", [0, 0, 0, 1, 2, 3, 0, 0]),
        ("pad", [1, 2, 3, 0, 0, 0, 0, 0]),
        ("repeat", [1, 2, 3, 1, 2, 3, 1, 2]),
        ("repeatpad", [1, 2, 3, 1, 2, 3, 0, 0]),
    ],
)
def test_short_sound_is_filled_up_as_asked(short: str, expected: list[int]) -> None:
    buffer = io.BytesIO()
    values = np.repeat(np.array([1000, 2000, 3000], dtype=np.int16), 100)
    soundfile.write(buffer, values, 1000, format="WAV", subtype="PCM_16")
    settings = AudioSettings.model_validate({"sample_rate": 1000, "seconds": 0.8, "short": short})
    audio = Audio(settings)
    view = audio.view(audio.decode(buffer.getvalue()), None)
    # In the middle, silence before is half of what is missing.
    shifted = np.roll(view, 50) if short == "silence" else view
    assert (shifted.reshape(8, 100) == 1000 * np.array(expected)[:, None]).all()
