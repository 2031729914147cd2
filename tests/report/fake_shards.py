"""Small shards with real media, among them what a hostile or careless author would write."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image, ImageDraw

HOSTILE = (
    "</style><script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe & \"quotes\" 'too'"
)


def picture(seed: int, size: tuple[int, int] = (480, 320), kind: str = "JPEG") -> bytes:
    """A coloured scene; each seed another."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(rng.integers(150, 240, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        r = int(rng.integers(10, max(11, size[1] // 3)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(20, 230, 3).tolist()))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def sound(seed: int, seconds: float = 2.0, rate: int = 16_000) -> bytes:
    """A decaying tone as FLAC."""
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.6 * np.sin(2 * np.pi * (200 + 90 * seed) * t) * np.exp(-t) * (1 + np.sin(9 * t)) / 2
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="FLAC")
    return buffer.getvalue()


def film(seed: int, frames: int = 20, size: int = 96) -> bytes:
    """A moving square as MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for t in range(frames):
            image = np.full((size, size, 3), 40 + 10 * (seed % 8), np.uint8)
            image[20:50, 2 * t : 2 * t + 30] = (230, 60 + 20 * (seed % 9), 90)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def caption(seed: int) -> str:
    """What a person might have written."""
    things = ("a red kite over the beach", "two dogs asleep on a sofa", "rain on a tin roof")
    places = ("in the early morning", "seen from above", "with a child laughing")
    return f"{things[seed % 3]} {places[seed // 3 % 3]}"


def members(seed: int, *, video: bool = True) -> dict[str, bytes]:
    """A whole sample."""
    found = {
        "jpg": picture(seed),
        "flac": sound(seed % 9),
        "txt": caption(seed).encode(),
        "json": json.dumps({"class_label": str(seed % 10)}).encode(),
    }
    return found | ({"mp4": film(seed)} if video else {})


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> str:
    """A WebDataset shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, parts in samples.items():
            for extension, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return str(path)
