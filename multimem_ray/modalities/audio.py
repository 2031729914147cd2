"""Sound: FLAC, WAV, OGG (Vorbis, Opus), MP3, AAC and M4A, WebM, as mono int16 at one sample rate.

A video's sound track will do as well: ``data.fields: {audio: "flac;mp4"}``. Only the middle of a
recording that a view can show is read, mixed to mono and resampled; what the header says about the
rest is checked before. Shorter recordings are laid into silence by the view, unless the model hears
them repeated.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
import soundfile
from pydantic import Field, field_validator

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
from multimem_ray.modalities.containers import container_of, links, missing_bytes, needs_packets
from multimem_ray.modalities.formats import but
from multimem_ray.modalities.masking import masked
from multimem_ray.modalities.registry import register
from multimem_ray.modalities.resampling import resample
from multimem_ray.modalities.track import has_track, middle_of_track

if TYPE_CHECKING:
    from torch import Tensor

    from multimem_ray.modalities.batch import Stacked
    from multimem_ray.modalities.draws import Draws

_FULL_SCALE = 32768.0
# libsndfile's answer for a stream that does not say how long it is.
_UNKNOWN_LENGTH = 2**62
_READ = frozenset(
    {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "MPEG"}
)
_UNRECOGNISED = "Format not recognised.", "neither FLAC, WAV, OGG, MP3, AIFF, AAC nor MP4 or WebM"


class AudioSettings(ModalitySettings):
    """Length, rate and views of sound."""

    sample_rate: int = Field(8000, ge=1000, le=192_000, description="values per second")
    seconds: float = Field(1.0, gt=0, le=600, description="length of a view")
    short: Literal["silence", "pad", "repeat", "repeatpad"] = Field(
        "silence",
        description="a recording shorter than a view: amid silence; before silence; repeated; "
        "repeated as a whole, and silence behind",
    )
    shift: float = Field(
        0.1, ge=0, le=10, description="a view starts up to this share of its length off the middle"
    )
    gain_db: float = Field(6.0, ge=0, le=60, description="largest change of loudness; 0 = none")
    noise: bool = Field(True, description="add white noise")
    snr_db: tuple[float, float] = Field(
        (20.0, 60.0), description="range of the signal-to-noise ratio, dB"
    )
    masks: int = Field(2, ge=1, le=20, description="masks of each kind, as in SpecAugment")
    mask_time: float = Field(
        0.0, ge=0, le=1, description="largest share of the time that one mask silences; 0 = none"
    )
    mask_frequency: float = Field(
        0.0, ge=0, le=1, description="largest share of the mel scale that one mask takes; 0 = none"
    )
    max_seconds: float = Field(3600.0, gt=0, description="longest recording that is opened")
    max_channels: int = Field(32, ge=1, le=1024, description="most channels that are decoded")
    max_sample_rate: int = Field(384_000, ge=1000, description="highest rate that is decoded")

    @field_validator("snr_db")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= value[1]:
            raise ValueError("write the lower bound first, such as [20, 60]")
        return value


@register
class Audio(Modality):
    """Mono sound; decoded (samples,) and views (seconds · sample_rate,) of int16."""

    name = "audio"
    extensions = (
        *("flac", "wav", "ogg", "mp3", "opus", "oga", "aiff", "aif"),
        *("m4a", "aac", "weba", "mka"),
    )
    carriers = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
    Settings = AudioSettings
    settings: AudioSettings

    @property
    def spec(self) -> Spec:
        """Kind ``series``, int16 (samples,)."""
        return Spec("series", (self._length,), "int16", sample_rate=self.settings.sample_rate)

    def decode(self, data: object) -> Array:
        """Middle of the recording, int16 (samples,), at most (1 + 2 · shift) views long.

        Shorter sound is as long as a view where ``short`` fills it up.

        Raises:
            DecodeError: Broken, cut short, without a single value, or above a limit.
            AbsentError: A video without a sound track.
        """
        raw = as_bytes(data, self.name)
        container = container_of(raw) or needs_packets(raw)
        try:
            if container is not None:
                part, rate = middle_of_track(raw, container, self._wanted_seconds, self)
            else:
                part, rate = self._of_file(raw)
        except DecodeError:
            raise
        except (
            av.FFmpegError,
            soundfile.SoundFileError,
            RuntimeError,
            ValueError,
            TypeError,
            EOFError,
        ) as error:
            said = getattr(error, "strerror", None) or str(error).split(">: ")[-1]
            if said == _UNRECOGNISED[0]:
                said = _UNRECOGNISED[1] + but(raw)
            raise undecodable(self.name, said) from error
        if not len(part):
            raise DecodeError("audio: the recording holds no sound (0 values)", "empty")
        channels = part.shape[1]
        mono = part @ np.full(channels, 1 / channels, np.float32) if channels > 1 else part[:, 0]
        if not np.isfinite(mono).all():
            raise undecodable(self.name, "it holds values that are not finite")
        decoded = _to_int16(resample(mono, rate, self.settings.sample_rate) * _FULL_SCALE)
        return self._filled(decoded)

    def carried(self, data: bytes) -> bool:
        """Whether a video has a sound track."""
        container = container_of(data)
        return container is not None and has_track(data, container)

    def views(self, decoded: Stacked, draws: Draws | None) -> Tensor:
        """Shifted windows, other loudness, a little noise, masks; clean: the middle."""
        import torch

        settings, length = self.settings, self._length
        if draws is None or settings.strength == 0:
            count = 1 if draws is None else len(draws.views)
            return self._windows(decoded, torch.zeros(len(decoded), 1)).expand(-1, count, -1)
        drawn = draws.uniform(3 + 4 * settings.masks)
        shift, gain, snr = drawn[..., :3].unbind(2)
        reach = settings.shift * settings.strength * length
        windows = self._windows(decoded, (2 * shift - 1) * reach)
        decibels = (2 * gain - 1) * settings.gain_db * settings.strength
        device = windows.device
        loudness = (10 ** (decibels / 20)).to(device)
        loud = windows.float().mul_(loudness.float()[..., None])
        if settings.noise:
            low, high = settings.snr_db
            level = (10 ** (-(low + (high - low) * snr) / 20) * settings.strength).to(device)
            # Sums of squares of int16 are exact in float64, in whatever order they are added.
            level *= loudness * windows.double().square_().mean(2).sqrt()
            # Bytes are the cheapest noise: uniform on -128..127, standard deviation 73.9.
            noise = draws.bytes(length, device).float()
            loud += noise.mul_((level / 73.9).float()[..., None])
        if settings.mask_time or settings.mask_frequency:
            longest, widest = (
                min(1.0, share * settings.strength)
                for share in (settings.mask_time, settings.mask_frequency)
            )
            masks = drawn[..., 3:].reshape(*drawn.shape[:2], 4, settings.masks)
            loud = masked(loud, settings.sample_rate, longest, widest, masks)
        return loud.round_().clamp_(-32768, 32767).short()

    def _windows(self, decoded: Stacked, shift: Tensor) -> Tensor:
        """The middles moved by ``shift`` (N, V) values, int16 (N, V, length); silence outside."""
        import torch
        from torch.nn.functional import pad

        length, values = self._length, decoded.values
        start = (decoded.shapes - length).div(2, rounding_mode="floor") + shift.round().long()
        # Behind a recording lie zeros already, where another one is longer.
        before, last = max(0, -int(start.min())), int(start.max()) + length
        values = pad(values, (before, max(0, last - values.shape[1])))
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values.unfold(1, length, 1)[rows, (start + before).to(values.device)]

    @property
    def _length(self) -> int:
        return max(1, round(self.settings.seconds * self.settings.sample_rate))

    def check_format(self, channels: int, rate: int) -> None:
        """Raises a DecodeError for too many channels, or too many values per second."""
        settings = self.settings
        if channels > settings.max_channels:
            what = f"{channels} channels"
            raise too_large(self.name, what, "max_channels", settings.max_channels)
        if rate > settings.max_sample_rate:
            raise too_large(self.name, f"{rate} Hz", "max_sample_rate", settings.max_sample_rate)

    def check_seconds(self, seconds: float) -> None:
        """Raises a DecodeError for a recording that is too long."""
        if seconds > self.settings.max_seconds:
            raise too_large(self.name, f"{seconds:.1f} s", "max_seconds", self.settings.max_seconds)

    def _of_file(self, raw: bytes) -> tuple[Array, int]:
        """The middle of what libsndfile reads, float32 (values, channels), and its rate."""
        missing = missing_bytes(raw)
        if missing:
            raise undecodable(self.name, f"cut short: {missing} bytes are missing at its end")
        chain = links(raw) if raw.startswith(b"OggS") else []
        if len(chain) > 1:
            return self._of_links(chain)
        try:
            opened = soundfile.SoundFile(_File(raw))
        except soundfile.SoundFileError:
            if not raw.startswith(b"OggS"):
                raise
            # FLAC and Speex in Ogg, which libsndfile does not know.
            return middle_of_track(raw, "ogg", self._wanted_seconds, self)
        with opened as sound:
            rate = int(sound.samplerate)
            if sound.format not in _READ:
                raise undecodable(self.name, f"{_UNRECOGNISED[1]}, but {sound.format}")
            self.check_format(sound.channels, rate)
            if sound.frames >= _UNKNOWN_LENGTH:
                # A FLAC that was written to a pipe: libsndfile seeks after each block, and fails.
                return middle_of_track(raw, "flac", self._wanted_seconds, self)
            self.check_seconds(sound.frames / rate)
            return self._middle(sound), rate

    def _of_links(self, chain: list[bytes]) -> tuple[Array, int]:
        """The middle of a chained Ogg: each link is as long as it says itself."""
        try:
            sounds = [soundfile.SoundFile(_File(link)) for link in chain]
        except soundfile.SoundFileError:
            return middle_of_track(b"".join(chain), "ogg", self._wanted_seconds, self)
        kinds = {(sound.channels, sound.samplerate) for sound in sounds}
        if len(kinds) > 1:
            raise undecodable(self.name, "its channels or its sample rate change")
        ((channels, rate),) = kinds
        self.check_format(channels, rate)
        whole = sum(sound.frames for sound in sounds)
        self.check_seconds(whole / rate)
        wanted = min(self._wanted(rate), whole)
        first, parts = (whole - wanted) // 2, []
        for sound in sounds:
            begin = min(max(0, first), sound.frames)
            sound.seek(begin)
            parts.append(sound.read(min(sound.frames - begin, wanted), "float32", always_2d=True))
            first, wanted = first - sound.frames, wanted - len(parts[-1])
        if wanted:
            raise undecodable(self.name, f"cut short: {wanted} values are missing")
        return np.concatenate(parts), rate

    @property
    def _wanted_seconds(self) -> float:
        """Length of what views can show, up to strength 1: no clean view depends on it."""
        settings = self.settings
        return settings.seconds * (1 + 2 * settings.shift * max(1.0, settings.strength))

    def _wanted(self, rate: int) -> int:
        """Number of values at this rate that views can show."""
        return int(np.ceil(self._wanted_seconds * rate))

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

    def _filled(self, decoded: Array) -> Array:
        """Sound shorter than a view, filled up as ``short`` has it, after CLAP's extractor."""
        short, length = self.settings.short, self._length
        if short == "silence" or len(decoded) >= length:
            return decoded
        if short != "pad":
            times = length // len(decoded)
            decoded = np.tile(decoded, times + 1 if short == "repeat" else times)[:length]
        return np.pad(decoded, (0, length - len(decoded)))


class _File(io.BytesIO):
    """Bytes in which a damaged header may seek before the beginning.

    From libsndfile's callbacks an error could not be raised: it would be printed.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(max(0, offset) if whence == 0 else offset, whence)


def _to_int16(values: Array) -> Array:
    return np.minimum(np.maximum(np.rint(values), -32768), 32767).astype(np.int16)
