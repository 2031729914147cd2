"""Membership attack on the models of a run, summed up: curve, held-out check, and the ε disproved.

Everything is counted in bins of the likelihood ratio while the scores stream by. What counts is
the group, since its samples share one membership: rows of groups with several scored samples are
taken out afterwards, and put back as one by their mean ratio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimem_ray.results.arrays import lists
from multimem_ray.results.table import ScoreTable
from multimem_ray.verdict.attack import (
    CONFIDENCE,
    Population,
    Roc,
    attack_ratios,
    epsilon_bound,
)

FPRS = (0.001, 0.01)
GUESSED = (0.02, 0.2, 1.0)
"""Shares of the groups that are guessed, fixed for ever: what is fixed after a look is no r."""

_WIDTH, _BINS = 2.0**-12, 1 << 16
_SHARED = (
    'SELECT "group", cmc, member FROM scores WHERE "group" IS NOT NULL '
    'QUALIFY count(*) OVER (PARTITION BY "group") > 1 ORDER BY "group"'
)


class Attack:
    """Counts of ratios, for each attacked model, of members and of others.

    Args:
        kind: Kind of the membership design.
        targeted: Whether the last model is a target.
    """

    def __init__(self, kind: str, *, targeted: bool) -> None:
        self._fair = kind == "complementary_halves" and not targeted
        self._options = {"paired": kind == "complementary_halves", "target": targeted}
        self._targeted = targeted
        self._models = 0
        self._counts = np.zeros((0, 2, _BINS), np.int64)

    def update(self, cmc: NDArray[np.float64], member: NDArray[np.float64]) -> None:
        """Add rows, each as a group of its own: (N, M) each, NaN where undefined."""
        ratios, saw = self._ratios(cmc, member)
        if ratios.shape[1]:
            self._add(ratios, saw, 1)

    def merge_groups(self, table: ScoreTable) -> None:
        """Count groups of several samples once."""
        for cmc, member, starts in _shared_rows(table):
            ratios, saw = self._ratios(cmc, member)
            self._add(ratios, saw, -1)
            known = ~np.isnan(ratios)
            total = np.add.reduceat(np.where(known, ratios, 0.0), starts)
            count = np.add.reduceat(known.astype(np.int64), starts)
            mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
            self._add(mean, saw[starts], 1)

    def result(self, population: Population | None) -> dict[str, Any] | None:
        """The findings; None where there is nothing to tell members from.

        Returns:
            ``models`` attacked, ``references`` of each, ``members`` and ``others`` (groups, mean
            over models), ``auc``, ``tpr_0.001`` and ``tpr_0.01`` (value, low, high; None with too
            few others), each the mean over the models; ``held_out`` (samples, and auc of telling
            what the rule would have trained on); ``epsilon`` (value, confidence, guesses, right,
            model, tests), None unless memberships are fair and independent.
        """
        curves = [Roc(members, others) for members, others in self._counts]
        check = _population_counts(population, self._counts.shape[0])
        if self._targeted and curves and not curves[0].others.sum() and check is not None:
            # The target saw everything that was scored: all that is left is what nobody saw.
            curves = [Roc(curves[0].members, check[0].sum(axis=0))]
        usable = [curve for curve in curves if curve.usable]
        if not usable:
            return None
        found: dict[str, Any] = {
            "models": len(usable),
            "references": self._references(),
            "members": float(np.mean([curve.members.sum() for curve in usable])),
            "others": float(np.mean([curve.others.sum() for curve in usable])),
            "auc": _area(usable),
        }
        for fpr in FPRS:
            shares = [share for curve in usable if (share := curve.tpr(fpr)) is not None]
            value = np.mean(shares, axis=0).tolist() if len(shares) == len(usable) else None
            names = ("value", "low", "high")
            found[f"tpr_{fpr}"] = value and dict(zip(names, value, strict=True))
        known = [] if check is None or self._targeted else [Roc(*counts) for counts in check]
        known = [curve for curve in known if curve.usable]
        found["held_out"] = known and {
            "samples": int(known[0].members.sum() + known[0].others.sum()),
            "auc": _area(known),
        }
        found["epsilon"] = _epsilon(curves) if self._fair else None
        return found

    def _ratios(
        self, cmc: NDArray[np.float64], member: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        saw = member == 1.0
        ratios = attack_ratios(cmc, saw, **self._options)
        if not self._targeted:
            ratios[~saw.any(axis=1)] = np.nan  # outside the pool: nobody could train on it
        if len(self._counts) != ratios.shape[1]:
            self._models = cmc.shape[1]
            self._counts = np.zeros((ratios.shape[1], 2, _BINS), np.int64)
        return ratios, saw[:, -1:] if self._targeted else saw

    def _add(self, ratios: NDArray[np.float64], saw: NDArray[np.bool_], weight: int) -> None:
        self._counts += weight * _counted(ratios, saw)

    def _references(self) -> int:
        apart = 2 if self._options["paired"] and not self._targeted else 1
        return max(0, self._models - apart)


def attack_words(found: Mapping[str, Any] | None) -> list[str]:
    """The findings in sentences."""
    if not found:
        return []
    area, at = found["auc"], found["tpr_0.01"]
    said = (
        f"A membership attack (RMIA, {found['references']} reference models) tells what was "
        f"trained on from what was not with an AUC of {_interval(area, 3)}; 0.5 is guessing"
    )
    if at:
        said += f". At 1 % false alarms it finds {_interval(at, 1, 100)} % of the members"
    if found["held_out"]:
        said += f". On the held-out set it must guess: {_interval(found['held_out']['auc'], 3)}"
    words = [said + "."]
    epsilon = found["epsilon"]
    if epsilon:
        words.append(
            f"Differential privacy of this training, measured from below: ε ≥ "
            f"{epsilon['value']:.2f} with {100 * epsilon['confidence']:.0f} % confidence "
            f"({epsilon['right']} of {epsilon['guesses']} guesses right, corrected for choosing "
            f"among {epsilon['tests']} tests). "
            + (
                "A promise of a smaller ε would be broken; the true one may be larger."
                if epsilon["value"]
                else "This run disproves no promise; that proves none either."
            )
        )
    return words


def _interval(value: Mapping[str, float], digits: int, scale: float = 1.0) -> str:
    shown = (scale * value[name] for name in ("value", "low", "high"))
    middle, low, high = (f"{number:.{digits}f}" for number in shown)
    return f"{middle} ({low}–{high})"


def _area(curves: list[Roc]) -> dict[str, float]:
    """Mean over models; its error as if all of them erred alike, which is never too small."""
    area, se = np.mean([curve.auc() for curve in curves], axis=0).tolist()
    return {"value": area, "low": max(0.0, area - 1.96 * se), "high": min(1.0, area + 1.96 * se)}


def _epsilon(curves: list[Roc]) -> dict[str, Any] | None:
    tests = len(curves) * len(GUESSED)
    confidence = 1 - (1 - CONFIDENCE) / tests
    best: dict[str, Any] | None = None
    for model, curve in enumerate(curves):
        units = int(curve.members.sum() + curve.others.sum())
        for share in GUESSED:
            guesses = 2 * int(share * units / 2)
            if guesses < 2:
                continue
            right = curve.right_guesses(guesses)
            value = epsilon_bound(right, guesses, confidence)
            if best is None or value > best["value"]:
                best = {"value": value, "guesses": guesses, "right": right, "model": model}
    return best and {**best, "confidence": CONFIDENCE, "tests": tests}


def _counted(ratios: NDArray[np.float64], saw: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(K, 2, B) counts of members and of others by bin."""
    counts = np.zeros((ratios.shape[1], 2, _BINS), np.int64)
    for model in range(ratios.shape[1]):
        known = ~np.isnan(ratios[:, model])
        places = np.floor(ratios[known, model] / _WIDTH).astype(np.int64) + _BINS // 2
        places, side = np.clip(places, 0, _BINS - 1), saw[known, model]
        counts[model, 0] = np.bincount(places[side], minlength=_BINS)
        counts[model, 1] = np.bincount(places[~side], minlength=_BINS)
    return counts


def _population_counts(population: Population | None, models: int) -> NDArray[np.int64] | None:
    if population is None:
        return None
    ratios, saw = population.ratios, population.member
    saw = saw[:, -1:] if population.target else saw
    return _counted(ratios, saw) if ratios.shape[1] == models else None


def _shared_rows(
    table: ScoreTable,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]:
    """Rows of groups of several, whole groups at a time, with the first row of each group."""
    waiting: list[pa.RecordBatch] = []
    for batch in table.stream(_SHARED, ["group", "cmc", "member"]):
        last = batch["group"][-1].as_py()
        begins = batch["group"].to_pylist().index(last)
        if begins:
            yield from _whole([*waiting, batch.slice(0, begins)])
            waiting = []
        waiting.append(batch.slice(begins))
    yield from _whole(waiting)


def _whole(
    batches: list[pa.RecordBatch],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]:
    if not batches:
        return
    rows = pa.Table.from_batches(batches).combine_chunks()
    names = np.array(rows["group"].to_pylist(), object)
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    yield lists(rows["cmc"]), lists(rows["member"]), starts
