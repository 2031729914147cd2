"""What a verification finds: faults, each with the way out, and what was looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from multimem_ray.errors import MultiMemError


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written.

    Args:
        what: In one line: the file, what is wrong with it, and what to do.
    """

    file: str
    what: str


@dataclass
class Finding:
    """Faults of a run, what was looked at, and what is merely worth knowing.

    Args:
        vouched: Files that some marker names.
    """

    faults: list[Fault] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    vouched: set[str] = field(default_factory=set)

    def fault(self, file: str, what: str, way_out: str) -> None:
        """Note a fault of a file."""
        self.faults.append(Fault(file, f"{file}: {what}; {way_out}"))

    def told(self, file: str, error: MultiMemError) -> None:
        """Note a fault that a reader told, way out and all."""
        self.faults.append(Fault(file, str(error)))

    def add(self, other: Finding) -> None:
        """Take over what another one has."""
        self.faults += other.faults
        self.checked += other.checked
        self.notes += other.notes
        self.vouched |= other.vouched

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        faults = [{"file": fault.file, "what": fault.what} for fault in self.faults]
        checked = dict(self.checked)
        return {"clean": not faults, "faults": faults, "checked": checked, "notes": self.notes}

    def lines(self) -> list[str]:
        """For people."""
        looked = ", ".join(f"{count:,} {name}" for name, count in self.checked.items())
        verdict = f"{len(self.faults)} faults" if self.faults else "clean"
        return [*(fault.what for fault in self.faults), *self.notes, f"{verdict}: {looked}"]
