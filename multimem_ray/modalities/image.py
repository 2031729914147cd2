"""Images: JPEG, PNG, WebP, AVIF, TIFF, GIF and BMP, as uint8 RGB.

Decoded to the centre square of the picture, at most ``oversize`` times the size of a view, so that
a view has room to crop. Pillow does it all: for a JPEG its draft mode leaves out the resolution
that nobody will see, which makes it faster than decoders without it. Formats are a closed list:
Pillow's others include one that runs an interpreter.
"""

from __future__ import annotations

import io
import math
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities import png
from multimem_ray.modalities.base import (
    Array,
    Modality,
    ModalitySettings,
    Spec,
    as_bytes,
    too_large,
    undecodable,
)
from multimem_ray.modalities.fit import Fit, fitted
from multimem_ray.modalities.formats import but
from multimem_ray.modalities.registry import register
from multimem_ray.modalities.resizing import resized

if TYPE_CHECKING:
    from torch import Tensor

    from multimem_ray.modalities.batch import Stacked
    from multimem_ray.modalities.draws import Draws

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP")
_ORIENTATION = 0x0112
_SAYING = frozenset({"exif", "xmp", "XML:", "Raw "})  # how entries that may tell it begin
# EXIF orientation: what turns the stored picture upright (EXIF 2.32, 4.6.4).
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error)
_AVERAGED = frozenset({"RGB", "L", "CMYK"})
_LUMA = 0.299, 0.587, 0.114


class ImageSettings(ModalitySettings):
    """Size and views of images."""

    size: int = Field(32, ge=4, le=2048, description="height and width of a view, pixels")
    oversize: float = Field(
        1.25, ge=1, le=4, description="side of the decoded picture over that of a view"
    )
    crop_scale: float = Field(
        0.8, gt=0, le=1, description="smallest share of the area a view shows; 1 = no crop"
    )
    brightness: float = Field(0.2, ge=0, le=1, description="largest relative change; 0 = none")
    contrast: float = Field(0.2, ge=0, le=1, description="largest relative change; 0 = none")
    saturation: float = Field(0.0, ge=0, le=1, description="largest relative change; 0 = none")
    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of views that are mirrored; 0 = none, for left is not right",
    )
    fit: Fit | None = Field(
        None,
        description="how a picture comes to the size of a view, exactly as a model's own library "
        "does it: given by adapters; `oversize` then means nothing; default the centre square",
    )
    max_pixels: int = Field(
        64_000_000, ge=1, le=178_000_000, description="largest picture that is decoded, pixels"
    )


@register
class Image(Modality):
    """RGB pictures; views (3, size, size) of uint8, decoded (D, D, 3) of uint8."""

    name = "image"
    extensions = ("jpg", "jpeg", "png", "webp", "avif", "tif", "tiff", "gif", "bmp")
    Settings = ImageSettings
    settings: ImageSettings

    @property
    def spec(self) -> Spec:
        """Kind ``image``, uint8 (3, size, size)."""
        return Spec("image", (3, self.settings.size, self.settings.size), "uint8")

    def decode(self, data: object) -> Array:
        """Upright centre square, uint8 (D, D, 3): D = ceil(size · oversize), less if it is smaller.

        With ``fit``, what that makes of the picture, and D = size.

        Alpha is laid on white, 16 bits are cut to 8, of an animation the first frame is taken.

        Raises:
            DecodeError: Broken, cut short, of another format, or above ``max_pixels``.
        """
        raw = as_bytes(data, self.name)
        try:
            try:
                return self._opened(raw)
            except ValueError as error:
                if "MAX_TEXT" not in str(error) or not raw.startswith(png.MAGIC):
                    raise
                return self._opened(png.without_text(raw))
        except Pillow.DecompressionBombError as error:
            raise self._bomb(str(error)) from error
        except UnidentifiedImageError as error:
            raise undecodable(self.name, f"none of {', '.join(FORMATS)}{but(raw)}") from error
        except DecodeError:
            raise
        except _PILLOW_ERRORS as error:
            raise undecodable(self.name, error) from error

    def views(self, decoded: Stacked, draws: Draws | None) -> Tensor:
        """Random resized crops, mirrored, in other colours; clean: the whole square."""
        import torch

        settings, side = self.settings, decoded.shapes[:, :1]
        if draws is None or settings.strength == 0:
            count = 1 if draws is None else len(draws.views)
            whole = torch.stack([torch.zeros_like(side), torch.zeros_like(side), side], dim=2)
            return resized(decoded.values, whole, settings.size).expand(-1, count, -1, -1, -1)
        area, x, y, *colours, flip = draws.uniform(7).unbind(2)
        lost = min(0.99, (1 - settings.crop_scale) * settings.strength)
        width = (side * (1 - area * lost).sqrt()).round().clamp(min=1).long()
        left, top = (((side - width + 1) * share).long() for share in (x, y))
        views = resized(decoded.values, torch.stack([left, top, width], dim=2), settings.size)
        if settings.flip:
            mirrored = flip < settings.flip * min(1.0, settings.strength)
            mirrored = mirrored.to(views.device)[..., None, None, None]
            views = torch.where(mirrored, views.flip(-1), views)
        amounts = settings.brightness, settings.contrast, settings.saturation
        gain, slope, purity = (
            1 + (2 * draw - 1) * amount * settings.strength
            for draw, amount in zip(colours, amounts, strict=True)
        )
        if settings.saturation:
            # Channel after channel in memory: three times as fast as pixel after pixel.
            views = _saturated(views.contiguous(), _per_view(purity.clamp(min=0), views))
        if settings.brightness or settings.contrast:
            slope = slope.clamp(min=0)
            views = _levels(views, _per_view(gain * slope, views), _per_view(slope, views))
        return views

    def _opened(self, raw: bytes) -> Array:
        with Pillow.open(io.BytesIO(raw), formats=FORMATS) as picture:
            if picture.format == "PNG" and raw[24] in (2, 4) and "transparency" in picture.info:
                return self._canonical(_scaled_key(picture, raw[24]))
            return self._canonical(picture)

    def _canonical(self, picture: Pillow.Image) -> Array:
        settings = self.settings
        width, height = picture.size
        if width * height > settings.max_pixels:
            raise self._bomb(f"{width} x {height} pixels")
        most = math.ceil(settings.size * settings.oversize)
        if picture.format == "JPEG" and settings.fit is None:
            picture.draft(None, (most, most))
        whole = _on_paper(picture) if picture.format == "GIF" else _resizable(picture)
        if picture.format == "PNG":
            picture.load()  # it may say behind its pixels how it is turned
        upright = _UPRIGHT.get(_orientation(picture))
        if settings.fit is not None:
            turned = whole if upright is None else whole.transpose(upright)
            return np.array(fitted(_rgb(turned), settings.size, settings.fit))
        width, height = whole.size
        short = min(width, height)
        side = min(short, most)
        left, top = (width - short) / 2, (height - short) / 2
        square = _rgb(_resize(whole, side, (left, top, left + short, top + short)))
        if upright is not None:
            # The centre square is the same before and after turning, and smaller to turn.
            square = square.transpose(upright)
        return np.array(square)

    def _bomb(self, what: str) -> DecodeError:
        return too_large(self.name, what, "max_pixels", self.settings.max_pixels)


