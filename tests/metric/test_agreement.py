"""Agreement: exactness, absent modalities, independence of batches and precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.metric import MeanAccumulator, agreement, cmc
from tests.metric.naive import World, unit, worlds


def means_of(world: World) -> torch.Tensor:
    n, dim = world.held_out.shape[2:]
    accumulator = MeanAccumulator([str(k) for k in range(n)], dim)
    accumulator.add(*world.held_tensors())
    return accumulator.means()


@settings(deadline=None, max_examples=60)
@given(worlds())
def test_entries_are_the_expectations_they_stand_for(world: World) -> None:
    means = means_of(world)
    result = agreement(*world.tensors(), means)
    views, samples, n, _ = world.samples.shape
    for i in range(samples):
        for j in range(n):
            for k in range(n):
                if not (world.present[i, j] and world.present[i, k]):
                    assert result.alignment[i, j, k] == 0
                    assert result.uniformity[i, j, k] == 0
                    continue
                align = np.mean(
                    [world.samples[v, i, j] @ world.samples[v, i, k] for v in range(views)]
                )
                uniform = np.mean([world.samples[v, i, j] @ means[k].numpy() for v in range(views)])
                assert float(result.alignment[i, j, k]) == pytest.approx(align, abs=1e-12)
                assert float(result.uniformity[i, j, k]) == pytest.approx(uniform, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(worlds(), st.integers(1, 4), st.permutations(range(4)))
def test_independent_of_batches_and_order(world: World, size: int, order: list[int]) -> None:
    embeddings, present = world.tensors()
    means = means_of(world)
    whole = cmc(agreement(embeddings, present, means), present)
    rows = torch.tensor([i for i in order if i < len(present)])
    for chunk in rows.split(size):
        part = cmc(agreement(embeddings[:, chunk], present[chunk], means), present[chunk])
        torch.testing.assert_close(part, whole[chunk], rtol=0, atol=1e-12)


@given(worlds())
@settings(deadline=None, max_examples=30)
def test_order_of_modalities_only_permutes(world: World) -> None:
    embeddings, present = world.tensors()
    means = means_of(world)
    back = list(reversed(range(present.shape[1])))
    straight = agreement(embeddings, present, means)
    turned = agreement(embeddings[:, :, back], present[:, back], means[back])
    torch.testing.assert_close(turned.alignment, straight.alignment[:, back][:, :, back])
    torch.testing.assert_close(turned.uniformity, straight.uniformity[:, back][:, :, back])


def test_means_of_its_own_for_each_sample() -> None:
    rng = np.random.default_rng(0)
    embeddings = torch.from_numpy(unit(rng, 2, 3, 2, 5))
    present = torch.ones(3, 2, dtype=torch.bool)
    means = torch.from_numpy(rng.normal(size=(3, 2, 5)))
    together = agreement(embeddings, present, means)
    for i in range(3):
        alone = agreement(embeddings[:, [i]], present[[i]], means[i])
        torch.testing.assert_close(together.uniformity[[i]], alone.uniformity)


def test_half_precision_embeddings_are_summed_in_float64() -> None:
    vector = torch.full((1, 1, 1, 4096), 1 / 64, dtype=torch.float16)
    result = agreement(vector, torch.ones(1, 1, dtype=torch.bool), vector[0, 0])
    assert result.alignment.dtype == torch.float64
    assert float(result.alignment) == 1.0
    assert float(result.uniformity) == 1.0


def test_an_empty_batch_is_no_error() -> None:
    result = agreement(
        torch.zeros(2, 0, 3, 4), torch.zeros(0, 3, dtype=torch.bool), torch.zeros(3, 4)
    )
    assert result.alignment.shape == result.uniformity.shape == (0, 3, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_even_with_reduced_precision_products() -> None:
    rng = np.random.default_rng(1)
    embeddings = torch.from_numpy(unit(rng, 3, 8, 4, 256)).float()
    present = torch.from_numpy(rng.random((8, 4)) < 0.8)
    means = torch.from_numpy(rng.normal(size=(4, 256)))
    expected = cmc(agreement(embeddings, present, means), present)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        gpu = agreement(embeddings.cuda(), present.cuda(), means)
        found = cmc(gpu, present.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "present", "means", "said"),
    [
        (torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(3, 4), "views, samples"),
        (torch.zeros(0, 2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(3, 4), "at least one view"),
        (torch.zeros(1, 2, 3, 4), torch.ones(2, 3), torch.zeros(3, 4), "torch.bool"),
        (torch.zeros(1, 2, 3, 4), torch.ones(3, 3).bool(), torch.zeros(3, 4), r"\(2, 3\)"),
        (torch.zeros(1, 2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(4), r"\(3, 4\)"),
        (torch.zeros(1, 2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(3, 5), r"\(3, 4\)"),
    ],
)
def test_wrong_shapes_are_named(
    embeddings: torch.Tensor, present: torch.Tensor, means: torch.Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        agreement(embeddings, present, means)
