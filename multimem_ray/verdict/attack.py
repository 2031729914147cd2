"""Membership-attack risk: how well one can tell, from a model, what it was trained on.

RMIA (Zarifzadeh, Liu & Shokri 2024, arXiv 2312.03262) compares a sample's likelihood ratio with
those of a population that the model never saw. The consistency CMC stands for the log-likelihood,

    r(x) = CMC_θ(x) - ln p(x),    p(x) = ½ (mean over models that saw x + mean over the others)

where both means are of exp CMC over reference models other than θ. ``attack_score`` is the share of
the held-out set whose ratio is below that of the sample: 0.5 is chance.

In designs of complementary pairs the partner of θ is no reference: who trained on what there is
the very secret that the attack is to find. Then every other pair has one model on each side, and
the memberships of the references are independent of θ's.

``epsilon_bound`` (Steinke, Nasr & Jagielski 2023, arXiv 2305.08846): of r guesses of fair,
independent memberships of one training that is ε-differentially private, V are right with
P[V ≥ v] ≤ P[Bin(r, e^ε / (1 + e^ε)) ≥ v]. Who guesses better than that disproves the ε.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

CONFIDENCE = 0.95
_STORED = "population."


def attack_ratios(cmc: Floats, member: Bools, *, paired: bool, target: bool) -> Floats:
    """Likelihood ratio of each sample under each attacked model.

    Args:
        cmc: (N, M).
        member: (N, M), who trained on what; of samples that nobody trained on, what the rule says.
        paired: Models 2k and 2k + 1 train on complements; neither is a reference for the other.
        target: The last model is attacked, and all others are its references.

    Returns:
        (N, K): K = 1 with a target, else M. Without any reference, CMC itself; NaN where all
        references saw the sample.
    """
    models = cmc.shape[1]
    likelihood = np.exp(cmc)
    attacked = [models - 1] if target else list(range(models))
    ratios = np.full((len(cmc), len(attacked)), np.nan)
    for place, model in enumerate(attacked):
        apart = {model, model ^ 1} if paired and not target else {model}
        others = [m for m in range(models) if m not in apart]
        if not others:
            ratios[:, place] = cmc[:, model]
            continue
        saw = member[:, others]
        inside, outside = (_mean(likelihood[:, others], side) for side in (saw, ~saw))
        both = np.where(np.isnan(inside), outside, 0.5 * (inside + outside))
        ratios[:, place] = cmc[:, model] - np.log(both)
    return ratios


def attack_score(ratios: Floats, population: Floats) -> Floats:
    """Share of a population below each ratio, ties by half.

    Args:
        ratios: (N,).
        population: (Z,), sorted.

    Returns:
        (N,) in [0, 1]; NaN where the ratio is, or the population is empty.
    """
    if not len(population):
        return np.full(len(ratios), np.nan)
    below = np.searchsorted(population, ratios, "left") + np.searchsorted(
        population, ratios, "right"
    )
    return np.where(np.isnan(ratios), np.nan, below / (2 * len(population)))


@dataclass(frozen=True)
class Population:
    """The held-out set under the attacked models.

    Args:
        cmc: (Z, M).
        member: (Z, M), what the rule says; nobody trained on them.
        paired: As for :func:`attack_ratios`.
        target: As for :func:`attack_ratios`.
    """

    cmc: Floats
    member: Bools
    paired: bool
    target: bool

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[Any]]) -> Population | None:
        """What :meth:`arrays` returned, among others; None if it is not there."""
        if _STORED + "cmc" not in stored:
            return None
        paired, target = stored[_STORED + "kind"].tolist()
        return cls(stored[_STORED + "cmc"], stored[_STORED + "member"], paired, target)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays under names, to be stored."""
        kind = np.array([self.paired, self.target])
        return {_STORED + "cmc": self.cmc, _STORED + "member": self.member, _STORED + "kind": kind}

    @cached_property
    def ratios(self) -> Floats:
        """(Z, K), see :func:`attack_ratios`."""
        return attack_ratios(self.cmc, self.member, paired=self.paired, target=self.target)

    def risk(self, cmc: Floats, member: Bools) -> Floats:
        """(N,) the risk of each sample; NaN where there is none.

        The attack's score under the target, or its mean over the models that trained on the
        sample.
        """
        ratios = attack_ratios(cmc, member, paired=self.paired, target=self.target)
        pairs = zip(ratios.T, self._sorted, strict=True)
        scores = np.stack([attack_score(own, others) for own, others in pairs], axis=1)
        return scores[:, 0] if self.target else _mean(scores, member & ~np.isnan(scores))

    @cached_property
    def _sorted(self) -> list[Floats]:
        return [np.sort(column[~np.isnan(column)]) for column in self.ratios.T]