def _resize(
    picture: Pillow.Image, side: int, box: tuple[float, float, float, float]
) -> Pillow.Image:
    return picture.resize((side, side), Pillow.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def _per_view(values: Tensor, views: Tensor) -> Tensor:
    """(N, V) numbers of views, to be multiplied with them."""
    return values.float().to(views.device)[..., None, None, None]


# Each operation below rounds by itself: a GPU and a CPU give the same levels. On a CPU, a float
# becomes a byte three times as fast by way of 16 bits.


def _levels(views: Tensor, gain: Tensor, slope: Tensor) -> Tensor:
    """Brightness, then contrast around mid-grey."""
    return views.float().mul_(gain).add_(127.5 - 127.5 * slope).clamp_(0, 255).short().byte()


def _saturated(views: Tensor, purity: Tensor) -> Tensor:
    """Colours drawn away from the grey of their luma (ITU-R BT.601), or towards it."""
    levels = views.float()
    red, green, blue = levels.unbind(-3)
    grey = (red * _LUMA[0]).add_(green * _LUMA[1]).add_(blue * _LUMA[2]).unsqueeze(-3)
    return levels.sub_(grey).mul_(purity).add_(grey).round_().clamp_(0, 255).short().byte()


def _orientation(picture: Pillow.Image) -> int:
    # Pillow turns a TIFF itself.
    if (
        not picture.info
        or picture.format == "TIFF"
        or _SAYING.isdisjoint(name[:4] for name in picture.info)
    ):
        return 1
    try:
        found = picture.getexif().get(_ORIENTATION)
        profiles = [png.profile(picture.info, kind) for kind in ("APP1", "xmp")]
        for content in (*profiles, picture.info.get("xmp")):
            if found is not None or not isinstance(content, bytes):
                continue
            if content.startswith(b"Exif\0\0"):
                exif = Pillow.Exif()
                exif.load(content)
                found = exif.get(_ORIENTATION)
            else:
                found = png.xmp_orientation(content)
        return 1 if found is None else int(found)
    except _PILLOW_ERRORS:
        # A picture with broken metadata is still a picture.
        return 1


def _on_paper(picture: Pillow.Image) -> Pillow.Image:
    """A GIF's first frame on white where it covers a part of the canvas, which Pillow blackens."""
    tiles = getattr(picture, "tile", None)
    whole, box = (0, 0, *picture.size), tuple(tiles[0][1]) if tiles else None
    if box is None or box == whole or picture.has_transparency_data:
        return _resizable(picture)
    paper = Pillow.new("RGB", picture.size, "white")
    paper.paste(picture.convert("RGB").crop(box), box)
    return paper


def _scaled_key(picture: Pillow.Image, bits: int) -> Pillow.Image:
    """With the transparent grey of a PNG of 2 or 4 bits on the scale of its pixels, 8 bits."""
    picture.load()
    if picture.mode == "L" and isinstance(picture.info["transparency"], int):
        picture.info["transparency"] *= 255 // ((1 << bits) - 1)
    return picture


def _resizable(picture: Pillow.Image) -> Pillow.Image:
    """The picture in a mode whose pixels can be averaged; alpha is kept."""
    if picture.mode in ("I", "F") and picture.format == "TIFF":
        raise undecodable("image", "a TIFF of 32 bits has no known white; store 8 or 16 bits")
    if picture.mode.startswith("I"):
        # convert() would clip 16 bits at 255 instead of scaling them.
        values = np.clip(np.asarray(picture), 0, 65535).astype(np.uint16)
        grey = Pillow.fromarray((values >> 8).astype(np.uint8))
        key = picture.info.get("transparency")
        if not isinstance(key, int):
            return grey
        alpha = Pillow.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        return Pillow.merge("LA", (grey, alpha)).convert("RGBA")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode in _AVERAGED else picture.convert("RGB")


def _rgb(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode == "RGBA":
        paper = Pillow.new("RGBA", picture.size, "white")
        picture = Pillow.alpha_composite(paper, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")
