"""Which reliability, and which power of a list, to expect of a number of models.

Scores that the output holds already tell it; of a run that is still to come, figures that were
measured elsewhere give an idea.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from multimem_ray.design.membership import BLOCKS
from multimem_ray.results.arrays import floats
from multimem_ray.results.population import stored_population
from multimem_ray.results.reliability import reliability_of
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run
from multimem_ray.store.schema import SCORE
from multimem_ray.verdict.forecast import Forecast, forecast, forecast_of_one

BLOCKS_SHOWN = (1, 2, 4, 8, 16)
LEAST = 30
MEASURED = (
    Forecast(1, 0.43, 0.65, None),
    Forecast(2, 0.55, 0.74, 0.56),
    Forecast(4, 0.69, 0.83, 0.69),
    Forecast(8, 0.80, 0.89, 0.76),
    Forecast(16, 0.88, 0.94, 0.84),
)
"""The demo set: 762 samples, 64 of them planted, 16 pairs, 60 epochs, 8 views."""
ELSEWHERE = (
    "measured on the demo set (762 samples, 60 epochs, 16 pairs of models), nothing is known of "
    "these data yet: `multimem audit` with four models, then `multimem plan` again, tells"
)


@dataclass(frozen=True)
class Trust:
    """What is expected.

    Attributes:
        block: Models in a block.
        rows: By number of blocks.
        source: What it follows from, in words.
    """

    block: int
    rows: tuple[Forecast, ...]
    source: str

    def as_json(self) -> dict[str, Any]:
        """For ``plan.json``; by number of models."""
        rows = [{"models": self.block * row.blocks, **asdict(row)} for row in self.rows]
        return {"source": self.source, "rows": rows}

    def models_for(self, reliability: float) -> int | None:
        """Fewest models, among those of the rows, whose ranking is so reliable; None: none is."""
        rows = (row for row in self.rows if row.reliability >= reliability)
        enough = next(rows, None)
        return None if enough is None else self.block * enough.blocks

    def lines(self) -> Iterator[tuple[str, str]]:
        """Name and value of each fact, for a person."""
        for row in self.rows:
            listed = "no list with a known share of false ones"
            if row.power is not None:
                found = f"{100 * row.power:.0f} % of the most memorized fifth"
                listed = f"a list with 5 % false ones finds {found}"
            said = f"reliability of the ranking {row.reliability:.2f}, correlation with its limit "
            yield f"with {self.block * row.blocks} models", f"{said}{row.limit:.2f}; {listed}"
        yield "these figures", self.source


def expected_trust(run: Run) -> Trust | None:
    """What to expect of the run with other numbers of models; None in designs without blocks."""
    design = run.config.design
    if design.kind not in BLOCKS or design.kind == "candidate" or design.target is not None:
        return None
    block = BLOCKS[design.kind]
    known = _of_scores(ScoreTable(run.output, run.storage), block)
    if known is not None:
        return known
    return Trust(2, MEASURED, ELSEWHERE)


def _of_scores(table: ScoreTable, block: int) -> Trust | None:
    """What the scores of a run tell; None where there are none, or too few."""
    document = table.document("run.json")
    kind = ((document.get("config") or {}).get("design") or {}).get("kind")
    if BLOCKS.get(str(kind)) != block or not table.score_files:
        return None
    values = reliability_of(table).by_block
    if len(values) >= LEAST:
        rows = forecast(values, BLOCKS_SHOWN, table.verdict.views)
        if rows:
            models = block * values.shape[1]
            return Trust(block, tuple(rows), f"from the {models} models that are scored")
    population = stored_population(table.output, table.storage)
    if block != 2 or population is None or population.cmc.shape[1] != 2:
        return None
    scores = np.concatenate([floats(batch[SCORE]) for batch in table.batches([SCORE])])
    d = population.cmc[:, 0] - population.cmc[:, 1]
    d = d[np.isfinite(d)]
    if len(d) < LEAST:
        return None
    rows = forecast_of_one(scores[np.isfinite(scores)], float(d.var(ddof=1)), BLOCKS_SHOWN)
    said = "from the first pair and how its models differ on held-out samples"
    return Trust(block, tuple(rows), said) if rows else None
