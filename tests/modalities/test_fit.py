"""Pictures at the size of a model, to the pixel as torchvision and transformers make them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from multimem_ray.modalities.fit import Fit, fitted
from multimem_ray.modalities.image import Image as Pictures
from multimem_ray.modalities.image import ImageSettings
from tests.models.adapters.originals import pictures, png

KERNELS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "lanczos": InterpolationMode.LANCZOS,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("edge", [25, 32, 37])
def test_the_shorter_side_then_the_middle(kernel: str, edge: int) -> None:
    theirs = Compose([Resize(edge, KERNELS[kernel]), CenterCrop(32)])
    fit = Fit.model_validate({"kernel": kernel, "edge": edge})
    for picture in pictures():
        assert np.array_equal(np.asarray(fitted(picture, 32, fit)), np.asarray(theirs(picture)))


def test_of_a_very_long_picture_only_the_middle_is_resized() -> None:
    theirs = Compose([Resize(32, KERNELS["bicubic"]), CenterCrop(32)])
    rng = np.random.default_rng(0)
    for shape in ((40, 1603, 3), (1803, 43, 3)):
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        difference = np.asarray(fitted(picture, 32, Fit())) - np.asarray(theirs(picture), dtype=int)
        assert np.abs(difference).mean() < 0.5


def test_a_line_is_no_enormous_area() -> None:
    line = Image.new("RGB", (1, 1_000_000), (9, 200, 30))
    for how in ("shortest", "longest", "squash", "none"):
        made = fitted(line, 32, Fit.model_validate({"resize": how, "fill": 5}))
        assert made.size == (32, 32)
        assert made.getpixel((16, 16)) == (9, 200, 30) or how != "squash"


def test_a_clean_view_is_the_fitted_picture() -> None:
    modality = Pictures(ImageSettings(size=32, fit=Fit(resize="longest", fill=7)))
    for picture in pictures():
        decoded = modality.decode(png(picture))
        assert np.array_equal(
            decoded, np.asarray(fitted(picture, 32, Fit(resize="longest", fill=7)))
        )
        assert np.array_equal(modality.view(decoded, None), decoded.transpose(2, 0, 1))
        assert modality.view(decoded, np.random.default_rng(0)).shape == (3, 32, 32)


def test_a_picture_is_upright_before_it_is_cut() -> None:
    import io

    wide = pictures()[0].resize((90, 40))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    wide.save(buffer, "PNG", exif=exif)
    modality = Pictures(ImageSettings(size=32, fit=Fit()))
    turned = wide.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(modality.decode(buffer.getvalue()), np.asarray(fitted(turned, 32, Fit())))
