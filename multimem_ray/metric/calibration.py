"""The level of each model: how consistent it finds the held-out set, which no model saw.

Equal trainings differ in their level, other recipes do far more, so a difference between a model
of one recipe and those of another measures the recipe. With the mean agreement over H under model
m, taken away from each sample's own,

    a'_m[j, k] = a_m[j, k] - E_h a_m[j, k](h),    u'_m[j, k] = u_m[j, k] - E_h u_m[j, k](h),

the score of the target f against references g, CMC'_f - mean CMC'_g, is the literal one minus the
gap between the two on samples that neither of them saw. All scores are linear in (a, u), so pairs
and attributions are freed of the gap in the same way, and still sum up exactly.

The standard error is that of a sample which nobody saw: how far the difference of target and
references strays from the gap over the N samples of H, and the error of the gap itself,

    SE² = cᵀ Σ c (1 + 1/N),

with c the weights of the contrast and Σ the covariance over H of the models' CMC, the same samples
under all of them. It holds what a spread over the references would miss: there is only one target,
and it differs from them by more for some samples than for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from multimem_ray.metric._checks import check_mask
from multimem_ray.metric.agreement import Agreement
from multimem_ray.metric.consistency import cmc


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean agreement of the held-out set under M models, and how well the means are known.

    Attributes:
        alignment: (M, n, n) float64, over the samples of H that have both modalities.
        uniformity: (M, n, n) float64, the same, each sample against the rest of H.
        covariance: By set of modalities, as :func:`bits_of` writes it: (M, M) float64, covariance
            of the CMC of the samples of H that have all of them. A set that fewer than two samples
            have is not there.
        counts: By set of modalities: number of those samples.
    """

    alignment: Tensor
    uniformity: Tensor
    covariance: Mapping[int, Tensor]
    counts: Mapping[int, int]

    def centred(self, agreement: Agreement, model: int) -> Agreement:
        """Agreement of B samples under one model, less what is its level.

        Args:
            agreement: As :func:`multimem_ray.metric.agreement` returns it; zero where absent.
        """
        return Agreement(
            agreement.alignment - self.alignment[model],
            agreement.uniformity - self.uniformity[model],
        )

    def cmc(self, present: Tensor) -> Tensor:
        """(M, B) the level of each model for samples with these modalities, (B, n) bool."""
        count = len(present)
        return torch.stack(
            [
                cmc(Agreement(a.expand(count, -1, -1), u.expand(count, -1, -1)), present)
                for a, u in zip(self.alignment, self.uniformity, strict=True)
            ]
        )

    def gap(self, present: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gap between two sides on samples that nobody saw, and how far single ones stray from it.

        Args:
            present: (B, n) bool.
            f: (B, M) bool, as for :func:`multimem_ray.metric.contrast`.
            g: (B, M) bool.

        Returns:
            The gap, its standard error, and the standard error of a single sample's score, (B,)
            each. NaN where a side has no model; the errors also where H has not two samples with
            these modalities.
        """
        models = len(self.alignment)
        check_mask("f", f, (len(present), models))
        check_mask("g", g, (len(present), models))
        weights = _shares(f) - _shares(g)
        gap = (weights * self.cmc(present).T).sum(dim=1)
        variance = torch.full((len(present),), torch.nan, dtype=torch.float64)
        count = torch.ones_like(variance)
        bits = bits_of(present)
        for pattern in set(bits.tolist()):
            if pattern in self.covariance:
                rows, sigma = bits == pattern, self.covariance[pattern]
                chosen = weights[rows]
                variance[rows] = ((chosen @ sigma) * chosen).sum(dim=1)
                count[rows] = self.counts[pattern]
        variance = variance.clamp(min=0.0)
        return gap, (variance / count).sqrt(), (variance * (1 + 1 / count)).sqrt()


class CalibrationAccumulator:
    """Sums up the held-out set part by part, for the :class:`Levels` of M models.

    Args:
        models: M.
        modalities: n.
    """

    def __init__(self, models: int, modalities: int) -> None:
        shape = (models, modalities, modalities)
        self._alignment = torch.zeros(shape, dtype=torch.float64)
        self._uniformity = torch.zeros(shape, dtype=torch.float64)
        self._both = torch.zeros(modalities, modalities, dtype=torch.float64)
        self._sets: dict[int, _Products] = {}
        self._models, self._n = models, modalities

    def add(self, agreements: list[Agreement], present: Tensor) -> None:
        """Add samples of H.

        Args:
            agreements: One for each model, of the same B samples, each sample against the rest
                of H.
            present: (B, n) bool.
        """
        both = (present[:, :, None] & present[:, None, :]).double()
        self._both += both.sum(dim=0)
        for model, one in enumerate(agreements):
            self._alignment[model] += one.alignment.sum(dim=0)
            self._uniformity[model] += one.uniformity.sum(dim=0)
        has = bits_of(present)
        for pattern in range(1, 1 << self._n):
            rows = (has & pattern) == pattern
            if pattern.bit_count() < 2 or not bool(rows.any()):
                continue
            subset = torch.tensor([bool(pattern >> k & 1) for k in range(self._n)])
            chosen = subset.expand(int(rows.sum()), -1)
            values = [
                cmc(Agreement(a.alignment[rows], a.uniformity[rows]), chosen) for a in agreements
            ]
            products = self._sets.setdefault(pattern, _Products(self._models))
            products.add(torch.stack(values, dim=1))

    def levels(self) -> Calibration:
        """The levels; entries of modalities that H never has together are NaN."""
        return Calibration(
            self._alignment / self._both,
            self._uniformity / self._both,
            {p: s.covariance() for p, s in self._sets.items() if s.count > 1},
            {p: s.count for p, s in self._sets.items() if s.count > 1},
        )


class _Products:
    """Count, sum and sum of products of (B, M) rows, about the first of them for exactness."""

    def __init__(self, models: int) -> None:
        self.count = 0
        self._origin: Tensor | None = None
        self._sum = torch.zeros(models, dtype=torch.float64)
        self._products = torch.zeros(models, models, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        if self._origin is None:
            self._origin = rows[0].clone()
        moved = rows - self._origin
        self.count += len(rows)
        self._sum += moved.sum(dim=0)
        self._products += moved.T @ moved

    def covariance(self) -> Tensor:
        mean = self._sum / self.count
        spread = self._products / self.count - torch.outer(mean, mean)
        return spread * (self.count / (self.count - 1))


def bits_of(present: Tensor) -> Tensor:
    """(B,) int64: a set of modalities as a number, bit k for modality k."""
    places = torch.arange(present.shape[1])
    return (present.long() << places).sum(dim=1)


def _shares(side: Tensor) -> Tensor:
    """(B, M) float64: 1 / K on the models of a side; NaN where there is none."""
    exact = side.double()
    return exact / exact.sum(dim=1, keepdim=True)
