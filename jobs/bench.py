"""Small audits for tables: made data with a few samples planted, trained in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from multimem_ray.config import apply_overrides, resolve
from multimem_ray.demo.dataset import LABEL, make_demo_shards
from multimem_ray.mitigation.in_process import audit_here
from multimem_ray.mitigation.trials import Condition, Record, run_trials
from multimem_ray.progress import Progress
from multimem_ray.results.reader import ScoreTable
from multimem_ray.run import Run
from multimem_ray.shards.plant import TRUTH, plant
from multimem_ray.storage import Storage

FIELDS = {"audio": "flac", "image": "jpg", "text": "txt"}
PLANTED = 0.08


@dataclass(frozen=True)
class Size:
    """How large the experiments are.

    Args:
        samples: Samples of the data set.
        epochs: Of each training.
        batch_size: Small enough that regrouped samples, which make batches of their own, are few
            among all batches: else it is the number of steps that is measured.
        width: Of the convolutional towers.
        seeds: Of each condition.
        views: Per sample in scoring.
        models: In the table on the number of models.
    """

    samples: int
    epochs: int
    batch_size: int
    width: int
    seeds: int
    views: int
    models: int

    def with_seeds(self, seeds: int | None) -> Size:
        """Another number of seeds, if one is given."""
        return self if seeds is None else replace(self, seeds=seeds)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Bench:
    """Data and trainings below one folder.

    Args:
        folder: Receives everything; what is there already is not made again.
        size: How large.
        progress: What is told.
        threads: Models that train side by side.
    """

    def __init__(self, folder: Path, size: Size, progress: Progress, threads: int = 2) -> None:
        self.folder, self.size, self.progress, self.threads = folder, size, progress, threads
        self.storage = Storage()
        self.quiet = Progress(Console(quiet=True))

    @property
    def seeds(self) -> list[int]:
        """Seeds of each condition."""
        return list(range(self.size.seeds))

    @cached_property
    def shards(self) -> Path:
        """The data with samples planted in any modality."""
        return self.planted(None)

    def planted(self, modality: str | None) -> Path:
        """A copy of the data with samples planted in one modality, or in any."""
        out = self.folder / "data" / f"planted-{modality or 'any'}"
        if not (out / TRUTH).exists():
            plant(
                str(self._clean / "*.tar"),
                str(out),
                fraction=PLANTED,
                fields=FIELDS,
                label=LABEL,
                modality=modality,
                storage=self.storage,
            )
        return out

    @cached_property
    def strange(self) -> Path:
        """Other data: their modalities often disagree."""
        out = self.folder / "data" / "strange"
        if not out.exists():
            make_demo_shards(out, samples=max(100, self.size.samples // 5), seed=1, noise=0.5)
        return out

    def raw(self, shards: Path | None = None) -> dict[str, Any]:
        """A configuration without its output."""
        place = shards or self.shards
        size = self.size
        return {
            "data": {
                "shards": str(place / "*.tar"),
                "fields": FIELDS,
                "planted": str(place / TRUTH),
                "label": LABEL,
            },
            "held_out": {"fraction": 0.2},
            "design": {"models": 2},
            "model": {"towers": {name: {"width": size.width} for name in ("audio", "image")}},
            "training": {
                "epochs": size.epochs,
                "batch_size": size.batch_size,
                "checkpoint_every_s": 1e9,
            },
            "scoring": {"views": size.views},
            "resources": {"cache_dir": str(self.folder / "cache")},
        }

    def trials(self, conditions: Sequence[Condition]) -> list[Record]:
        """All seeds of some conditions, the plain training first."""
        return run_trials(
            self.raw(), conditions, self.seeds, self.folder / "runs", self.progress, self.threads
        )

    def run(self, name: str, *sets: str, shards: Path | None = None) -> Run:
        """One audit."""
        output = f"output={self.folder / 'single' / name}"
        config = resolve(apply_overrides(self.raw(shards), [output, *sets]))
        return audit_here(config, self.quiet, self.threads)

    def rows(self, run: Run, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of its scores."""
        table = ScoreTable(run.output, self.storage)
        found: list[dict[str, Any]] = pa.Table.from_batches(
            list(table.batches(columns))
        ).to_pylist()
        return found

    @property
    def _clean(self) -> Path:
        out = self.folder / "data" / "clean"
        if not out.exists():
            make_demo_shards(out, samples=self.size.samples)
        return out
