"""Resampling of one channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.functional

from multimem_ray.modalities.audio import resample


@pytest.mark.parametrize(
    ("source", "target"),
    [(16000, 8000), (44100, 8000), (8000, 16000), (11025, 16000), (48000, 44100)],
)
def test_resampling_equals_torchaudio(source: int, target: int) -> None:
    wave = np.random.default_rng(1).standard_normal(5001).astype(np.float32)
    expected = torchaudio.functional.resample(torch.from_numpy(wave), source, target).numpy()
    np.testing.assert_allclose(resample(wave, source, target), expected, atol=1e-4)
