"""Means by group: by label, by split, by model, by which modalities are present."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.results.accumulate import Floats, Moments

MOST_GROUPS = 10_000  # further labels are counted together: a free text is not a label
SHOWN_GROUPS = 200


class GroupMeans:
    """Mean MultiMem and mean out-of-sample consistency per value of a text column."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._sums = np.zeros((16, 6))  # per group: rows, then n, sum, sum of squares; n, sum
        self._other = 0

    def update(self, groups: Any, multimem: Floats, cmc_out: Floats) -> None:
        """Add rows; those without a group are left out."""
        encoded = groups.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        places = np.array([self._place_of(name) for name in names], np.int64)
        codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False))
        rows = np.where(codes >= 0, places[codes] if len(places) else -1, -1)
        self._other += int((codes >= 0).sum() - (rows >= 0).sum())
        keep = rows >= 0
        place, score, out = rows[keep], multimem[keep], cmc_out[keep]
        for column, weights in enumerate(_sums(score, out)):
            added = np.bincount(place, weights=weights, minlength=len(self._sums))
            self._sums[:, column] += added

    def result(self) -> dict[str, Any]:
        """``total`` groups, ``other`` rows beyond the limit, and the largest ``groups``.

        Groups come by mean MultiMem, highest first; each with count, mean, standard error of the
        mean over samples, and mean ``cmc_out``.
        """
        rows = [self._row(name, place) for name, place in self._place.items()]
        rows.sort(key=lambda row: -row["count"])
        shown = rows[:SHOWN_GROUPS]
        shown.sort(key=lambda row: (-(row["multimem"] or 0.0), row["group"]))
        return {"total": len(rows), "other": self._other, "groups": shown}

    def _place_of(self, name: str) -> int:
        place = self._place.get(name)
        if place is None:
            if len(self._place) >= MOST_GROUPS:
                return -1
            place = self._place[name] = len(self._place)
            if place >= len(self._sums):
                self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        return place

    def _row(self, name: str, place: int) -> dict[str, Any]:
        count, n, total, squares, n_out, total_out = self._sums[place].tolist()
        mean = total / n if n else None
        spread = max(0.0, squares / n - (total / n) ** 2) if n else 0.0
        return {
            "group": name,
            "count": int(count),
            "multimem": mean,
            "multimem_se": (spread / (n - 1)) ** 0.5 if n > 1 else None,
            "cmc_out": total_out / n_out if n_out else None,
        }


class ModalitySets:
    """How many samples have which modalities."""

    def __init__(self) -> None:
        self._sets: Counter[str] = Counter()

    def update(self, column: Any) -> None:
        """Add rows of a list<string> column."""
        joined = pc.binary_join(column.cast(pa.list_(pa.string())), "\x1f")
        for item in pc.value_counts(joined).to_pylist():
            self._sets[item["values"] or ""] += item["counts"]

    def result(self) -> dict[str, Any]:
        """``present``: samples per modality; ``sets``: samples per combination."""
        present: Counter[str] = Counter()
        for joined, count in self._sets.items():
            for name in joined.split("\x1f"):
                present[name] += count
        sets = [
            {"modalities": joined.split("\x1f"), "count": count}
            for joined, count in self._sets.most_common()
        ]
        return {"present": dict(sorted(present.items())), "sets": sets}


class ModelLevels:
    """Mean consistency of each model on samples it trained on, and on those it did not."""

    def __init__(self) -> None:
        self.size = 0
        self._members = self._others = Moments(0)

    def update(self, cmc: Floats, member: Floats) -> None:
        """Add rows; both are (N, M)."""
        if not self.size:
            self.size = cmc.shape[1]
            self._members, self._others = Moments(self.size), Moments(self.size)
        self._members.update(np.where(member == 1.0, cmc, np.nan))
        self._others.update(np.where(member == 0.0, cmc, np.nan))

    def result(self, held_out: dict[str, Any]) -> list[dict[str, Any]]:
        """One row per model, with its level on the held-out set, which no model saw.

        ``level_gap`` is that level minus the mean over the models: what a comparison of means
        between models must subtract, and what a ranking within the run can ignore.
        """
        seen = held_out.get("models") or {}
        levels = {name: value.get("cmc_mean") for name, value in seen.items()}
        known = [level for level in levels.values() if level is not None]
        middle = sum(known) / len(known) if known else None
        names = list(seen) if len(seen) == self.size else [f"{n:03d}" for n in range(self.size)]
        rows = []
        for place, name in enumerate(names):
            level = levels.get(name)
            rows.append(
                {
                    "model": name,
                    "members": _mean(self._members, place),
                    "member_count": int(self._members.count[place]),
                    "others": _mean(self._others, place),
                    "other_count": int(self._others.count[place]),
                    "held_out": level,
                    "held_out_se": (seen.get(name) or {}).get("cmc_se"),
                    "level_gap": None if level is None or middle is None else level - middle,
                }
            )
        return rows


def _sums(score: Floats, out: Floats) -> list[Floats]:
    known, known_out = ~np.isnan(score), ~np.isnan(out)
    score, out = np.where(known, score, 0.0), np.where(known_out, out, 0.0)
    return [
        np.ones(len(score)),
        known.astype(float),
        score,
        score**2,
        known_out.astype(float),
        out,
    ]


def _mean(moments: Moments, place: int) -> float | None:
    return float(moments.mean[place]) if moments.count[place] else None
