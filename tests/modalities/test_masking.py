"""SpecAugment on the sound itself."""

from __future__ import annotations

import numpy as np
import torch

from multimem_ray.modalities.audio import Audio, AudioSettings
from multimem_ray.modalities.masking import masked
from tests.modalities.media import sound_bytes


def audio(**settings: object) -> Audio:
    return Audio(AudioSettings.model_validate(settings))


def white(seconds: float = 1.0) -> bytes:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(8000 * seconds))
    return sound_bytes(noise.astype(np.float32), subtype="PCM_16")


def test_the_sound_that_is_given_stays_as_it_is() -> None:
    waves, draws = torch.ones(3, 800), torch.rand(3, 4, 2, generator=torch.Generator())
    for shares in ((0.5, 0.0), (0.0, 0.5)):
        assert (masked(waves, 8000, *shares, draws) == 0).any() or shares[1]
        assert waves.min() == 1


def test_masks_in_time_are_silence() -> None:
    modality = audio(shift=0, gain_db=0, noise=False, masks=2, mask_time=0.2)
    decoded = modality.decode(white())
    clean = modality.view(decoded, None)
    silent = []
    for seed in range(30):
        view = modality.view(decoded, np.random.default_rng(seed))
        changed = view != clean
        assert not view[changed].any()
        silent.append(changed.mean())
        assert np.abs(np.diff(changed.astype(int))).sum() <= 4 + 2 * np.sum(clean == 0)
    assert min(silent) > 0
    assert 0.25 < max(silent) <= 0.4


def test_masks_in_frequency_take_bands() -> None:
    modality = audio(shift=0, gain_db=0, noise=False, masks=1, mask_frequency=0.5)
    decoded = modality.decode(white())
    clean = np.abs(np.fft.rfft(modality.view(decoded, None)))
    shares = []
    for seed in range(30):
        power = np.abs(np.fft.rfft(modality.view(decoded, np.random.default_rng(seed))))
        gone = np.flatnonzero((power < 0.02 * clean.mean()) & (clean > 0.1 * clean.mean()))
        kept = np.delete(power, np.arange(gone.min(), gone.max() + 1)) if len(gone) else power
        rest = np.delete(clean, np.arange(gone.min(), gone.max() + 1)) if len(gone) else clean
        np.testing.assert_allclose(kept, rest, atol=0.15 * clean.mean())
        mel = 2595 * np.log10(1 + np.array([gone.min(), gone.max()]) / 700) if len(gone) else [0, 0]
        shares.append((mel[1] - mel[0]) / (2595 * np.log10(1 + 4000 / 700)))
    assert max(shares) <= 0.501
    assert max(shares) > 0.4
    assert min(shares) < 0.1


def test_masks_of_strength_zero_are_none() -> None:
    modality = audio(mask_time=1, mask_frequency=1, strength=0)
    decoded = modality.decode(white(3))
    assert np.array_equal(
        modality.view(decoded, np.random.default_rng(0)), modality.view(decoded, None)
    )
