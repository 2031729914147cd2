"""Noise on representations: its size, its seed, and whom it is for."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.models.noise import add_noise, unit_noise
from tests.models.test_loss import vectors

CPU = torch.device("cpu")


@pytest.mark.parametrize("dim", [8, 64, 1024])
def test_its_norm_is_the_amount_whatever_the_dimension(dim: int) -> None:
    norms = unit_noise(4000, dim, 1, CPU).square().sum(dim=1)
    assert norms.mean().item() == pytest.approx(1.0, abs=0.05)
    before = vectors(2000, 3, dim)
    after = add_noise(before, unit_noise(2000, dim, 2, CPU), 0.1)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(2000))
    # Across the vector goes (dim - 1) / dim of it.
    turned = (1 - (before * after).sum(dim=1)).mean().item()
    assert turned == pytest.approx(0.1**2 / 2 * (dim - 1) / dim, rel=0.1)


def test_it_is_a_function_of_the_seed() -> None:
    assert torch.equal(unit_noise(5, 8, 7, CPU), unit_noise(5, 8, 7, CPU))
    assert not torch.equal(unit_noise(5, 8, 7, CPU), unit_noise(5, 8, 8, CPU))
    assert torch.isfinite(unit_noise(5, 8, (1 << 64) - 1, CPU)).all()


def test_only_the_chosen_rows_get_it() -> None:
    before, noise = vectors(6, 0), unit_noise(6, 8, 5, CPU)
    chosen = torch.tensor([True, False, False, True, False, True])
    after = add_noise(before, noise, 0.3, chosen)
    assert torch.equal(after[~chosen], before[~chosen])
    assert torch.equal(after[chosen], add_noise(before, noise, 0.3)[chosen])
    assert not torch.isclose(after[chosen], before[chosen]).all(dim=1).any()


def test_gradients_go_through_it() -> None:
    before = vectors(3, 0).double().requires_grad_()
    noise = unit_noise(3, 8, 0, CPU).double()
    assert torch.autograd.gradcheck(lambda x: add_noise(x, noise, 0.2), [before])
