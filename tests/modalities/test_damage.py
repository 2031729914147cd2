"""Foreign bytes of every kind: decoded, or refused with a DecodeError, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from multimem_ray.errors import DecodeError
from multimem_ray.modalities import registry
from tests.modalities.media import gradient, image_bytes, ramp, sound_bytes, tone, video_bytes

GOOD = [
    *[("image", image_bytes(gradient(), kind)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")],
    ("image", image_bytes(Image.fromarray(gradient()).convert("CMYK"), "JPEG")),
    *[("audio", sound_bytes(tone(), 8000, kind)) for kind in ("FLAC", "WAV", "OGG", "MP3")],
    ("audio", sound_bytes(tone(), 8000, "WAV", "FLOAT")),
    ("video", video_bytes(ramp(12))),
    ("video", video_bytes(ramp(12), "webm", "libvpx")),
    ("text", "ein Hündchen läuft".encode()),
]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, lost or added, more often near the beginning."""
    raw = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        reach = min(len(raw), 300) if rng.random() < 0.6 else len(raw)
        at = int(rng.integers(max(1, reach)))
        change = rng.integers(4)
        if change == 0:
            raw[at : at + 1] = rng.bytes(1)
        elif change == 1:
            raw[at : at + 4] = b"\xff\xff\xff\xff"
        elif change == 2:
            del raw[at : at + int(rng.integers(1, 40))]
        else:
            raw[at:at] = rng.bytes(int(rng.integers(1, 10)))
    return bytes(raw)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "data"), GOOD, ids=[f"{name}-{index}" for index, (name, _) in enumerate(GOOD)]
)
def test_damaged_bytes(name: str, data: bytes) -> None:
    modality = registry.create(name)
    rng = np.random.default_rng(len(data))
    errors: list[DecodeError] = []
    for _ in range(60):
        try:
            view = modality.view(modality.decode(damaged(data, rng)), rng)
        except DecodeError as error:
            errors.append(error)
        else:
            assert view.shape == modality.spec.shape
            assert str(view.dtype) == modality.spec.dtype
    assert errors
    assert {error.kind for error in errors} <= {"undecodable", "empty", "too_large"}
    assert all(str(error).startswith(f"{name}: ") for error in errors)
