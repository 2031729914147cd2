"""Why a sample stands where it stands: what does not fit, and whether the score may be chance.

The report and ``multimem view`` say it in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from multimem_ray.report.text import number
from multimem_ray.results.verdict import HIGH, LOW, Q
from multimem_ray.store.schema import SCORE, UNSEEN

FALSE_SHARE = 0.05
"""Largest q-value of a sample that is called memorized without a further word."""

Standing = Literal["memorized", "noise", "below", "unknown"]


def standing(row: Mapping[str, Any]) -> Standing:
    """What the 95 % interval of MultiMem says; ``unknown`` where there is none."""
    low, high = row.get(LOW), row.get(HIGH)
    if low is None or high is None:
        return "unknown"
    if low > 0:
        return "memorized"
    return "below" if high < 0 else "noise"


def doubt(row: Mapping[str, Any]) -> str:
    """What speaks against taking the score for memorization; empty where nothing does."""
    if row.get(SCORE) is None:
        return ""
    stands, q = standing(row), row.get(Q)
    if stands == "unknown":
        return "no interval: whether it is more than noise is not known"
    if stands == "noise":
        interval = f"{number(row[LOW])} to {number(row[HIGH])}"
        return f"not distinguishable from noise: 95 % interval {interval}"
    if stands == "memorized" and q is not None and q > FALSE_SHARE:
        return f"of a list down to here {100 * q:.0f} % would be false (q = {number(q)})"
    return ""


def misfit(row: Mapping[str, Any], modalities: Sequence[str]) -> str | None:
    """The modality that fits the others least, for models that never saw the sample.

    None with fewer than three: of two that do not fit, neither is the odd one.
    """
    fits = _fits(row, modalities)
    return min(fits, key=fits.__getitem__) if len(fits) > 2 else None


def misfit_words(row: Mapping[str, Any], modalities: Sequence[str]) -> str:
    """:func:`misfit` in a sentence, with how far it lies behind the next; empty without one."""
    name, fits = misfit(row, modalities), sorted(_fits(row, modalities).values())
    if name is None:
        return ""
    return (
        f"The {name} fits the others least: {number(fits[0])}, the next {number(fits[1])}, for "
        "models that never saw the sample."
    )


def _fits(row: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, float]:
    columns = {name: row.get(f"{UNSEEN}{name}") for name in modalities}
    return {name: float(value) for name, value in columns.items() if value is not None}
