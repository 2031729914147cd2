"""Sound: FLAC, WAV, OGG (Vorbis, Opus) and MP3, as mono int16 at one sample rate.

Only the middle of a recording that a view can show is read, mixed to mono and resampled; what the
header says about the rest is checked before. Shorter recordings are laid into silence by the view.
"""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import soundfile
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import (
    Array,
    Modality,
    ModalitySettings,
    Spec,
    as_bytes,
    too_large,
    undecodable,
)
from multimem_ray.modalities.registry import register

if TYPE_CHECKING:
    import torch

_FULL_SCALE = 32768.0
# libsndfile's answer for a stream that does not say how long it is.
_UNKNOWN_LENGTH = 2**62
_UNRECOGNISED = "Format not recognised.", "neither FLAC, WAV, OGG, MP3 nor AIFF"
# Ratios of sample rates are rounded to terms of this size: the polyphase filter grows with them,
# up to gigabytes for a rate of 44,099 Hz. The pitch is off by less than 0.01 %.
_LARGEST_TERM = 640


class AudioSettings(ModalitySettings):
    """Length, rate and views of sound."""

    sample_rate: int = Field(8000, ge=1000, le=192_000, description="values per second")
    seconds: float = Field(1.0, gt=0, le=600, description="length of a view")
    shift: float = Field(
        0.1, ge=0, le=10, description="a view starts up to this share of its length off the middle"
    )
    gain_db: float = Field(6.0, ge=0, le=60, description="largest change of loudness; 0 = none")
    noise: bool = Field(True, description="add white noise, 20 to 60 dB below the signal")
    max_seconds: float = Field(3600.0, gt=0, description="longest recording that is opened")
    max_channels: int = Field(32, ge=1, le=1024, description="most channels that are decoded")
    max_sample_rate: int = Field(384_000, ge=1000, description="highest rate that is decoded")


