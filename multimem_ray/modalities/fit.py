"""How a picture comes to the size that a model takes, as the model's own library does it.

Embeddings are very sensitive to it: a bilinear for a bicubic kernel, or a crop before and not
behind the resizing, moves them by more than many scores are apart. So the four orders that
open_clip and transformers have are repeated here to the pixel, out of Pillow's resampling.
"""

from __future__ import annotations

from typing import Annotated, Literal

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

_KERNELS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Level = Annotated[int, Field(ge=0, le=255)]

# Area of the whole picture after resizing, in areas of a view, up to which it is resized whole.
_LARGEST = 16


class Fit(BaseModel):
    """From an upright picture to a square one; a model's adapter gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Literal["shortest", "longest", "squash", "none"] = Field(
        "shortest",
        description="to `edge`: the shorter side, of which the middle is cut out; the longer, "
        "laid on `fill`; both, without their proportions; none = only cut out",
    )
    kernel: Literal["bilinear", "bicubic", "lanczos"] = Field(
        "bicubic", description="filter of the resizing"
    )
    edge: int | None = Field(
        None, ge=1, le=4096, description="side after resizing, pixels; default that of a view"
    )
    fill: Level | tuple[Level, Level, Level] = Field(
        0, description="level, or red, green and blue, of what lies beside the picture"
    )
    half: Literal["even", "down"] = Field(
        "even", description="half a pixel beside what is cut out: to the even number, or down"
    )


def fitted(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """The picture at (size, size), RGB.

    Args:
        picture: RGB, upright.
        size: Side of a view, pixels.
        fit: What the library does.
    """
    width, height = picture.size
    resized = _resized((width, height), fit.edge or size, fit.resize)
    shown = min(size, resized[0]), min(size, resized[1])
    left, top = (_middle(side - part, fit.half) for side, part in zip(resized, shown, strict=True))
    kernel = _KERNELS[fit.kernel]
    if resized[0] * resized[1] <= _LARGEST * size**2:
        corners = (left, top, left + shown[0], top + shown[1])
        seen = picture.resize(resized, kernel).crop(corners)
    else:
        # A line of a million pixels would become an enormous area: only what is seen is resized.
        # Not always, for Pillow then passes in another order, and levels differ by a few.
        across, down = width / resized[0], height / resized[1]
        right = min(width, (left + shown[0]) * across)
        bottom = min(height, (top + shown[1]) * down)
        seen = picture.resize(shown, kernel, box=(left * across, top * down, right, bottom))
    lacking = size - shown[0], size - shown[1]
    if not any(lacking):
        return seen
    before = lacking[0] // 2, lacking[1] // 2
    border = (*before, lacking[0] - before[0], lacking[1] - before[1])
    fill = (fit.fill,) * 3 if isinstance(fit.fill, int) else fit.fill
    return ImageOps.expand(seen, border, fill)


def _resized(sides: tuple[int, int], edge: int, how: str) -> tuple[int, int]:
    """Sides (width, height) of the whole picture after resizing."""
    width, height = sides
    if how == "squash":
        return edge, edge
    if how == "longest":
        ratio = max(height / edge, width / edge)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if how == "shortest":
        longer = int(edge * max(sides) / min(sides))
        return (edge, longer) if width <= height else (longer, edge)
    return sides


def _middle(left_over: int, half: str) -> int:
    return round(left_over / 2) if half == "even" else left_over // 2
