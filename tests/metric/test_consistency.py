"""CMC against the double sum over H, and the identities that follow from its definition."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.metric import (
    Agreement,
    agreement,
    attribution,
    clipmem_alignment,
    cmc,
    normalized,
    pair_cmc,
    terms,
)
from tests.metric import naive
from tests.metric.naive import World, worlds
from tests.metric.test_agreement import means_of

many = settings(deadline=None, max_examples=60)


def agreed(world: World) -> tuple[Agreement, torch.Tensor]:
    embeddings, present = world.tensors()
    return agreement(embeddings, present, means_of(world)), present


def close(found: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10, equal_nan=True
    )


@many
@given(worlds())
def test_cmc_is_the_naive_double_sum(world: World) -> None:
    parts, present = agreed(world)
    close(cmc(parts, present), [naive.cmc(world, i) for i in range(len(present))])


@many
@given(worlds(complete=True))
def test_cmc_is_the_matrix_formula_of_the_paper(world: World) -> None:
    parts, present = agreed(world)
    close(cmc(parts, present), [naive.matrix_cmc(world, i) for i in range(len(present))])


@many
@given(worlds(complete=True))
def test_norm_identity(world: World) -> None:
    """CMC = ½ E‖s_i‖² - ½ E[s_i]·m_H with the modality sum s and m_H = E_h[s_h]."""
    parts, present = agreed(world)
    sums = world.samples.sum(axis=2)
    m_h = world.held_out.sum(axis=2).mean(axis=(0, 1))
    close(
        cmc(parts, present),
        (sums**2).sum(axis=2).mean(axis=0) / 2 - sums.mean(axis=0) @ m_h / 2,
    )


@many
@given(worlds())
def test_bounds(world: World) -> None:
    parts, present = agreed(world)
    top = present.sum(dim=1).double() ** 2 / 2 + 1e-9
    alignment = parts.alignment.sum(dim=(1, 2)) / 2
    uniformity = parts.uniformity.sum(dim=(1, 2)) / 2
    assert (alignment >= -1e-9).all()
    assert (alignment <= top).all()
    assert (uniformity.abs() <= top).all()


def test_bounds_are_reached() -> None:
    same = torch.tensor([1.0, 0.0]).expand(1, 1, 4, 2)
    opposed = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]]])
    present = torch.ones(1, 4, dtype=torch.bool)
    assert float(cmc(agreement(same, present, -same[0, 0]), present)) == 16.0
    assert float(cmc(agreement(same, present, same[0, 0]), present)) == 0.0
    assert float(cmc(agreement(opposed, present, torch.zeros(4, 2)), present)) == 0.0


@many
@given(worlds())
def test_terms_sum_to_cmc(world: World) -> None:
    parts, present = agreed(world)
    split = terms(parts, present)
    total = present.sum(dim=1) / 2 + split.pair.sum(dim=(1, 2)) + split.own.sum(dim=1)
    close(total, cmc(parts, present))
    assert (split.pair.tril() == 0).all()
    assert (split.own[~present] == 0).all()


@many
@given(worlds(complete=True))
def test_terms_are_cosines_and_uniformities(world: World) -> None:
    """n/2 + Σ_{j<k} cos(j, k) - ½ Σ_{j,k} E_h[φ_j(i)·φ_k(h)], term by term."""
    parts, present = agreed(world)
    split = terms(parts, present)
    own = world.samples.mean(axis=0)
    means = world.held_out.mean(axis=(0, 1))
    for j, k in combinations(range(present.shape[1]), 2):
        cosine = (world.samples[:, :, j] * world.samples[:, :, k]).sum(axis=2).mean(axis=0)
        cross = own[:, j] @ means[k] + own[:, k] @ means[j]
        close(split.pair[:, j, k], cosine - cross / 2)
    close(split.own, -np.einsum("bnd,nd->bn", own, means) / 2)


@many
@given(worlds())
def test_pair_cmc_is_cmc_restricted_to_two_modalities(world: World) -> None:
    parts, present = agreed(world)
    pairs = pair_cmc(parts, present)
    for i in range(len(present)):
        for j in range(present.shape[1]):
            for k in range(present.shape[1]):
                if j == k or not (present[i, j] and present[i, k]):
                    assert pairs[i, j, k].isnan()
                else:
                    close(pairs[i, j, k], naive.cmc(world, i, only={j, k}))


@many
@given(worlds(modalities=2, complete=True))
def test_two_modalities_are_their_only_pair(world: World) -> None:
    parts, present = agreed(world)
    value = cmc(parts, present)
    close(pair_cmc(parts, present)[:, 0, 1], value)
    close(normalized(value, present.sum(dim=1)), value)


@many
@given(worlds())
def test_sum_of_the_pairs(world: World) -> None:
    """Σ_{j<k} CMC_jk = CMC + (n - 2) Σ_j CMC_j: each modality stands in n - 1 pairs."""
    parts, present = agreed(world)
    pairs = pair_cmc(parts, present).triu(diagonal=1).nan_to_num(0.0).sum(dim=(1, 2))
    gap = (parts.alignment - parts.uniformity).diagonal(dim1=1, dim2=2)
    n = present.sum(dim=1)
    close(pairs.where(n >= 2, 0.0), (cmc(parts, present) + (n - 2) * gap.sum(dim=1) / 2))


@many
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_table_3_form(n: int, seed: int) -> None:
    """Between two models of equal own uniformities, MultiMem is the full sum of the pair scores.

    Normalised by n - 1 it is then 1/(n - 1) of that sum: ½ of it for three modalities, which is
    how the published values of Table 3 relate.
    """
    rng = np.random.default_rng(seed)
    present = torch.ones(2, n, dtype=torch.bool)
    own = rng.normal(size=(2, n))

    def model() -> Agreement:
        alignment = rng.normal(size=(2, n, n))
        alignment = alignment + alignment.transpose(0, 2, 1)
        uniformity = rng.normal(size=(2, n, n))
        alignment[:, range(n), range(n)] = 1
        uniformity[:, range(n), range(n)] = own
        return Agreement(torch.from_numpy(alignment), torch.from_numpy(uniformity))

    f, g = model(), model()
    pairs = (pair_cmc(f, present) - pair_cmc(g, present)).triu(diagonal=1).nan_to_num(0.0)
    literal = cmc(f, present) - cmc(g, present)
    close(literal, pairs.sum(dim=(1, 2)))
    close(normalized(literal, present.sum(dim=1)), pairs.sum(dim=(1, 2)) / (n - 1))


@many
@given(worlds())
def test_clipmem_expansion(world: World) -> None:
    """pair CMC = 1 + CLIPMem + ½ (u_jk + u_kj) - ½ (u_jj + u_kk)."""
    parts, present = agreed(world)
    u = parts.uniformity
    own = u.diagonal(dim1=1, dim2=2)
    expected = (
        1
        + clipmem_alignment(parts, present)
        + (u + u.transpose(1, 2)) / 2
        - (own[:, :, None] + own[:, None, :]) / 2
    )
    close(pair_cmc(parts, present), expected)


@many
@given(worlds(modalities=2, complete=True))
def test_clipmem_is_cosine_minus_mean_cosines_to_unseen(world: World) -> None:
    parts, present = agreed(world)
    found = clipmem_alignment(parts, present)
    held = world.held_out.reshape(-1, *world.held_out.shape[2:])
    for i in range(len(present)):
        image, text = world.samples[:, i, 0], world.samples[:, i, 1]
        expected = (
            (image * text).sum(axis=1).mean()
            - np.mean([[a @ h for h in held[:, 1]] for a in image])
            - np.mean([[a @ h for h in held[:, 0]] for a in text])
        )
        close(found[i, 0, 1], expected)
        close(found[i, 1, 0], expected)


@many
@given(worlds(modalities=3))
def test_attribution_is_the_shapley_value(world: World) -> None:
    """Against its definition: the mean marginal contribution over all orders of arrival."""
    parts, present = agreed(world)
    found = attribution(parts, present)
    for i in range(len(present)):
        here = np.flatnonzero(world.present[i]).tolist()
        expected = np.zeros(3)
        orders = list(permutations(here))
        for order in orders:
            worth = 0.0
            for size, player in enumerate(order, start=1):
                now = naive.cmc(world, i, only=order[:size]) - size / 2
                expected[player] += (now - worth) / len(orders)
                worth = now
        close(found[i], expected)


@many
@given(worlds())
def test_attributions_sum_to_cmc_and_differences_to_multimem(world: World) -> None:
    parts, present = agreed(world)
    n = present.sum(dim=1)
    close(attribution(parts, present).sum(dim=1), cmc(parts, present) - n / 2)
    # Another model, whose embeddings are not quite normalised: the constant cancels all the same.
    embeddings, _ = world.tensors()
    other = agreement(embeddings * 0.9, present, means_of(world).flip(0))
    difference = attribution(parts, present) - attribution(other, present)
    close(difference.sum(dim=1), cmc(parts, present) - cmc(other, present))


@many
@given(worlds(complete=True), st.integers(0, 2**32 - 1))
def test_a_narrower_present_scores_a_subset(world: World, seed: int) -> None:
    parts, present = agreed(world)
    narrow = torch.from_numpy(np.random.default_rng(seed).random(present.shape) < 0.5)
    expected = [
        naive.cmc(world, i, only=narrow[i].nonzero().flatten().tolist()) for i in range(len(narrow))
    ]
    close(cmc(parts, narrow), expected)
    close(attribution(parts, narrow).sum(dim=1), cmc(parts, narrow) - narrow.sum(dim=1) / 2)


@pytest.mark.parametrize("function", [cmc, pair_cmc, clipmem_alignment, terms, attribution])
def test_a_wrong_mask_is_named(function: object) -> None:
    parts = Agreement(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"present.*\(2, 3\)"):
        function(parts, torch.ones(2, 2, dtype=torch.bool))  # type: ignore[operator]
