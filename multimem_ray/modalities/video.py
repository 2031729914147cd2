"""Video: MP4 and MOV, WebM and Matroska, AVI, as uint8 RGB frames evenly spaced in time.

The clip is first taken apart into packets, which costs next to nothing and tells how many frames
there are whatever the header says; only groups of pictures that hold a wanted frame are decoded,
and only wanted frames are converted.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities import second_decoder
from multimem_ray.modalities.base import (
    Array,
    Modality,
    ModalitySettings,
    Spec,
    as_bytes,
    too_large,
    undecodable,
)
from multimem_ray.modalities.containers import container_of, defect, is_mirrored, opened
from multimem_ray.modalities.formats import but
from multimem_ray.modalities.frames import Square, spaced
from multimem_ray.modalities.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from multimem_ray.modalities.batch import Stacked
    from multimem_ray.modalities.draws import Draws

logger = logging.getLogger(__name__)

_CONTAINERS = ("mov", "matroska", "avi")


class VideoSettings(ModalitySettings):
    """Frames, size and views of video."""

    frames: int = Field(8, ge=1, le=512, description="frames of a view, evenly spaced")
    size: int = Field(32, ge=4, le=1024, description="height and width of a view, pixels")
    oversize: float = Field(
        1.125, ge=1, le=4, description="side of the decoded frames over that of a view; 1 = no crop"
    )
    jitter: bool = Field(True, description="a view may show a frame half a step later")
    crop_time: float = Field(
        1.0, gt=0, le=1, description="smallest share of the clip that a view shows; 1 = all of it"
    )
    backend: Literal["pyav", "torchcodec", "auto"] = Field(
        "pyav",
        description="what decodes; pixels differ slightly. auto = torchcodec if the machine that "
        "opens the run can load it, settled there for the whole run; mirrored clips and pixels "
        "that are no squares are left to pyav",
    )
    max_frames: int = Field(50_000, ge=1, description="longest clip that is decoded, frames")
    max_seconds: float = Field(3600.0, gt=0, description="longest clip that is decoded")
    max_pixels: int = Field(
        16_777_216, ge=1, le=178_000_000, description="largest frame that is decoded, pixels"
    )
    max_decoded_pixels: int = Field(
        40_000_000_000, ge=1, description="most that is decoded to get at the frames, pixels"
    )


@register
class Video(Modality):
    """Frames of a clip; decoded (frames, choices, 3, D, D), views (frames, 3, size, size)."""

    name = "video"
    extensions = ("mp4", "webm", "mkv", "mov", "m4v", "avi")
    Settings = VideoSettings
    settings: VideoSettings

    def __init__(self, settings: VideoSettings | None = None) -> None:
        super().__init__(settings)
        if self.settings.backend == "torchcodec":
            second_decoder.require()

    @classmethod
    def settled(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """With ``backend: auto`` replaced by what can be loaded here."""
        if settings.get("backend") != "auto":
            return dict(settings)
        reason = second_decoder.unavailable()
        backend = "torchcodec" if reason is None else "pyav"
        logger.info("video is decoded by %s%s", backend, f": {reason}" if reason else "")
        return {**settings, "backend": backend}

    @property
    def spec(self) -> Spec:
        """Kind ``frames``, uint8 (frames, 3, size, size)."""
        settings = self.settings
        return Spec("frames", (settings.frames, 3, settings.size, settings.size), "uint8")

    def decode(self, data: object) -> Array:
        """Upright centre squares, uint8 (frames, choices, 3, D, D), D = ceil(size · oversize).

        The clip is cut into ``frames`` parts of equal time; of each there are two choices (one
        without ``jitter``). A clip with fewer frames shows some of them twice.

        Raises:
            DecodeError: Broken, cut short, without a picture, another format, or above a limit.
        """
        raw = as_bytes(data, self.name)
        container = container_of(raw)
        if container is None or container not in _CONTAINERS:
            known = "neither MP4 or MOV nor WebM or Matroska nor AVI"
            raise undecodable(self.name, known + but(raw))
        wrong = defect(raw, container)
        if wrong is not None:
            raise undecodable(self.name, wrong)
        try:
            with opened(raw, container) as file:
                return self._clip(file, raw)
        except DecodeError:
            raise
        except (av.FFmpegError, ValueError, TypeError, EOFError, RuntimeError) as error:
            raise undecodable(self.name, getattr(error, "strerror", None) or error) from error

    def views(self, decoded: Stacked, draws: Draws | None) -> Tensor:
        """Parts of clips, frames jittered in time, one crop for all; clean: all, the centre."""
        import torch

        size, strength = self.settings.size, min(1.0, self.settings.strength)
        clips = decoded.values.flatten(1, 2)
        frames, choices = decoded.values.shape[1:3]
        margin, device = clips.shape[-1] - size, clips.device
        if draws is None or strength == 0:
            start = margin // 2
            clean = decoded.values[:, None, :, 0, :, start : start + size, start : start + size]
            return clean.expand(-1, 1 if draws is None else len(draws.views), *[-1] * 4)
        drawn = draws.uniform(4 + frames)
        top, left = (
            (margin * (0.5 + (draw - 0.5) * strength) + 0.5).long().to(device)[..., None]
            for draw in drawn[..., :2].unbind(2)
        )
        later = (drawn[..., 4:] < strength / 2) & (choices > 1)
        at = torch.arange(frames) * choices + later
        if self.settings.crop_time < 1:
            at = self._cropped(at / choices, drawn[..., 2:3], drawn[..., 3:4], choices)
        if device.type == "cpu":
            return _cut(clips, at, top[..., 0], left[..., 0], size)
        # Every place of the crop is a view of the same memory: only what is shown is copied.
        places = clips.unfold(3, size, 1).unfold(4, size, 1)
        rows = torch.arange(len(clips), device=device)[:, None, None]
        return places[rows, at.to(device), :, top, left]

    def _cropped(self, times: Tensor, share: Tensor, start: Tensor, choices: int) -> Tensor:
        """Which of the decoded pictures stand nearest to these times of a part of the clip."""
        lost = (1 - self.settings.crop_time) * min(1.0, self.settings.strength)
        share = 1 - lost * share
        start = start * (1 - share) * times.shape[-1]
        return ((start + times * share) * choices).long()

    def _clip(self, container: Any, raw: bytes) -> Array:
        settings = self.settings
        if not container.streams.video:
            raise undecodable(self.name, "the file holds no video stream")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None:
            raise undecodable(self.name, "no decoder knows its video stream")
        self._check_size(context.width, context.height)
        # A size that changes in mid-stream is refused by the decoder itself.
        context.options = {"max_pixels": str(settings.max_pixels)}
        context.thread_count = 1
        packets, times = self._packets(container, stream)
        choices = 2 if settings.jitter else 1
        numbers = [number for number, packet in enumerate(packets) if not packet.is_discard]
        numbers.sort(key=times.__getitem__)
        shown = [times[number] for number in numbers]
        at = spaced(shown, packets[numbers[-1]].duration or 0, settings.frames * choices)
        square = Square(int(np.ceil(settings.size * settings.oversize)), stream)
        self._check_size(*square.extent(context.width, context.height))
        wanted = [shown[position] for position in at]
        starts = _starts(packets, times, wanted)
        self._check_work(context.width * context.height, times, wanted, starts)
        if settings.backend == "torchcodec" and square.aspect == 1 and not is_mirrored(raw):
            frames = second_decoder.squares(raw, at, square.side)
        else:
            frames = _decode_at(context, packets, times, wanted, starts, square)
        if not frames:
            raise undecodable(self.name, "no frame can be decoded")
        clip = np.stack(frames).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(clip).reshape(settings.frames, choices, *clip.shape[1:])

    def _packets(self, container: Any, stream: Any) -> tuple[list[Any], list[int]]:
        """All packets, and when each is shown."""
        settings = self.settings
        packets: list[Any] = []
        for packet in container.demux(stream):
            if not packet.size or (packet.pts is None and packet.dts is None):
                continue
            if packet.is_corrupt:
                raise undecodable(self.name, f"cut short after {len(packets)} frames")
            packets.append(packet)
            if len(packets) > settings.max_frames:
                what = f"more than {settings.max_frames} frames"
                raise too_large(self.name, what, "max_frames", settings.max_frames)
        if all(packet.is_discard for packet in packets):
            raise DecodeError("video: the clip holds no frame", "empty")
        if len(packets) < stream.frames:
            raise undecodable(self.name, f"cut short: {len(packets)} of {stream.frames} frames")
        times = [_time(packet) for packet in packets]
        seconds = float((max(times) - min(times)) * stream.time_base)
        if seconds > settings.max_seconds:
            raise too_large(self.name, f"{seconds:.1f} s", "max_seconds", settings.max_seconds)
        return packets, times

    def _check_work(
        self, pixels: int, times: list[int], wanted: list[int], starts: list[int]
    ) -> None:
        """Groups of pictures may be as long as the clip, and are decoded from their beginning."""
        place = {time: number for number, time in enumerate(times)}
        decoded, last = 0, -1
        for time, start in zip(wanted, starts, strict=True):
            decoded += max(0, place[time] - max(start, last + 1) + 1)
            last = max(last, place[time])
        limit = self.settings.max_decoded_pixels
        if decoded * pixels > limit:
            what = f"{decoded} frames of {pixels:,} pixels to decode"
            raise too_large(self.name, what, "max_decoded_pixels", limit)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.settings.max_pixels:
            what = f"frames of {width} x {height} pixels"
            raise too_large(self.name, what, "max_pixels", self.settings.max_pixels)


def _decode_at(
    context: Any,
    packets: list[Any],
    times: list[int],
    wanted: list[int],
    starts: list[int],
    convert: Square,
) -> list[Array]:
    """The frames shown at these ascending times, of one shape; empty if there is none at all."""
    queue, shown = deque(wanted), frozenset(wanted)
    frames: list[Array] = []
    last: Any = None
    position, passing = 0, False
    while queue:
        start = starts[len(frames)]
        if start > position:
            context.flush_buffers()
            position = start
        packet = packets[position] if position < len(packets) else None
        # What no other frame is built on is passed over; the decoder changes none for it.
        passed = packet is not None and times[position] not in shown
        position += 1
        if passed != passing:
            context.skip_frame = "NONREF" if passed else "DEFAULT"
            passing = passed
        for frame in context.decode(packet):
            last = frame
            picture: Array | None = None
            while queue and frame.pts is not None and frame.pts >= queue[0]:
                queue.popleft()
                picture = convert(frame) if picture is None else picture
                frames.append(picture)
        if packet is None:
            break
    if last is None:
        return []
    # A frame that was announced and did not come is replaced by the last one before it.
    return frames + [convert(last)] * len(queue) if queue else frames


def _starts(packets: list[Any], times: list[int], wanted: list[int]) -> list[int]:
    """For each time the position of the packet from which its frame can be decoded."""
    keys = [(place, times[place]) for place, p in enumerate(packets) if p.is_keyframe]
    starts: list[int] = []
    current = 0
    for time in wanted:
        while keys and keys[0][1] <= time:
            current = keys.pop(0)[0]
        starts.append(current)
    return starts


def _time(packet: Any) -> int:
    return int(packet.dts if packet.pts is None else packet.pts)


def _cut(clips: Tensor, at: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Pictures ``at`` (N, V, frames) of clips, and the square at ``top`` and ``left`` (N, V)."""
    import torch

    pictures, order = clips.numpy(), at.numpy()
    out = np.empty((*order.shape, pictures.shape[2], size, size), np.uint8)
    for n, v in np.ndindex(*order.shape[:2]):
        y, x = int(top[n, v]), int(left[n, v])
        # Whole pictures first: copying them costs less than choosing among cut ones.
        out[n, v] = pictures[n].take(order[n, v], axis=0)[:, :, y : y + size, x : x + size]
    return torch.from_numpy(out)