@register
class Audio(Modality):
    """Mono sound; decoded (samples,) and views (seconds · sample_rate,) of int16."""

    name = "audio"
    extensions = ("flac", "wav", "ogg", "mp3", "opus", "oga", "aiff", "aif")
    Settings = AudioSettings
    settings: AudioSettings

    @property
    def spec(self) -> Spec:
        """Kind ``series``, int16 (samples,)."""
        return Spec("series", (self._length,), "int16", sample_rate=self.settings.sample_rate)

    def decode(self, data: object) -> Array:
        """Middle of the recording, int16 (samples,), at most (1 + 2 · shift) views long.

        Raises:
            DecodeError: Broken, cut short, without a single value, or above a limit.
        """
        raw = as_bytes(data, self.name)
        try:
            with soundfile.SoundFile(_File(raw)) as sound:
                rate = sound.samplerate
                self._check(sound)
                unknown = sound.frames >= _UNKNOWN_LENGTH
                part = self._middle_of_stream(raw, rate) if unknown else self._middle(sound)
        except DecodeError:
            raise
        except (
            av.FFmpegError,
            soundfile.SoundFileError,
            RuntimeError,
            ValueError,
            TypeError,
        ) as error:
            said = str(error).split(">: ")[-1].replace(*_UNRECOGNISED)
            raise undecodable(self.name, said) from error
        if not len(part):
            raise DecodeError("audio: the recording holds no sound (0 values)", "empty")
        channels = part.shape[1]
        mono = part @ np.full(channels, 1 / channels, np.float32) if channels > 1 else part[:, 0]
        if not np.isfinite(mono).all():
            raise undecodable(self.name, "it holds values that are not finite")
        return _to_int16(resample(mono, rate, self.settings.sample_rate) * _FULL_SCALE)

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        """Shifted window, other loudness, a little noise; clean: the middle."""
        settings = self.settings
        if rng is None or settings.strength == 0:
            return self._window(decoded, 0)
        shift, gain, snr = rng.random(3).tolist()
        reach = settings.shift * settings.strength * self._length
        window = self._window(decoded, round((2 * shift - 1) * reach))
        decibels = (2 * gain - 1) * settings.gain_db * settings.strength
        loud = window * np.float32(10 ** (decibels / 20))
        if settings.noise:
            level = float(np.sqrt(np.dot(loud, loud) / len(loud)))
            level *= 10 ** (-(20 + 40 * snr) / 20) * settings.strength
            # Bytes are the cheapest noise: uniform on -128..127, standard deviation 73.9.
            white = np.frombuffer(rng.bytes(len(loud)), dtype=np.int8)
            loud += white * np.float32(level / 73.9)
        return _to_int16(loud)

    @property
    def _length(self) -> int:
        return max(1, round(self.settings.seconds * self.settings.sample_rate))

    def _check(self, sound: soundfile.SoundFile) -> None:
        settings = self.settings
        if sound.channels > settings.max_channels:
            what = f"{sound.channels} channels"
            raise too_large(self.name, what, "max_channels", settings.max_channels)
        if sound.samplerate > settings.max_sample_rate:
            what = f"{sound.samplerate} Hz"
            raise too_large(self.name, what, "max_sample_rate", settings.max_sample_rate)
        if sound.frames < _UNKNOWN_LENGTH:
            self._check_seconds(sound.frames / sound.samplerate)

    def _check_seconds(self, seconds: float) -> None:
        if seconds > self.settings.max_seconds:
            raise too_large(self.name, f"{seconds:.1f} s", "max_seconds", self.settings.max_seconds)

    def _wanted(self, rate: int) -> int:
        """Number of values at this rate that views can show."""
        settings = self.settings
        return int(np.ceil(settings.seconds * (1 + 2 * settings.shift * settings.strength) * rate))

    def _middle(self, sound: soundfile.SoundFile) -> Array:
        """The values around the middle that views can show, float32 (values, channels)."""
        wanted = self._wanted(sound.samplerate)
        start = max(0, (sound.frames - wanted) // 2)
        if start:
            sound.seek(start)
        expected = min(wanted, sound.frames - start)
        part: Array = sound.read(expected, dtype="float32", always_2d=True)
        if len(part) < expected:
            raise undecodable(
                self.name, f"cut short: {len(part)} of {expected} values from {start} on are there"
            )
        return part

    def _middle_of_stream(self, raw: bytes, rate: int) -> Array:
        """The same of a FLAC that was written to a pipe and does not say how long it is.

        soundfile cannot read one, since it seeks after each block.
        """
        blocks: list[Array] = []
        read = 0
        opened: Any = av.open(io.BytesIO(raw), format="flac", metadata_errors="replace")
        with opened as container:
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(audio=0):
                blocks += [part.to_ndarray() for part in to_float.resample(frame)]
                read += frame.samples
                self._check_seconds(read / rate)
        wanted = self._wanted(rate)
        start = max(0, (read - wanted) // 2)
        everything = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
        return everything[:, start : start + wanted].T

    def _window(self, decoded: Array, shift: int) -> Array:
        """The middle moved by ``shift`` values; silence where the recording has none."""
        length = self._length
        start = (len(decoded) - length) // 2 + shift
        if start >= 0 and start + length <= len(decoded):
            return decoded[start : start + length].copy()
        window = np.zeros(length, dtype=np.int16)
        first, last = max(0, start), min(len(decoded), start + length)
        if first < last:
            window[first - start : last - start] = decoded[first:last]
        return window


class _File(io.BytesIO):
    """Bytes in which a damaged header may seek before the beginning.

    From libsndfile's callbacks an error could not be raised: it would be printed.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(max(0, offset) if whence == 0 else offset, whence)


def resample(mono: Array, rate: int, target: int) -> Array:
    """Windowed-sinc resampling of float32 (samples,) from one rate to another.

    The filter is torchaudio's; applied as one matrix product, it takes a fifth of the time of
    torchaudio's convolution with a single channel. The ratio is rounded to terms of at most 640
    (a pitch error below 0.01 %).
    """
    up, down = _terms(rate, target)
    if up == down:
        return mono
    import torch

    phases, width = _filter(down, up)
    length = -(-len(mono) * up // down)
    padded = np.pad(mono, (width, width + down))
    with torch.inference_mode():
        windows = torch.from_numpy(padded).unfold(0, len(phases), down)
        resampled: Array = (windows @ phases).reshape(-1)[:length].numpy()
    return resampled


@functools.lru_cache(maxsize=64)
def _filter(source: int, target: int) -> tuple[torch.Tensor, int]:
    """Taps (taps, phases) and the padding they need before the first value."""
    from torchaudio.transforms import Resample

    made = Resample(source, target)
    return made.kernel[:, 0].t().contiguous(), int(made.width)


def _terms(rate: int, target: int) -> tuple[int, int]:
    """Terms (up, down) of the ratio target / rate."""
    low, high = sorted((rate, target))
    ratio = Fraction(low, high).limit_denominator(_LARGEST_TERM)
    if not ratio:
        raise undecodable("audio", f"{rate} Hz cannot be resampled to {target} Hz")
    terms = ratio.numerator, ratio.denominator
    return terms if target < rate else terms[::-1]


def _to_int16(values: Array) -> Array:
    return np.minimum(np.maximum(np.rint(values), -32768), 32767).astype(np.int16)
