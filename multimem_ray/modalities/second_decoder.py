"""torchcodec as another decoder of video, where it can be loaded; PyAV is the first.

Both are FFmpeg, and scale differently: pixels differ by a few levels, and with them scores. So one
of them decodes a whole run, and which one stands in its configuration.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Array


@functools.lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Why torchcodec cannot be used here; None if it can."""
    try:
        import torchcodec.decoders
        import torchcodec.transforms  # noqa: F401 - both are needed below
    except Exception as error:  # noqa: BLE001 - it needs FFmpeg's libraries, and fails in many ways
        said = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {said}"
    return None


def require() -> None:
    """Make sure that torchcodec can be used.

    Raises:
        ConfigError: It cannot; says why, and the way out.
    """
    reason = unavailable()
    if reason is not None:
        raise ConfigError(
            f"modalities.video.backend: torchcodec cannot be loaded ({reason}); it needs "
            "pip install 'multimem-ray[torchcodec]' and FFmpeg's shared libraries on every node; "
            "or set backend: pyav"
        )


def squares(raw: bytes, indices: list[int], side: int) -> list[Array]:
    """Upright centre squares (side, side, 3) of the frames at these places in display order.

    Raises:
        RuntimeError: The file is broken, as torchcodec says it.
    """
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    known = VideoDecoder(raw, num_ffmpeg_threads=1).metadata
    width, height = known.width or 1, known.height or 1
    short = min(width, height)
    size = tuple(max(side, round(extent * side / short)) for extent in (height, width))
    decoder: Any = VideoDecoder(
        raw, dimension_order="NHWC", num_ffmpeg_threads=1, transforms=[Resize(size)]
    )
    frames = decoder.get_frames_at(indices).data.numpy()
    top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
    return list(np.ascontiguousarray(frames[:, top : top + side, left : left + side]))
