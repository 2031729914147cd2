"""The tables of the study of truth: from consistencies of runs, with intervals over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jobs.experiments.judged import (
    Consistencies,
    Floats,
    Judged,
    Places,
    drawn,
    judge,
)
from multimem_ray.evaluation.bootstrap import Estimate
from multimem_ray.report.tables import Table, shown
from multimem_ray.results.statistics import Z95
from multimem_ray.verdict.blend import FOLDS, BlendMoments
from multimem_ray.verdict.pairs import paired
from multimem_ray.verdict.reliability import spearman

COUNTS = (2, 4, 8, 16)
RATE, LISTED = 0.05, 0.1
COPIES = "copies.tar:"
Runs = Mapping[str, tuple[Consistencies, int, float]]
"""Name of a recipe → its run, models of a block, and passes over the data that a model costs."""


def markdown(table: Table) -> str:
    """The table in Markdown, its notes below."""
    lines = [f"**{table.title}**", "", f"| {' | '.join(table.columns)} |"]
    lines.append(f"|---|{'---:|' * (len(table.columns) - 1)}")
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in table.rows]
    return "\n".join([*lines, "", *table.notes, ""])


def _cell(cell: Any) -> str:
    if not isinstance(cell, Estimate):
        return shown(cell)
    if not np.isfinite(cell.value):
        return "–"
    interval = f" [{cell.low:.2f}, {cell.high:.2f}]" if np.isfinite(cell.low) else ""
    return f"{cell.value:.2f}{interval}"


def intervals(audits: Consistencies, truth: Consistencies, models: int) -> Table:
    """How often intervals hold the truth, how wide they are, and what shrinking saves.

    Args:
        audits: Its first models make the small audits.
        truth: Other models, with other views.
        models: How many make the audits.
    """
    audits, truth = _common(audits, truth)
    known = judge(truth)
    rows = []
    for count in _counts(models):
        parts = _parts(audits, models, count)
        judged = [judge(part) for part in parts]
        old = [_by_sides(part) for part in parts]
        size = len(audits.keys)

        def covered(found: Sequence[Floats], size: int = size) -> Estimate:
            return drawn(np.stack(found), size, _mean)

        holds = [_holds(j.score - known.score, j.reach * j.error, known.error) for j in judged]
        literal = [
            _holds(j.score - known.score, Z95 * o, known.error)
            for j, o in zip(judged, old, strict=True)
        ]
        row: list[Any] = [count, len(parts), covered(holds), covered(literal)]
        if count == 2:
            rows.append([*row[:3], None, None, None, None, None])
            continue
        width = [
            (j.reach * j.error, float(stats.t.ppf(0.975, count - 2)) * o)
            for j, o in zip(judged, old, strict=True)
        ]
        row.append(drawn(np.array(width), size, _ratio_of_means))
        row += _listed(judged, known, size)
        rows.append(row)
    columns = ["models", "audits", "95 % intervals", "1.96 × SE by sides", "width ÷ t(M − 2)"]
    columns += ["listed tenth: shrunk ± 1.96 sd", "listed tenth: interval", "RMSE shrunk ÷ literal"]
    note = (
        f"Share of {len(audits.keys)} samples whose interval holds the mean of "
        f"{truth.cmc.shape[1]} other models with other views, its own error added to the interval."
    )
    return Table("Intervals that hold the truth", columns, rows, note)


def _listed(judged: Sequence[Judged], known: Judged, size: int) -> list[Estimate]:
    hits: list[list[Floats]] = [[], []]
    squares = []
    for j in judged:
        off = [j.shrunk - known.score, j.score - known.score]
        listed = j.shrunk >= np.quantile(j.shrunk, 1 - LISTED)
        for kept, error, width in zip(hits, off, [Z95 * j.sd, j.reach * j.error], strict=True):
            kept.append(np.where(listed, _holds(error, width, known.error), np.nan))
        squares.append([np.square(o) - np.square(known.error) for o in off])
    return [
        drawn(np.stack(hits[0]), size, _mean),
        drawn(np.stack(hits[1]), size, _mean),
        drawn(np.array(squares), size, _root_ratio),
    ]


def listed(audits: Consistencies, planted: set[str], models: int) -> Table:
    """Lists by q-value of planted samples among the held-out set, which no model trained on."""
    held_out = audits.held_out
    if held_out is None:
        raise ValueError("the run kept no held-out set")
    places = np.array([i for i, key in enumerate(audits.keys) if key in planted], np.intp)
    some, rows = audits.samples(places), []
    count = len(held_out.cmc)
    mixed = Consistencies(
        (*some.keys, *(f"null-{i}" for i in range(count))),
        np.concatenate([some.cmc, held_out.cmc]),
        np.concatenate([some.member, held_out.member.astype(float)]),
        np.concatenate([some.views, np.full(count, np.nanmean(audits.views))]),
        None,
    )
    null = np.arange(len(mixed.keys)) >= len(places)
    for number in _counts(models)[1:]:
        on = np.stack([judge(part).q <= RATE for part in _parts(mixed, models, number)])

        def false(on: NDArray[np.bool_], at: Places) -> float:
            chosen = on[:, at]
            return float(np.mean((chosen & null[at]).sum(1) / chosen.sum(1).clip(min=1)))

        def power(on: NDArray[np.bool_], at: Places) -> float:
            return float(on[:, at[~null[at]]].mean())

        row = [drawn(on, len(null), statistic) for statistic in (false, power)]
        rows.append([number, len(on), float(on.sum(1).mean()), *row])
    return Table(
        f"Lists with q ≤ {RATE}",
        ["models", "audits", "listed", "false", "power"],
        rows,
        f"{len(places)} samples with a planted modality among {count} that no model trained on.",
    )


def recipes(runs: Runs, truth: Consistencies, left_out: Sequence[Consistencies]) -> Table:
    """What every recipe's ranking is worth, and what as much would cost with the first.

    Args:
        runs: Today's recipe first.
        truth: Other models of today's recipe.
        left_out: Runs that leave out a tenth at a time; none: without that truth.
    """
    truths = {"the limit of today's": _scores(truth, 2)}
    if left_out:
        several = [_scores(run, run.cmc.shape[1]) for run in left_out]
        shared = set.intersection(*(set(one) for one in several))
        truths["leaving out a tenth"] = {
            key: float(np.mean([one[key] for one in several])) for key in shared
        }
    keys = sorted(
        set.intersection(*(set(run.keys) for run, _, _ in runs.values()), *truths.values())
    )
    blocks = {
        name: run.samples(run.places(keys)).blocks(size) for name, (run, size, _) in runs.items()
    }
    today = next(iter(runs))
    rows = []
    for name, (_, size, cost) in runs.items():
        for count in _halved(blocks[name].shape[1]):
            row: list[Any] = [name, count * size, count * size * cost]
            for values in truths.values():
                known = np.array([values[key] for key in keys])
                priced = blocks[today], blocks[name], known, runs[today][1:], (size, cost), count
                row.append(drawn(priced, len(keys), _correlation))
                row.append(None if name == today else drawn(priced, len(keys), _worth))
            rows.append(row)
    columns = ["recipe", "models", "passes over the data"]
    for told in truths:
        columns += [f"Spearman to {told}", "cost today ÷ cost"]
    return Table(
        "Trust by training cost",
        columns,
        rows,
        f"{len(keys)} samples; the literal score. Cost today: passes over the data that today's "
        "recipe takes for the same correlation, between its own numbers of models.",
    )


@dataclass(frozen=True)
class Proxies:
    """Models of a cheaper kind, and what one of them costs as a share of a full one.

    Args:
        run: Their consistencies.
        operations: To embed a sample.
        seconds: To train.
    """

    run: Consistencies
    operations: float
    seconds: float


def proxies(
    audits: Consistencies, truth: Consistencies, kinds: Mapping[str, Proxies], models: int
) -> Table:
    """What the blend of two full pairs and of proxies is worth, beside full pairs alone.

    Args:
        audits: Its first models are full pairs.
        truth: Other full models.
        kinds: Name → proxies.
        models: How many of the first make the audits.
    """
    shared = (truth.keys, *(kind.run.keys for kind in kinds.values()))
    keys = sorted(set(audits.keys).intersection(*shared))
    full = audits.samples(audits.places(keys))
    known = truth.samples(truth.places(keys)).blocks(2).mean(axis=1)
    runs = {name: kind.run.samples(kind.run.places(keys)) for name, kind in kinds.items()}
    alone = {count: _predicted(full, models, count, None)[0] for count in _counts(models)[1:]}
    rows: list[list[Any]] = [
        ["none", count, 0, drawn((scores, known), len(keys), _by_columns), count, None, None, 0.0]
        for count, scores in alone.items()
    ]
    first = next(iter(kinds))
    order = np.random.default_rng(0).permutation(len(keys))
    runs["of other samples"] = runs[first].samples(order)
    for name, run in runs.items():
        kind = kinds.get(name, kinds[first])
        for count in (number for number in (4, 8, 16) if number <= run.cmc.shape[1]):
            scores, weight = _predicted(full, models, 4, run.models(range(count)))
            row = [name, 4, count, drawn((scores, known), len(keys), _by_columns)]
            costs = [4 + count * share for share in (kind.operations, kind.seconds)]
            worth = [drawn((alone, scores, known, c), len(keys), _price) for c in costs]
            rows.append([*row, costs[0], *worth, weight])
    columns = ["proxies", "full models", "proxies", "Spearman to the limit", "operations"]
    columns += ["operations of full models alone ÷", "seconds of full models alone ÷", "weight"]
    told = ", ".join(
        f"{name}: {kind.operations:.2f} of the operations of a full model, {kind.seconds:.2f} of "
        "its time"
        for name, kind in kinds.items()
    )
    note = (
        f"{len(keys)} samples; scores as they are predicted from cmc_out and MultiMem of either "
        f"side, against {truth.cmc.shape[1]} other full models. {told}. Cost of full models alone: "
        "what the same correlation takes, "
        "between their own numbers; weight of the proxies' score."
    )
    return Table("Few full models and many cheaper ones", columns, rows, note)


def _predicted(
    full: Consistencies, models: int, count: int, proxies: Consistencies | None
) -> tuple[Floats, float]:
    """(N, A) what audits of so many full models without one in common predict, each with the same
    proxies or with none, and the mean weight of the proxies' score.
    """
    other = full.models(range(4)) if proxies is None else proxies
    of_proxies = paired(other.cmc, other.member, other.cmc.shape[1] // 2)
    scores, weights = [], []
    for part in _parts(full, models, count):
        own = paired(part.cmc, part.member, count // 2)
        moments = BlendMoments()
        moments.update(own, of_proxies, np.arange(len(own)) % FOLDS)
        blend = moments.fit(float(np.nanmean(part.views)))
        if blend is None:
            raise ValueError("too few samples to blend")
        y = np.concatenate([own.mean(axis=1), of_proxies.mean(axis=1)], axis=1) - blend.mean
        scores.append(y[:, :2] @ blend.alone if proxies is None else y @ blend.weights)
        weights.append(float(blend.weights[3]))
    return np.stack(scores, axis=1), float(np.mean(weights))


def _by_columns(values: tuple[Floats, Floats], at: Places) -> float:
    """Mean correlation of the columns with the truth."""
    scores, known = values
    return _agreement(scores[at], known[at], 1)


def _price(values: tuple[Mapping[int, Floats], Floats, Floats, float], at: Places) -> float:
    """Full models alone that give the same correlation, over what it costs here in full models."""
    alone, scores, known, cost = values
    curve = [float(np.arctanh(_by_columns((s, known), at))) for s in alone.values()]
    reached = float(np.arctanh(_by_columns((scores, known), at)))
    return _equal(list(alone), curve, reached) / cost


def _equal(costs: Sequence[float], curve: Sequence[float], reached: float) -> float:
    """The cost at which a curve of Fisher's z over the log of the cost reaches this.

    Beyond either end it goes on as straight as it came; it is nearly straight.
    """
    place = int(np.clip(np.searchsorted(curve, reached) - 1, 0, len(costs) - 2))
    step = curve[place + 1] - curve[place]
    if step <= 0:
        return float("nan")
    start, end = np.log(costs[place : place + 2])
    return float(np.exp(start + (reached - curve[place]) / step * (end - start)))


def copies(grouped: Consistencies, alone: Consistencies) -> Table:
    """Exact copies: left out with their originals, and by themselves.

    Args:
        grouped: Its first four models are an audit, the others the truth.
        alone: Models that know nothing of the copies.
    """
    both = set(grouped.keys) & set(alone.keys)
    pairs = []
    for key in sorted(key for key in both if key.startswith(COPIES)):
        original = key.removeprefix(COPIES).replace("~", ".tar:", 1)
        pairs += [(key, original)] if original in both else []
    runs = (
        ("left out together", grouped.models(range(4))),
        ("each by itself", alone.models(range(4))),
    )
    truth = _of_pairs(grouped.models(range(4, grouped.cmc.shape[1])), pairs)
    rows = []
    for name, run in runs:
        both_scores = np.stack([_of_pairs(run, pairs), truth])[None]
        mean = drawn(both_scores[0, :1], len(pairs), _mean)
        rows.append([name, mean, drawn(both_scores, len(pairs), _ratio_of_means)])
    return Table(
        "Exact copies",
        ["copies are", "mean MultiMem", "÷ that of the truth"],
        rows,
        f"{len(pairs)} samples with a copy under another key; four models. The truth leaves them "
        f"out together as well, with {grouped.cmc.shape[1] - 4} other models.",
    )


def _of_pairs(run: Consistencies, pairs: Sequence[tuple[str, str]]) -> Floats:
    """Mean score of each sample and its copy."""
    scores = _scores(run, 2)
    return np.array([(scores[a] + scores[b]) / 2 for a, b in pairs])


def _common(a: Consistencies, b: Consistencies) -> tuple[Consistencies, Consistencies]:
    keys = sorted(set(a.keys) & set(b.keys))
    return a.samples(a.places(keys)), b.samples(b.places(keys))


def _counts(models: int) -> list[int]:
    return [count for count in COUNTS if count <= models]


def _parts(audits: Consistencies, models: int, count: int) -> list[Consistencies]:
    """Audits of so many models without a model in common."""
    return [audits.models(range(at, at + count)) for at in range(0, models - count + 1, count)]


def _by_sides(part: Consistencies) -> Floats:
    """The standard error that takes the two sides for independent; NaN with two models."""
    squares = np.zeros(len(part.cmc))
    for side in (part.member == 1, part.member == 0):
        values = np.where(side, part.cmc, np.nan)
        count = side.sum(axis=1)
        off = np.square(values - (np.nansum(values, axis=1) / count)[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            squares += np.nansum(off, axis=1) / (count - 1) / count
    return np.sqrt(squares)


def _holds(off: Floats, width: Floats, error: Floats) -> Floats:
    """1 where an interval holds a truth that has an error of its own, else 0."""
    return (np.square(off) <= np.square(width) + np.square(Z95 * error)).astype(float)


def _mean(values: Floats, at: Places) -> float:
    """Over audits (first axis) and samples; NaN are left out."""
    chosen = values[:, at]
    known = np.isfinite(chosen)
    return float(chosen[known].mean()) if known.any() else float("nan")


def _ratio_of_means(values: Floats, at: Places) -> float:
    """Of (audits, 2, N): first ÷ second."""
    first, second = values[:, 0, at].mean(), values[:, 1, at].mean()
    return float(first / second)


def _root_ratio(values: Floats, at: Places) -> float:
    """Its root; NaN where the truth's own error is all there is."""
    first, second = values[:, 0, at].mean(), values[:, 1, at].mean()
    return float(np.sqrt(first / second)) if min(first, second) > 0 else float("nan")


