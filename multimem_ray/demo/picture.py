"""The demo's pictures and clips: shapes over a soft background, drawn with Pillow.

Position, tilt, shade and background are drawn afresh for every picture and every clip, so that a
sample's image is no frame of its video: the scene is what they share. A still picture shows its
motion by a fading trail.
"""

from __future__ import annotations

import io
import math
from typing import cast

import av
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from multimem_ray.demo.scene import Scene

IMAGE_SIZE = 96
VIDEO_SIZE = 64
FRAMES = 8
FRAME_RATE = 8

_SUPERSAMPLING = 3
_TRAVEL = 0.34  # of the frame's side, from the first frame to the last
_RGB = {
    "red": (228, 52, 52),
    "orange": (245, 140, 38),
    "yellow": (248, 220, 60),
    "green": (66, 186, 84),
    "cyan": (60, 208, 214),
    "blue": (66, 110, 240),
    "violet": (146, 80, 220),
    "pink": (248, 130, 190),
}
_GROUNDS = {  # the two ends of the backdrop's gradient
    "night": ((8, 8, 34), (24, 22, 72)),
    "sea": ((6, 70, 104), (20, 128, 150)),
    "forest": ((8, 44, 20), (22, 84, 40)),
    "desert": ((140, 98, 50), (196, 152, 94)),
    "snow": ((176, 192, 212), (232, 238, 246)),
    "dusk": ((66, 28, 82), (150, 72, 104)),
    "lava": ((48, 6, 4), (134, 34, 12)),
    "meadow": ((96, 130, 44), (148, 178, 82)),
}
_SIDE = {"small": 0.22, "medium": 0.33, "large": 0.43}  # of the frame's side
_PLACES: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.5, 0.5),),
    2: ((0.3, 0.36), (0.7, 0.64)),
    3: ((0.5, 0.28), (0.28, 0.7), (0.72, 0.7)),
    4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
}
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def draw_image(scene: Scene, rng: np.random.Generator) -> bytes:
    """A JPEG of the scene, ``IMAGE_SIZE`` pixels square."""
    stage = _Stage(scene, IMAGE_SIZE, rng)
    picture = stage.background.copy()
    for time, opacity in ((-0.45, 0.25), (-0.22, 0.5), (0.0, 1.0)):
        stage.paint(picture, time, opacity)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def draw_video(scene: Scene, rng: np.random.Generator) -> bytes:
    """An MP4 of one second, ``FRAMES`` frames of ``VIDEO_SIZE`` pixels square, without sound."""
    stage = _Stage(scene, 2 * VIDEO_SIZE, rng)
    frames = []
    for index in range(FRAMES):
        frame = stage.background.copy()
        stage.paint(frame, index / (FRAMES - 1) - 0.5, 1.0)
        frames.append(np.asarray(frame.reduce(2)))
    return _encode(frames)


class _Stage:
    """A background and the copies of one shape; paints them at any time in [-0.5, 0.5]."""

    def __init__(self, scene: Scene, side: int, rng: np.random.Generator) -> None:
        self._motion = scene.motion
        self._side = side
        self._tilt = float(rng.uniform(-12, 12))
        jitter = rng.uniform(-0.05, 0.05, size=(scene.count, 2))
        self._places = np.asarray(_PLACES[scene.count]) + jitter
        shade = rng.integers(-14, 15, size=3)
        red, green, blue = (
            int(np.clip(base + change, 0, 255))
            for base, change in zip(_RGB[scene.colour], shade, strict=True)
        )
        width = round(side * _SIDE[scene.size] * float(rng.uniform(0.92, 1.08)))
        self._sprite = _sprite(scene.shape, (red, green, blue), scene.texture, width)
        self.background = _background(scene.ground, side, rng)

    def paint(self, picture: Image.Image, time: float, opacity: float) -> None:
        sprite = self._posed(time)
        if opacity < 1:
            faded = ImageEnhance.Brightness(sprite.getchannel("A")).enhance(opacity)
            sprite.putalpha(faded)
        step = np.asarray(_STEPS.get(self._motion, (0, 0))) * _TRAVEL * time
        for place in self._places + step:
            left, top = (place * self._side - np.asarray(sprite.size) / 2).round().astype(int)
            picture.paste(sprite, (int(left), int(top)), sprite)

    def _posed(self, time: float) -> Image.Image:
        sprite = self._sprite
        if self._motion == "pulsing":
            scale = 1 - 0.45 * math.sin(2 * math.pi * time)
            width = max(2, round(sprite.width * scale))
            sprite = sprite.resize((width, width), Image.Resampling.BILINEAR)
        turn = 150 * time if self._motion == "spinning" else 0.0
        return sprite.rotate(self._tilt + turn, Image.Resampling.BICUBIC, expand=True)


