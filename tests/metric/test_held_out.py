"""Held-out means: counted per modality, mergeable, without the sample itself where asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from multimem_ray.errors import HeldOutError
from multimem_ray.metric import MeanAccumulator, agreement, cmc
from tests.metric import naive
from tests.metric.naive import World, unit, worlds

NAMES = ("audio", "image", "text")
many = settings(deadline=None, max_examples=40)


def accumulate(world: World) -> MeanAccumulator:
    n, dim = world.held_out.shape[2:]
    accumulator = MeanAccumulator([str(k) for k in range(n)], dim)
    accumulator.add(*world.held_tensors())
    return accumulator


@many
@given(worlds())
def test_means_run_over_the_samples_that_have_the_modality(world: World) -> None:
    means = accumulate(world).means()
    assert means.dtype == torch.float64
    for k in range(means.shape[0]):
        having = world.held_out[:, world.held_present[:, k], k]
        np.testing.assert_allclose(means[k].numpy(), having.mean(axis=(0, 1)), atol=1e-12)


@many
@given(worlds())
def test_adding_one_by_one_and_merging_is_the_same(world: World) -> None:
    whole = accumulate(world)
    embeddings, present = world.held_tensors()
    merged = MeanAccumulator(whole.names, whole.sums.shape[1])
    for h in reversed(range(present.shape[0])):
        one = MeanAccumulator(whole.names, whole.sums.shape[1])
        one.add(embeddings[:, [h]], present[[h]])
        merged.merge(MeanAccumulator.from_state(one.names, one.state()))
    torch.testing.assert_close(merged.means(), whole.means(), rtol=0, atol=1e-12)
    assert merged.counts.tolist() == world.held_present.sum(axis=0).tolist()


def test_a_sample_weighs_the_same_whatever_its_views() -> None:
    accumulator = MeanAccumulator(["a"], 2)
    present = torch.ones(1, 1, dtype=torch.bool)
    accumulator.add(torch.tensor([1.0, 0.0]).expand(3, 1, 1, 2), present)
    accumulator.add(torch.tensor([0.0, 1.0]).expand(1, 1, 1, 2), present)
    assert accumulator.means().tolist() == [[0.5, 0.5]]


@many
@given(worlds(complete=True))
def test_leave_one_out_is_the_double_sum_without_the_sample(world: World) -> None:
    held = world.held_out.shape[1]
    if held < 2:
        return
    of_itself = World(world.held_out, world.held_present, world.held_out, world.held_present)
    embeddings, present = of_itself.tensors()
    others = accumulate(world).leave_one_out(embeddings, present)
    found = cmc(agreement(embeddings, present, others), present)
    expected = [naive.cmc(of_itself, h, skip=h) for h in range(held)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_leave_one_out_of_incomplete_samples() -> None:
    rng = np.random.default_rng(3)
    embeddings = torch.from_numpy(unit(rng, 2, 3, 3, 4))
    present = torch.tensor([[True, True, False], [True, True, False], [True, False, True]])
    accumulator = MeanAccumulator(NAMES, 4)
    accumulator.add(embeddings, present)
    others = accumulator.leave_one_out(embeddings[:, :2], present[:2])
    torch.testing.assert_close(others[0, 0], embeddings[:, 1:, 0].mean(dim=(0, 1)))
    torch.testing.assert_close(others[0, 1], embeddings[:, 1, 1].mean(dim=0))
    assert (others[:, 2] == 0).all()
    with pytest.raises(HeldOutError, match="text: 1"):
        accumulator.leave_one_out(embeddings, present)


def test_a_modality_without_held_out_samples_is_named() -> None:
    accumulator = MeanAccumulator(NAMES, 4)
    with pytest.raises(HeldOutError, match="audio: 0, image: 0, text: 0"):
        accumulator.means()
    accumulator.add(torch.zeros(1, 2, 3, 4), torch.tensor([[True, False, True]] * 2))
    with pytest.raises(HeldOutError, match=r"image: 0; raise held_out\.fraction"):
        accumulator.means()


def test_a_diverged_model_is_named() -> None:
    accumulator = MeanAccumulator(NAMES, 4)
    embeddings = torch.zeros(1, 2, 3, 4)
    embeddings[0, 1, 1, 2] = torch.nan
    accumulator.add(embeddings, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(HeldOutError, match=r"not finite for image: .*training\.lr"):
        accumulator.means()


def test_what_does_not_fit_is_refused() -> None:
    accumulator = MeanAccumulator(NAMES, 4)
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(3, 4\)"):
        accumulator.add(torch.zeros(1, 2, 3, 5), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="cannot merge"):
        accumulator.merge(MeanAccumulator(("audio", "image", "video"), 4))
    with pytest.raises(HeldOutError, match="audio, image: compute"):
        MeanAccumulator.from_state(("audio", "image"), accumulator.state())


def test_state_is_a_copy() -> None:
    accumulator = MeanAccumulator(NAMES, 4)
    stored = accumulator.state()
    accumulator.add(torch.ones(1, 1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    rebuilt = MeanAccumulator.from_state(NAMES, stored)
    assert rebuilt.counts.tolist() == [0, 0, 0]
    rebuilt.add(torch.ones(1, 1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    assert stored["counts"].tolist() == [0, 0, 0]
