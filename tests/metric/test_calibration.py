"""The level of a model on samples that nobody saw, and a target freed of it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from multimem_ray import metric
from multimem_ray.metric import Agreement, CalibrationAccumulator, bits_of

GENERATOR = torch.Generator().manual_seed(0)


def some(models: int, samples: int, n: int) -> list[Agreement]:
    """Agreements that are no more than numbers."""
    shape = (samples, n, n)
    found = []
    for _ in range(models):
        a = torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)
        found.append(
            Agreement(a + a.transpose(1, 2), torch.randn(*shape, generator=GENERATOR).double())
        )
    return found


def masked(agreements: list[Agreement], present: Tensor) -> list[Agreement]:
    both = present[:, :, None] & present[:, None, :]
    return [Agreement(a.alignment * both, a.uniformity * both) for a in agreements]


def at(agreement: Agreement, rows: Tensor) -> Agreement:
    return Agreement(agreement.alignment[rows], agreement.uniformity[rows])


def test_levels_are_means_over_the_samples_that_have_both() -> None:
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)
    held = masked(some(3, 4, 3), present)
    whole = CalibrationAccumulator(3, 3)
    whole.add(held, present)
    parts = CalibrationAccumulator(3, 3)
    for rows in (torch.tensor([3]), torch.tensor([0, 2]), torch.tensor([1])):
        parts.add([at(a, rows) for a in held], present[rows])
    for levels in (whole.levels(), parts.levels()):
        for model, (j, k) in itertools.product(range(3), itertools.product(range(3), repeat=2)):
            rows = present[:, j] & present[:, k]
            for name in ("alignment", "uniformity"):
                expected = getattr(held[model], name)[rows, j, k].mean()
                torch.testing.assert_close(getattr(levels, name)[model, j, k], expected)


def test_the_gap_and_its_error_are_those_of_paired_differences() -> None:
    """With every modality present, gap = mean over H of the difference, se = that of this mean."""
    present = torch.ones(50, 3, dtype=torch.bool)
    held = some(4, 50, 3)
    found = CalibrationAccumulator(4, 3)
    found.add(held, present)
    f = torch.tensor([[False, False, False, True], [False, False, False, True]])
    g = torch.tensor([[True, False, True, False], [True, True, True, False]])
    gap, se, _ = found.levels().gap(torch.ones(2, 3, dtype=torch.bool), f, g)
    values = torch.stack([metric.cmc(a, present) for a in held])
    for row, references in enumerate(([0, 2], [0, 1, 2])):
        difference = values[3] - values[references].mean(dim=0)
        torch.testing.assert_close(gap[row], difference.mean())
        torch.testing.assert_close(se[row], difference.std(unbiased=True) / 50**0.5)


def test_a_sample_is_compared_on_its_own_modalities() -> None:
    present = torch.ones(20, 3, dtype=torch.bool)
    held = some(2, 20, 3)
    found = CalibrationAccumulator(2, 3)
    found.add(held, present)
    pair = torch.tensor([[True, False, True]])
    f, g = torch.tensor([[False, True]]), torch.tensor([[True, False]])
    gap, se, _ = found.levels().gap(pair, f, g)
    values = torch.stack([metric.cmc(a, pair.expand(20, 3)) for a in held])
    torch.testing.assert_close(gap[0], (values[1] - values[0]).mean())
    torch.testing.assert_close(se[0], (values[1] - values[0]).std() / 20**0.5)


def test_a_level_that_all_samples_share_leaves_no_trace() -> None:
    """A target that finds everything more consistent by the same has memorized nothing."""
    present = torch.ones(30, 2, dtype=torch.bool)
    reference = some(1, 30, 2)[0]
    shift = torch.tensor([[0.0, 0.3], [0.3, 0.0]], dtype=torch.float64)
    target = Agreement(reference.alignment + shift, reference.uniformity - shift)
    found = CalibrationAccumulator(2, 2)
    found.add([reference, target], present)
    levels = found.levels()
    centred = torch.stack(
        [metric.cmc(levels.centred(a, m), present) for m, a in enumerate((reference, target))]
    )
    torch.testing.assert_close(centred[1], centred[0])


def test_without_a_target_or_references_there_is_no_gap() -> None:
    found = CalibrationAccumulator(2, 2)
    found.add(some(2, 5, 2), torch.ones(5, 2, dtype=torch.bool))
    one = torch.ones(1, 2, dtype=torch.bool)
    nobody, all_of_them = torch.zeros(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    for f, g in ((nobody, all_of_them), (all_of_them, nobody)):
        gap, se, _ = found.levels().gap(one, f, g)
        assert gap.isnan().all()
        assert se.isnan().all()


def test_a_set_of_modalities_that_h_has_once_has_no_error() -> None:
    found = CalibrationAccumulator(2, 3)
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    found.add(masked(some(2, 3, 3), present), present)
    levels = found.levels()
    assert set(levels.covariance) == {0b011}
    f, g = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    gap, se, _ = levels.gap(torch.ones(1, 3, dtype=torch.bool), f, g)
    assert gap.isfinite().all()
    assert se.isnan().all()


def test_the_error_of_a_score_is_that_of_a_sample_nobody_saw() -> None:
    """Scores of samples drawn as H was stray by their standard error, whatever the models do."""
    generator = torch.Generator().manual_seed(1)

    def drawn(count: int) -> list[Agreement]:
        shared = torch.randn(count, 1, 1, generator=generator, dtype=torch.float64)
        own = torch.randn(5, count, 2, 2, generator=generator, dtype=torch.float64)
        scales = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0], dtype=torch.float64)
        zero = torch.zeros(count, 2, 2, dtype=torch.float64)
        return [Agreement(s * (shared + o) + s, zero) for s, o in zip(scales, own, strict=True)]

    found = CalibrationAccumulator(5, 2)
    found.add(drawn(400), torch.ones(400, 2, dtype=torch.bool))
    levels, fresh = found.levels(), drawn(2000)
    present = torch.ones(2000, 2, dtype=torch.bool)
    f = torch.tensor([False, False, False, False, True]).expand(2000, -1)
    g = torch.rand(2000, 5, generator=generator) < 0.5
    g[:, 0], g[:, 4] = True, False
    centred = torch.stack([metric.cmc(levels.centred(a, m), present) for m, a in enumerate(fresh)])
    score, (_, gap_se, se) = metric.contrast(centred, f, g).score, levels.gap(present, f, g)
    strayed = score / se
    assert abs(float(strayed.mean())) < 0.15
    assert 0.9 < float(strayed.std()) < 1.1
    torch.testing.assert_close(se, gap_se * 401**0.5)


def test_sets_as_numbers() -> None:
    present = torch.tensor([[True, False, True], [False, True, False]])
    assert bits_of(present).tolist() == [0b101, 0b010]
