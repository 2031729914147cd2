"""The audio tower of AudioCLIP: a ResNeXt on a log-power spectrogram.

After ESResNeXt (Guzhov et al. 2021, arXiv 2104.11587) as AudioCLIP (arXiv 2106.13043) uses it:
Blackman-Harris window of 1654 values in a transform of 2048, hop 561, at 44.1 kHz; the
frequencies cut into three bands, low to high, which take the place of a picture's three colours.
Left out are its learnable (fbsp) transform and its attention branches; the network is
torchvision's.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn
from torchaudio.transforms import Spectrogram

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Tower, require

_BANDS = 3
_FLOOR = 1e-10
# Coefficients of the 4-term window of Harris 1978.
_BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)


def blackman_harris(length: int) -> Tensor:
    """The periodic window (length,)."""
    at = torch.arange(length) * (2 * torch.pi / length)
    terms = [(-1) ** k * a * torch.cos(k * at) for k, a in enumerate(_BLACKMAN_HARRIS)]
    return torch.stack(terms).sum(0)


class EsresnextTower(Tower):
    """Spectrogram in three bands and a torchvision ResNeXt, for (T,) arrays of sound.

    Args:
        arch: Network in ``torchvision.models``, of the ResNet family.
        n_fft: Length of the transform, values.
        win_length: Length of the window, values.
        hop_length: From one window to the next, values.
    """

    def __init__(
        self,
        spec: Spec,
        dim: int,
        arch: str = "resnext50_32x4d",
        n_fft: int = 2048,
        win_length: int = 1654,
        hop_length: int = 561,
    ) -> None:
        super().__init__()
        require(spec, "series", "esresnext")
        known = [n for n in torchvision.models.list_models(torchvision.models) if "res" in n]
        if arch not in known:
            raise ConfigError(f"torchvision.models has no ResNet '{arch}'{nearest(arch, known)}")
        self.scale = 32768.0 if spec.dtype == "int16" else 1.0
        self.spectrogram = Spectrogram(
            n_fft, win_length, hop_length, window_fn=blackman_harris, power=2.0, normalized=True
        )
        # The window follows from the settings: no part of a checkpoint.
        self.spectrogram.register_buffer("window", self.spectrogram.window, persistent=False)
        self.network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=dim)

    def prepare(self, raw: Tensor) -> Tensor:
        """Decibels of power, (N, 3, frequencies of a band, windows)."""
        power: Tensor = self.spectrogram(raw.float().div(self.scale))
        height = power.shape[-2] // _BANDS
        bands = power[:, : height * _BANDS].reshape(len(raw), _BANDS, height, -1)
        features = bands.clamp_min(_FLOOR).log10_().mul_(10.0)
        return features.contiguous(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.network(features)
        return embedded