def _scores(run: Consistencies, block: int) -> dict[str, float]:
    return dict(zip(run.keys, run.blocks(block).mean(axis=1).tolist(), strict=True))


def _halved(blocks: int) -> list[int]:
    """1, 2, 4 … as long as there are so many blocks."""
    return [1 << n for n in range(blocks.bit_length())]


def _agreement(blocks: Floats, known: Floats, count: int) -> float:
    """Mean correlation with the truth of the scores by so many blocks."""
    groups = range(0, blocks.shape[1] - count + 1, count)
    found = [spearman(blocks[:, at : at + count].mean(axis=1), known) for at in groups]
    return float(np.mean(found))


def _correlation(priced: tuple[Any, ...], at: Places) -> float:
    _, blocks, known, _, _, count = priced
    return _agreement(blocks[at], known[at], count)


def _worth(priced: tuple[Any, ...], at: Places) -> float:
    """Cost of the same correlation by the first recipe, over what it costs here."""
    today, blocks, known, (first_size, first_cost), (size, cost), count = priced
    counts = _halved(today.shape[1])
    costs = [n * first_size * first_cost for n in counts]
    curve = [float(np.arctanh(_agreement(today[at], known[at], n))) for n in counts]
    reached = float(np.arctanh(_agreement(blocks[at], known[at], count)))
    spent: float = count * size * cost
    return _equal(costs, curve, reached) / spent
