"""What the papers say, and whether it shows here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.experiments.trials import Paired, Record, mean_se, paired, values
from multimem_ray.report.tables import Table

MATCHED, R5 = "memory/matched", "utility/R@5"
LEVEL = 0.05
"""p-values from here on are called noise."""


@dataclass(frozen=True)
class Finding:
    """Something the papers say, and whether it shows here."""

    statement: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class Section:
    """A finished part: tables, and what they say."""

    name: str
    tables: Sequence[Table]
    findings: Sequence[Finding]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tables": [table.as_dict() for table in self.tables],
            "findings": [asdict(finding) for finding in self.findings],
        }


def lower(records: Sequence[Record], name: str, than: str, statement: str) -> Finding:
    """Whether a condition has less MultiMem than another."""
    change = paired(records, name, than, MATCHED)
    share = change.mean / mean_se(values(records, than, MATCHED))[0]
    return Finding(statement, change.mean < 0, f"{share:+.1%}, {_chance(change)}")


def higher(records: Sequence[Record], name: str, than: str, statement: str) -> Finding:
    """Whether a condition has a better top-5 retrieval than another."""
    gain = paired(records, name, than, R5)
    return Finding(statement, gain.mean > 0, f"{100 * gain.mean:+.1f} points, {_chance(gain)}")


def _chance(difference: Paired) -> str:
    """The p-value of a paired test, and whether so few seeds tell anything."""
    beyond = "" if difference.p < LEVEL else ", within the noise of these seeds"
    return f"p {difference.p:.3f}{beyond}"