@dataclass(frozen=True)
class Roc:
    """How well members are told from others by a score that was counted in bins.

    Args:
        members: (B,) number of members in each bin, ascending by score.
        others: (B,) number of others.
    """

    members: Counts
    others: Counts

    @property
    def usable(self) -> bool:
        """Whether there is anybody on either side."""
        return bool(self.members.sum() and self.others.sum())

    def auc(self) -> tuple[float, float]:
        """Area under the curve and its standard error (DeLong et al. 1988), ties by half."""
        n, m = int(self.members.sum()), int(self.others.sum())
        below = (np.cumsum(self.others) - 0.5 * self.others) / m
        above = 1 - (np.cumsum(self.members) - 0.5 * self.members) / n
        area = float(self.members @ below) / n
        spread = [
            float(counts @ (values - area) ** 2) / max(size - 1, 1) / size
            for counts, values, size in ((self.members, below, n), (self.others, above, m))
        ]
        return area, float(np.sqrt(sum(spread)))

    def tpr(self, fpr: float) -> tuple[float, float, float] | None:
        """Share of members found at a share of false alarms, with a 95 % interval.

        The interval is that of a binomial share (Clopper & Pearson) at thresholds between which
        the true share of false alarms lies with 95 %: wide rather than narrow. None with fewer
        than 1 / ``fpr`` others.
        """
        n, m = int(self.members.sum()), int(self.others.sum())
        if m * fpr < 1 or not n:
            return None
        low, high = stats.binom.ppf([0.025, 0.975], m, fpr)
        at, few, many = (self._found(int(k)) for k in (m * fpr, low, high))
        bottom = stats.beta.ppf(0.025, few, n - few + 1) if few else 0.0
        top = stats.beta.ppf(0.975, many + 1, n - many) if many < n else 1.0
        return at / n, float(bottom), float(top)

    def _found(self, alarms: int) -> int:
        """Members above the lowest edge of a bin that has at most so many others above it."""
        above = np.append(np.cumsum(self.others[::-1])[::-1], 0)
        edge = int(np.argmax(above <= alarms))
        return int(self.members[edge:].sum())

    def right_guesses(self, guesses: int) -> int:
        """How many are right of the highest half, said to be members, and the lowest half, not.

        Where a bin is cut, its members and others fall as badly as they can.
        """
        half = guesses // 2
        return _right(self.members[::-1], self.others[::-1], half) + _right(
            self.others, self.members, half
        )


def epsilon_bound(right: int, guesses: int, confidence: float = CONFIDENCE) -> float:
    """Largest ε that so many right guesses disprove; 0 if they disprove none.

    Args:
        right: V of r guesses.
        guesses: r, fixed before anything was seen.
        confidence: One-sided.
    """
    if not right:
        return 0.0
    share = float(stats.beta.ppf(1 - confidence, right, guesses - right + 1))
    return max(0.0, float(np.log(share / (1 - share))))


def _right(rightly: Counts, wrongly: Counts, picked: int) -> int:
    """Right ones among the first ``picked``, at least."""
    sizes = np.cumsum(rightly + wrongly)
    whole = int(np.searchsorted(sizes, picked, "right"))
    sure = int(rightly[:whole].sum())
    rest = picked - (int(sizes[whole - 1]) if whole else 0)
    if whole == len(sizes):
        return sure
    return sure + max(0, rest - int(wrongly[whole]))


def _mean(values: Floats, chosen: Bools) -> Floats:
    """(N,) mean over what is chosen of (N, K); NaN where nothing is."""
    count = chosen.sum(axis=1)
    total = np.where(chosen, values, 0.0).sum(axis=1)
    mean: Any = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return np.asarray(mean, np.float64)
