"""The contrast of models that saw a sample with models that did not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.metric import contrast, normalized, paired_se, view_variance


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 7), st.integers(0, 4), st.sampled_from([(), (3,), (2, 2)]), st.integers(0))
def test_against_numpy(models: int, samples: int, rest: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(models, samples, *rest))
    side = rng.integers(3, size=(samples, models))
    f, g = side == 0, side == 1
    found = contrast(torch.from_numpy(values), torch.from_numpy(f), torch.from_numpy(g))
    assert found.n_f.tolist() == f.sum(axis=1).tolist()
    assert found.n_g.tolist() == g.sum(axis=1).tolist()
    for i in range(samples):
        a, b = values[f[i], i], values[g[i], i]
        nothing = np.full(rest, np.nan)
        mean_a = a.mean(axis=0) if len(a) else nothing
        mean_b = b.mean(axis=0) if len(b) else nothing
        se = nothing
        if len(a) > 1 and len(b) > 1:
            se = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
        np.testing.assert_allclose(found.score[i].numpy(), mean_a - mean_b, atol=1e-12)
        np.testing.assert_allclose(found.se[i].numpy(), se, atol=1e-12)
        np.testing.assert_allclose(found.mean_f[i].numpy(), mean_a, atol=1e-12)
        np.testing.assert_allclose(found.mean_g[i].numpy(), mean_b, atol=1e-12)


def test_one_model_of_each_kind_is_the_definition() -> None:
    values = torch.tensor([[0.7], [0.2]], dtype=torch.float64)
    found = contrast(values, torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    assert float(found.score) == pytest.approx(0.5)
    assert found.se.isnan().all()


def test_swapping_the_sides_mirrors_the_score() -> None:
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    f = torch.tensor([[True, False] * 3]).expand(3, 6)
    there, back = contrast(values, f, ~f), contrast(values, ~f, f)
    torch.testing.assert_close(there.score, -back.score)
    torch.testing.assert_close(there.se, back.se)


def test_a_nan_reaches_only_what_it_belongs_to() -> None:
    values = torch.zeros(3, 1, 2)
    values[2] = torch.nan
    values[0, 0, 1] = torch.nan
    f = torch.tensor([[True, False, False]])
    g = torch.tensor([[False, True, False]])
    found = contrast(values, f, g)
    assert found.score[0, 0] == 0
    assert found.score[0, 1].isnan()
    assert found.mean_g.tolist() == [[0.0, 0.0]]


def test_the_standard_error_covers_the_truth() -> None:
    """Over many samples with a known effect, the error in units of SE has a spread near one."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(40, 5000, generator=generator, dtype=torch.float64)
    f = torch.rand(5000, 40, generator=generator) < 0.5
    values += 0.3 * f.T
    found = contrast(values, f, ~f)
    z = (found.score - 0.3) / found.se
    assert abs(float(z.mean())) < 0.05
    assert 0.95 < float(z.std()) < 1.1


def test_normalized_divides_by_one_less_than_the_modalities() -> None:
    found = normalized(torch.tensor([6.0, 6.0, 6.0, 6.0, 6.0]), torch.tensor([0, 1, 2, 3, 4]))
    assert [math.isnan(value) for value in found[:2].tolist()] == [True, True]
    assert found[2:].tolist() == [6.0, 3.0, 2.0]
    several = normalized(torch.ones(2, 3), torch.tensor([3, 5]))
    assert several.tolist() == [[0.5] * 3, [0.25] * 3]


@pytest.mark.parametrize(
    ("values", "f", "g", "said"),
    [
        (torch.zeros(2), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool(), "models, samples"),
        (torch.zeros(2, 1), torch.ones(2, 1).bool(), torch.zeros(1, 2).bool(), r"f is .*\(1, 2\)"),
        (torch.zeros(2, 1), torch.zeros(1, 2).bool(), torch.zeros(1, 2), "g is torch.float32"),
        (torch.zeros(2, 1), torch.ones(1, 2).bool(), torch.ones(1, 2).bool(), "overlap"),
    ],
)
def test_what_does_not_fit_is_named(
    values: torch.Tensor, f: torch.Tensor, g: torch.Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        contrast(values, f, g)


def test_the_error_of_pairs_is_that_of_their_differences() -> None:
    rng = np.random.default_rng(3)
    values, first = rng.normal(size=(6, 5)), rng.integers(2, size=(5, 3)).astype(bool)
    f = np.stack([first, ~first], axis=2).reshape(5, 6)
    d = np.where(first.T, 1, -1) * (values[0::2] - values[1::2])
    found = paired_se(*map(torch.from_numpy, (values, f, ~f)))
    np.testing.assert_allclose(found.numpy(), d.std(axis=0, ddof=1) / math.sqrt(3))
    f[0, 1] = f[0, 0]
    assert paired_se(*map(torch.from_numpy, (values, f, ~f)))[0].isnan()
    assert paired_se(*map(torch.from_numpy, (values[:2], f[:, :2], ~f[:, :2]))).isnan().all()


def test_the_error_of_blocks_of_three_is_that_of_their_differences() -> None:
    rng = np.random.default_rng(5)
    values, fold = rng.normal(size=(9, 4)), rng.integers(3, size=(4, 3))
    f = (fold[:, :, None] != np.arange(3)).reshape(4, 9)
    blocks = values.reshape(3, 3, 4)
    out = np.take_along_axis(blocks, fold.T[:, None, :], axis=1)[:, 0]
    d = (blocks.sum(axis=1) - out) / 2 - out
    found = paired_se(*map(torch.from_numpy, (values, f, ~f)), 3)
    np.testing.assert_allclose(found.numpy(), d.std(axis=0, ddof=1) / math.sqrt(3))
    score = contrast(*map(torch.from_numpy, (values, f, ~f))).score
    np.testing.assert_allclose(score.numpy(), d.mean(axis=0))
    f[0, :3] = True
    assert paired_se(*map(torch.from_numpy, (values, f, ~f)), 3)[0].isnan()


def test_view_variance_is_what_all_models_have_in_common() -> None:
    """Simulated: views add the same to all models that saw a sample, besides what each adds."""
    rng = np.random.default_rng(4)
    models, views, samples = 8, 4, 40_000
    f = np.tile([True, False], models // 2)[None].repeat(samples, axis=0)
    common = rng.normal(0, 0.3, (1, views, samples))
    own = rng.normal(0, 0.5, (models, views, samples))
    values = np.where(f.T[:, None], common, 0.0) + own
    found = view_variance(*map(torch.from_numpy, (values, f, ~f))).numpy()
    assert found.mean() == pytest.approx(0.09 / views, rel=0.03)
    alone = view_variance(*map(torch.from_numpy, (own, f, ~f))).numpy()
    assert alone.mean() == pytest.approx(0.0, abs=0.001)
    one = map(torch.from_numpy, (values[:, :1], f, ~f))
    assert view_variance(*one).isnan().all()
