"""CLAP's mel spectrograms, in torch and on whole batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchaudio.transforms import Spectrogram


def known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes CLAP's spectrogram, and what fills short sound up."""
    names = {
        "feature_size",
        "sampling_rate",
        "hop_length",
        "max_length_s",
        "fft_window_size",
        "frequency_min",
        "frequency_max",
        "truncation",
        "padding",
    }
    return {name: value for name, value in settings.items() if name in names}


class ClapMel:
    """CLAP's log-mel spectrogram of a batch, after its feature extractor.

    Args:
        extractor: A ClapFeatureExtractor; its filters are used.
        fusion: The model takes four spectrograms; all are that of the whole, as for short sound.
    """

    def __init__(self, extractor: Any, *, fusion: bool) -> None:
        fused = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.filters = torch.as_tensor(filters, dtype=torch.float32)
        self.power = Spectrogram(
            extractor.fft_window_size, hop_length=extractor.hop_length, power=2.0
        )
        self.copies = 4 if fusion else 1

    def __call__(self, wave: Tensor) -> Tensor:
        """(N, T) → decibels (N, copies, frames, mels)."""
        power: Tensor = self.power.to(wave.device)(wave)
        mel = power.transpose(1, 2) @ self.filters.to(wave.device)
        decibels = mel.clamp_min(1e-10).log().mul(10 / math.log(10))
        return decibels.unsqueeze(1).expand(-1, self.copies, -1, -1)
