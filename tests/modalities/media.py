"""Media made on the spot: what people put into shards, and what goes wrong with it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


def gradient(width: int = 96, height: int = 64) -> Array:
    """Red grows to the right, green downwards, blue is constant: (height, width, 3) uint8."""
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    picture[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    picture[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return picture


def image_bytes(picture: Image.Image | Array, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file of some format."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tone(hertz: float = 440.0, seconds: float = 1.0, rate: int = 8000, level: float = 0.5) -> Array:
    """A sine, float32 (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def sound_bytes(
    wave: Array, rate: int = 8000, kind: str = "FLAC", subtype: str | None = None
) -> bytes:
    """Sound as a file of some format."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def ramp(frames: int = 30, width: int = 64, height: int = 48) -> Array:
    """A clip that gets brighter: (frames, height, width, 3) uint8, level 20 to 220."""
    levels = 20 + 200 * np.arange(frames) / max(1, frames)
    return np.repeat(levels.astype(np.uint8), height * width * 3).reshape(frames, height, width, 3)


def video_bytes(
    clip: Array,
    kind: str = "mp4",
    codec: str = "libx264",
    fps: int = 25,
    gop: int = 12,
    faststart: bool = False,
    aspect: Fraction | None = None,
    times: Sequence[int] | None = None,
    **options: str,
) -> bytes:
    """A clip as a file of some format, with B-frames where the codec has them.

    Args:
        aspect: Width of its pixels over their height.
        times: When each frame is shown, in milliseconds; default one after the other.
    """
    flags = {"movflags": "faststart"} if faststart else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        with av.open(str(path), "w", format=kind, options=flags) as container:
            stream: Any = container.add_stream(codec, rate=Fraction(fps))
            stream.height, stream.width = clip.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.gop_size = gop
            stream.options = {"crf": "18", "threads": "1", **options}
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number, picture in enumerate(clip):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = times[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def track_bytes(
    wave: Array, rate: int, kind: str, codec: str, clip: Array | None = None, fps: int = 25
) -> bytes:
    """Sound (samples,) or (samples, channels) in a container, with moving pictures or without."""
    wave = wave.reshape(len(wave), -1)
    vp8 = kind == "webm"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "track"
        with av.open(str(path), "w", format=kind) as container:
            pictures: Any = None
            if clip is not None:
                pictures = container.add_stream("libvpx" if vp8 else "libx264", rate=fps)
                pictures.height, pictures.width = clip.shape[1:3]
                pictures.pix_fmt = "yuv420p"
            layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[wave.shape[1]]
            sound: Any = container.add_stream(codec, rate=rate, layout=layout)
            for picture in clip if clip is not None else ():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(pictures.encode(frame))
            if pictures is not None:
                container.mux(pictures.encode())
            packed = np.ascontiguousarray(wave, dtype=np.float32).reshape(1, -1)
            whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            whole.sample_rate, whole.pts = rate, 0
            fifo = av.AudioFifo()
            to_codec = av.AudioResampler(format=sound.format.name, layout=layout, rate=rate)
            for frame in to_codec.resample(whole):
                fifo.write(frame)
            size = sound.frame_size or 1024
            while (frame := fifo.read(size, partial=True)) is not None:
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
        return path.read_bytes()
