"""The sound track of a container: MP4 and M4A, WebM and Matroska, AVI, and bare AAC.

Taken apart into packets, which costs next to nothing and tells how long the track is whatever the
header says; of these, only what lies around the middle is decoded.
"""

from __future__ import annotations

from typing import Any, Protocol

import av
import numpy as np

from multimem_ray.errors import AbsentError, DecodeError
from multimem_ray.modalities.base import Array, undecodable
from multimem_ray.modalities.containers import defect, opened

# Codecs need what came before: Opus 80 ms (RFC 7845, 4.6), AAC one or two frames.
_PREROLL = 0.25
_PLANES = 8


class Limits(Protocol):
    """What is asked of a track before it is decoded; each raises a DecodeError."""

    def check_format(self, channels: int, rate: int) -> None:
        """Whether so many channels and values per second may be decoded."""

    def check_seconds(self, seconds: float) -> None:
        """Whether a track of this length may be opened."""


def has_track(raw: bytes, container: str) -> bool:
    """Whether there is a sound track that a decoder knows; False for what cannot be opened."""
    if defect(raw, container) is not None:
        return False
    try:
        with opened(raw, container) as file:
            return any(s.codec_context is not None for s in file.streams.audio)
    except (av.FFmpegError, ValueError, TypeError, EOFError):
        return False


def middle_of_track(
    raw: bytes, container: str, seconds: float, limits: Limits
) -> tuple[Array, int]:
    """The middle of the first sound track, float32 (values, channels), and its rate.

    Raises:
        AbsentError: It is a video without sound.
        DecodeError: Broken, cut short, or above a limit.
        av.FFmpegError: Broken, as FFmpeg says it.
    """
    wrong = defect(raw, container)
    if wrong is not None:
        raise undecodable("audio", wrong)
    with opened(raw, container) as file:
        if not file.streams.audio:
            if file.streams.video:
                raise AbsentError("audio: the video has no sound track")
            raise undecodable("audio", "the file holds no sound track")
        stream = file.streams.audio[0]
        context = stream.codec_context
        if context is None:
            raise undecodable("audio", "no decoder knows its sound track")
        limits.check_format(context.channels, context.sample_rate)
        context.thread_count = 1
        packets, length = _packets(file, stream, container, limits)
        return _decoded(context, packets, float(stream.time_base), length, seconds)


def _packets(file: Any, stream: Any, container: str, limits: Limits) -> tuple[list[Any], float]:
    """All packets with a time, and the seconds that they last."""
    base = float(stream.time_base)
    packets: list[Any] = []
    end, link, following = 0.0, 0, 0
    for packet in file.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        if packet.is_corrupt:
            raise undecodable("audio", f"cut short after {end:.1f} s")
        if container == "mp3" and bytes(packet)[:1] != b"\xff":
            continue  # a tag, between joined files or at the end
        if container == "ogg":
            if (packet.duration or 0) >= 1 << 31:
                # FFmpeg's difference to the page's end, below zero where the last packet is cut.
                packet.duration = 0
            # Each link of a chain counts from its own beginning (RFC 3533, 4).
            if packets and packet.pts + link < packets[-1].pts:
                link = following
            packet.pts += link
            following = packet.pts + (packet.duration or 0)
        packets.append(packet)
        end = max(end, (packet.pts - packets[0].pts + (packet.duration or 0)) * base)
        limits.check_seconds(end)
    if not packets:
        raise DecodeError("audio: the recording holds no sound (0 values)", "empty")
    if container == "mov":
        # MP4 lists what it holds; a packet of plain PCM holds many of what is listed.
        plain = stream.codec_context.name.startswith("pcm")
        there = sum(p.duration or 0 for p in packets) if plain else len(packets)
        if there < stream.frames:
            raise undecodable("audio", f"cut short after {end:.1f} s")
    return packets, end


def _decoded(
    context: Any, packets: list[Any], base: float, length: float, seconds: float
) -> tuple[Array, int]:
    """The values of the middle ``seconds``, as far as they come."""
    begin = packets[0].pts * base + max(0.0, (length - seconds) / 2)
    blocks: list[Array] = []
    first, rate, missing = 0.0, 0, 0
    floats = _Floats()
    for packet in [*packets[_start(packets, begin - _PREROLL, base) :], None]:
        for frame in context.decode(packet):
            if not blocks:
                rate = frame.sample_rate
                first = begin if frame.pts is None else float(frame.pts * frame.time_base)
                missing = round((begin - first + seconds) * rate)
            if frame.sample_rate != rate:
                raise undecodable("audio", "its sample rate changes")
            blocks.append(floats(frame))
            missing -= frame.samples
        if rate and missing <= 0:
            break
    if not blocks:
        raise undecodable("audio", "no sound can be decoded")
    skipped = max(0, round((begin - first) * rate))
    part = np.concatenate(blocks, axis=1)[:, skipped : skipped + round(seconds * rate)]
    return part.T, rate


def _start(packets: list[Any], time: float, base: float) -> int:
    """Position of the last packet up to this time from which decoding can start."""
    found = 0
    for position, packet in enumerate(packets):
        if packet.pts * base > time:
            break
        if packet.is_keyframe:
            found = position
    return found


class _Floats:
    """Frames as float32 (channels, values), whatever a codec makes."""

    def __init__(self) -> None:
        self._to_packed = av.AudioResampler(format="flt")

    def __call__(self, frame: Any) -> Array:
        channels = frame.layout.nb_channels
        # PyAV counts planes up to an empty one, which it does not find behind the eighth: reading
        # them all would end the process.
        if frame.format.name == "fltp" and channels < _PLANES:
            planes: Array = frame.to_ndarray()
            return planes
        packed = [
            part.to_ndarray().reshape(-1, channels).T for part in self._to_packed.resample(frame)
        ]
        return np.concatenate(packed, axis=1)
