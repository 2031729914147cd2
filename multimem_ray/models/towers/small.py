"""Small towers, one for each kind of array a modality can hand over; they train on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Tower


def _pooled_convolutions(
    shape: tuple[int, int, int], most: tuple[int, int], width: int, depth: int
) -> tuple[nn.Sequential, int]:
    """``depth`` strided 3×3 convolutions, doubling the channels from ``width``; pooled, flattened.

    Args:
        shape: Channels, height and breadth of what comes in.
        most: Height and breadth of the map that it is pooled to, at most.

    Returns:
        (B, *shape) → (B, features), and the number of features.
    """
    previous, *sizes = shape
    layers: list[nn.Module] = []
    for level in range(depth):
        layers += [nn.Conv2d(previous, width << level, 3, 2, 1), nn.GELU()]
        previous = width << level
    halved = (math.ceil(size / (1 << depth)) for size in sizes)
    height, breadth = (min(limit, size) for limit, size in zip(most, halved, strict=True))
    layers += [nn.AdaptiveAvgPool2d((height, breadth)), nn.Flatten()]
    return nn.Sequential(*layers), previous * height * breadth


class ImageTower(Tower):
    """Three strided convolutions and a projection, for (C, H, W) arrays.

    The feature map is pooled to at most 4 × 4 and flattened: place matters in small pictures.
    """

    def __init__(self, spec: Spec, dim: int, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        channels, height, breadth = spec.shape
        self.scale = 255.0 if spec.dtype == "uint8" else 1.0
        shape = (channels, height, breadth)
        self.convolutions, flat = _pooled_convolutions(shape, (4, 4), width, depth)
        self.project = nn.Sequential(nn.LayerNorm(flat), nn.Linear(flat, dim))

    def prepare(self, raw: Tensor) -> Tensor:
        scaled = raw.float().div(self.scale).sub_(0.5).mul_(2.0 if self.scale > 1 else 1.0)
        return scaled.contiguous(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(self.convolutions(features))
        return projected


class SeriesTower(Tower):
    """Log-mel spectrogram and convolutions over time and frequency, for (C, T) or (T,) arrays.

    The mel scale is that of ``sample_rate``; a series without one is taken to be at 8 kHz. What is
    no sound is better off with the kind ``signal``, which is its default.
    """

    def __init__(
        self, spec: Spec, dim: int, width: int = 16, depth: int = 3, mels: int = 32
    ) -> None:
        super().__init__()
        channels, length = spec.shape if len(spec.shape) == 2 else (1, spec.shape[0])
        rate = spec.sample_rate or 8000
        window = min(
            1 << max(4, round(math.log2(rate * 0.032))), 1 << int(math.log2(max(length, 16)))
        )
        hop = max(1, window // 2)
        mels = min(mels, window // 4)
        self.scale = 32768.0 if spec.dtype == "int16" else 1.0
        self.spectrogram = MelSpectrogram(
            sample_rate=rate, n_fft=window, hop_length=hop, n_mels=mels, f_min=0.0, norm=None
        )
        frames = length // hop + 1
        shape = (channels, mels, frames)
        self.convolutions, flat = _pooled_convolutions(shape, (4, 8), width, depth)
        self.project = nn.Sequential(nn.LayerNorm(flat), nn.Linear(flat, dim))

    def prepare(self, raw: Tensor) -> Tensor:
        wave = raw.float().div(self.scale)
        if wave.dim() == 2:
            wave = wave.unsqueeze(1)
        power: Tensor = self.spectrogram(wave)
        # 1e-6 is about the quantisation noise of 16-bit sound; the affine part centres speech.
        features = power.add_(1e-6).log_().mul_(0.2).add_(0.5)
        return features.contiguous(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(self.convolutions(features))
        return projected


class FramesTower(Tower):
    """Convolutions on every frame, one over time, mean over time, for (T, C, H, W) arrays."""

    def __init__(self, spec: Spec, dim: int, width: int = 12, depth: int = 3) -> None:
        super().__init__()
        self.frames, channels, height, breadth = spec.shape
        self.scale = 255.0 if spec.dtype == "uint8" else 1.0
        shape = (channels, height, breadth)
        self.convolutions, flat = _pooled_convolutions(shape, (4, 4), width, depth)
        self.reduce = nn.Sequential(nn.LayerNorm(flat), nn.Linear(flat, 4 * width), nn.GELU())
        self.temporal = nn.Conv1d(4 * width, 4 * width, 3, padding=1)
        self.project = nn.Sequential(nn.GELU(), nn.Linear(4 * width, dim))

    def prepare(self, raw: Tensor) -> Tensor:
        scaled = raw.flatten(0, 1).float().div(self.scale).sub_(0.5)
        if self.scale > 1:
            scaled.mul_(2.0)
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        return scaled.view(-1, self.frames, *scaled.shape[1:])

    def forward(self, features: Tensor) -> Tensor:
        maps: Tensor = self.convolutions(features.flatten(0, 1))
        each: Tensor = self.reduce(maps).unflatten(0, (-1, self.frames))
        moved: Tensor = self.temporal(each.transpose(1, 2))
        projected: Tensor = self.project(moved.mean(2))
        return projected


class TokensTower(Tower):
    """Token and position embeddings, one convolution for local order, mean over the tokens."""

    def __init__(self, spec: Spec, dim: int, width: int = 64) -> None:
        super().__init__()
        if spec.vocab is None:
            raise ConfigError("a modality of kind 'tokens' must say its vocabulary (Spec.vocab)")
        self.token = nn.Embedding(spec.vocab, width, padding_idx=0)
        self.position = nn.Parameter(torch.randn(spec.shape[0], width) * 0.1)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        nn.init.normal_(self.token.weight, std=0.5)

    def prepare(self, raw: Tensor) -> Tensor:
        return raw.long()

    def forward(self, features: Tensor) -> Tensor:
        mask = (features != 0).unsqueeze(-1).float()
        embedded = (self.token(features) + self.position) * mask
        mixed = embedded + nn.functional.gelu(self.mix(embedded.transpose(1, 2)).transpose(1, 2))
        pooled = (mixed * mask).sum(1) / mask.sum(1).clamp_min(1.0)
        projected: Tensor = self.project(pooled)
        return projected
