"""A selection as a user asks for it: what ranks, how much goes, under which name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multimem_ray.errors import ConfigError
from multimem_ray.results.cut import Rule, beyond
from multimem_ray.results.ranking import Ranking, ranking
from multimem_ray.results.reader import ScoreTable
from multimem_ray.results.selections import Kind, Selection, cut_at, write_datacomp, write_selection

_KINDS: tuple[Kind, ...] = ("keep", "remove")


@dataclass(frozen=True)
class Wanted:
    """What is removed; exactly one of ``top``, ``percent``, ``above`` and ``random`` is given.

    Args:
        by: What ranks; see :func:`multimem_ray.results.ranking.ranking`.
        top: So many samples.
        percent: So many in a hundred of those that have the score.
        above: All that score above this (below, where low is suspicious).
        se_margin: With ``above``: by so many standard errors.
        random: So many, drawn at random.
        seed: Of the draw.
    """

    by: str = "multimem"
    top: int | None = None
    percent: float | None = None
    above: float | None = None
    se_margin: float = 0.0
    random: int | None = None
    seed: int = 0

    def rule(self, table: ScoreTable) -> Rule:
        """What it removes from a run.

        Raises:
            ConfigError: Not exactly one size is given, or it is not possible.
        """
        sizes = (self.top, self.percent, self.above, self.random)
        if sum(size is not None for size in sizes) != 1:
            raise ConfigError("select: give exactly one of --top, --percent, --above and --random")
        if self.se_margin and self.above is None:
            raise ConfigError("select: --se-margin belongs to --above")
        found = self._ranking(table)
        if self.above is not None:
            return beyond(found, self.above, self.se_margin)
        if self.percent is not None:
            return cut_at(table, found, fraction=self.percent / 100)
        return cut_at(table, found, n=self.top if self.random is None else self.random)

    def about(self) -> dict[str, Any]:
        """What was asked for, for ``selection.json``."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        drawn = self.random is not None or self.by == "random"
        shown = {"seed": drawn, "se_margin": bool(self.se_margin), "by": False}
        return {"asked": {name: value for name, value in given.items() if shown.get(name, True)}}

    def _ranking(self, table: ScoreTable) -> Ranking:
        by = "random" if self.random is not None else self.by
        return ranking(table, by, seed=self.seed)


def select_samples(
    table: ScoreTable, wanted: Wanted, name: str | None = None, *, datacomp: bool = False
) -> Selection:
    """Write the lists under the run's ``selections/``.

    Args:
        table: The scores of a run.
        wanted: What is removed.
        name: Of the selection; by default what ranks.
        datacomp: Also write ``keep.npy`` and ``remove.npy``.

    Raises:
        ConfigError: It is not possible, nothing is scored yet, or keys are no uids for DataComp.
        StorageError: A file cannot be read or written.
    """
    if not table.score_files:
        raise ConfigError(f"{table.output}: nothing is scored yet; run `multimem audit` first")
    rule = wanted.rule(table)
    made = write_selection(table, name or rule.ranking.name, rule, wanted.about())
    if datacomp:
        for kind in _KINDS:
            url = table.storage.join(made.folder, f"{kind}.npy")
            write_datacomp(table.storage, made.parts[kind], url)
    return made