def _background(ground: str, side: int, rng: np.random.Generator) -> Image.Image:
    """A gradient in a random direction with three soft lights: a sample's own backdrop."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None] + 1.4) / 2.8
    first, second = np.asarray(_GROUNDS[ground], dtype=np.float32) + rng.uniform(-8, 8, (2, 3))
    pixels = first + (second - first) * ramp[..., None]
    for _ in range(3):
        x, y = rng.uniform(-1, 1, size=2)
        distance = ((axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2) / rng.uniform(0.02, 0.12)
        pixels = pixels + np.exp(-distance)[..., None] * rng.uniform(-20, 35, size=3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def _sprite(shape: str, colour: tuple[int, int, int], texture: str, width: int) -> Image.Image:
    """One shape in its colour and texture, RGBA, ``width`` pixels square."""
    large = width * _SUPERSAMPLING
    fill = Image.new("RGB", (large, large), colour)
    accent = Image.new("RGB", fill.size, tuple(round(255 - 0.3 * (255 - c)) for c in colour))
    fill.paste(accent, mask=_pattern(texture, large))
    fill.putalpha(_outline(shape, large))
    return fill.reduce(_SUPERSAMPLING)


def _pattern(texture: str, width: int) -> Image.Image:
    """Where a texture is light, as a mask."""
    if texture == "striped":
        rows = np.arange(width)[:, None] * 5 // width % 2 == 1
        return _mask(np.broadcast_to(rows, (width, width)))
    if texture == "checked":
        cells = np.arange(width) * 5 // width
        return _mask((cells[:, None] + cells[None, :]) % 2 == 1)
    if texture == "dotted":
        offset = (np.arange(width) * 4 / width) % 1 - 0.5
        return _mask(offset[:, None] ** 2 + offset[None, :] ** 2 < 0.09)
    return Image.new("L", (width, width), 0)


def _mask(light: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Image.Image:
    return Image.fromarray(light.astype(np.uint8) * 255, "L")


def _outline(shape: str, width: int) -> Image.Image:
    """The silhouette of a shape, as a mask."""
    mask = Image.new("L", (width, width), 0)
    draw = ImageDraw.Draw(mask)
    box = (0, 0, width - 1, width - 1)
    if shape in {"circle", "ring"}:
        draw.ellipse(box, fill=255)
        if shape == "ring":
            inner = width * 0.27
            draw.ellipse((inner, inner, width - 1 - inner, width - 1 - inner), fill=0)
    elif shape == "square":
        inset = width * 0.09
        draw.rectangle((inset, inset, width - 1 - inset, width - 1 - inset), fill=255)
    elif shape == "cross":
        near, far = width * 0.34, width * 0.66
        draw.rectangle((near, 0, far, width), fill=255)
        draw.rectangle((0, near, width, far), fill=255)
    else:
        draw.polygon([(x * width, y * width) for x, y in _CORNERS[shape]], fill=255)
    return mask


def _polygon(corners: int, waist: float = 1.0) -> tuple[tuple[float, float], ...]:
    """Corners on the unit square's circle; with a waist < 1 every second one is drawn inwards."""
    points = []
    for index in range(corners):
        radius = 0.5 * (waist if index % 2 else 1.0)
        angle = 2 * math.pi * index / corners - math.pi / 2
        points.append((0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
    return tuple(points)


def _heart() -> tuple[tuple[float, float], ...]:
    points = []
    for angle in np.linspace(0, 2 * math.pi, 48, endpoint=False):
        x = 16 * math.sin(angle) ** 3
        y = sum(a * math.cos(k * angle) for k, a in ((1, 13), (2, -5), (3, -2), (4, -1)))
        points.append((0.5 + x / 34, 0.46 - y / 34))
    return tuple(points)


_CORNERS = {
    "triangle": _polygon(3),
    "star": _polygon(10, waist=0.42),
    "hexagon": _polygon(6),
    "heart": _heart(),
}


def _encode(frames: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> bytes:
    """MP4 bytes, the same on every call."""
    codec, options = _encoder()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=FRAME_RATE))
        stream.width, stream.height, stream.pix_fmt = VIDEO_SIZE, VIDEO_SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = options
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _encoder() -> tuple[str, dict[str, object]]:
    """H.264, which browsers play, where PyAV was built with it; else MPEG-4 part 2."""
    if "libx264" in av.codecs_available:
        # x264's macroblock tree reads memory that it never set when frames are this small: with
        # it, the bytes differ from call to call.
        return "libx264", {"preset": "veryfast", "crf": "20", "bf": "0", "x264-params": "mbtree=0"}
    return "mpeg4", {"b": "400000"}
