"""What an actor gives back."""

from __future__ import annotations

import platform

import numpy as np
import psutil
import pytest

from multimem_ray.distributed.memory import trim_heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_free_memory_is_given_back() -> None:
    me = psutil.Process()
    # Pieces that are too small for pages of their own; the last one keeps the rest from the end.
    pieces = [np.ones(8_000) for _ in range(2_000)]
    last = pieces[-1]
    del pieces
    held = me.memory_full_info().uss
    trim_heap()
    assert held - me.memory_full_info().uss > 50e6
    assert last.sum() == 8_000
