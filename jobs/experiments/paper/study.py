"""The audits behind the tables: data with a few samples planted, trained in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from jobs.experiments.folder import claim_folder
from jobs.experiments.trials import Condition, Record, audit_here, run_trials
from multimem_ray.demo.dataset import FIELDS, LABEL, make_demo_shards
from multimem_ray.progress import Progress
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run
from multimem_ray.setup import apply_overrides, inspect, resolve
from multimem_ray.shards.plant import TRUTH, plant
from multimem_ray.storage import Storage

PLANTED = 0.08


@dataclass(frozen=True)
class Data:
    """What is trained on."""

    shards: str | None = None  # clean ones, as `data.shards`; None: the demo's, made here
    fields: Mapping[str, str] = field(  # modality → field of a sample, those that take part
        default_factory=lambda: {name: FIELDS[name] for name in ("audio", "image", "text")}
    )
    label: str | None = LABEL  # field with the class; None: found, if there is one
    other: str | None = None  # shards of another distribution, to be held out; the demo's: its own

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities, sorted."""
        return tuple(sorted(self.fields))


DEMO = Data()


@dataclass(frozen=True)
class Size:
    """How large the experiments are."""

    samples: int  # of the data set
    epochs: int  # of each training
    # Small enough that regrouped samples, which make batches of their own, are few among all
    # batches: else it is the number of steps that is measured.
    batch_size: int
    width: int  # of the convolutional towers
    seeds: int  # of each condition
    views: int  # per sample in scoring
    models: int  # in the table on the number of models


class Study:
    """Data and trainings below one folder.

    Args:
        folder: Receives everything; what is there already is not made again.
        size: How large.
        progress: What is told.
        threads: Models that train side by side.
        data: What is trained on; default: the demo's.
    """

    def __init__(
        self, folder: Path, size: Size, progress: Progress, threads: int = 2, data: Data = DEMO
    ) -> None:
        self.folder, self.size, self.progress, self.threads = folder, size, progress, threads
        self.data = data
        self.storage = Storage()
        self.quiet = Progress(Console(quiet=True))
        settings = {k: v for k, v in asdict(size).items() if k != "seeds"}
        if self.data.shards is not None:
            del settings["samples"]
        claim_folder(folder, settings | asdict(self.data))

    @property
    def seeds(self) -> list[int]:
        """Seeds of each condition."""
        return list(range(self.size.seeds))

    @property
    def like_audioclip(self) -> bool:
        """Whether the modalities are those of the model whose figures are printed."""
        return self.data.names == ("audio", "image", "text")

    @cached_property
    def label(self) -> str | None:
        """Field with the class, as an audit would find it."""
        if self.data.label is not None:
            return self.data.label
        raw = {"data": {"shards": self._clean, "fields": dict(self.data.fields)}}
        run, _ = inspect(resolve(raw | {"output": str(self.folder / "looked")}))
        return run.label

    @cached_property
    def shards(self) -> Path:
        """The data with samples planted in any modality."""
        return self.planted(None)

    def planted(self, modality: str | None) -> Path:
        """A copy of the data with samples planted in one modality, or in any."""
        out = self.folder / "data" / f"planted-{modality or 'any'}"
        if not (out / TRUTH).exists():
            plant(
                self._clean,
                str(out),
                fraction=PLANTED,
                fields=self.data.fields,
                label=self.label,
                modality=modality,
                storage=self.storage,
            )
        return out

    @cached_property
    def other(self) -> str | None:
        """Shards of another distribution: the demo's have modalities that often disagree."""
        if self.data.shards is not None:
            return self.data.other
        out = self.folder / "data" / "other"
        if not out.exists():
            make_demo_shards(out, samples=max(100, self.size.samples // 5), seed=1, noise=0.5)
        return str(out / "*.tar")

    def raw(self, shards: Path | None = None) -> dict[str, Any]:
        """A configuration without its output."""
        place = shards or self.shards
        size = self.size
        drawn = [name for name in self.data.names if name in ("audio", "image", "video")]
        return {
            "data": {
                "shards": str(place / "*.tar"),
                "fields": dict(self.data.fields),
                "planted": str(place / TRUTH),
                "label": self.label,
            },
            "held_out": {"fraction": 0.2},
            "design": {"models": 2},
            "model": {"towers": {name: {"width": size.width} for name in drawn}},
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
        cpus = f"resources.train.cpus={self.threads}"
        config = resolve(apply_overrides(self.raw(shards), [output, cpus, *sets]))
        return audit_here(config, self.quiet)

    def rows(self, run: Run, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of its scores."""
        table = ScoreTable(run.output, self.storage)
        rows: list[dict[str, Any]] = pa.Table.from_batches(list(table.batches(columns))).to_pylist()
        return rows

    @property
    def _clean(self) -> str:
        if self.data.shards is not None:
            return self.data.shards
        out = self.folder / "data" / "clean"
        if not out.exists():
            make_demo_shards(out, samples=self.size.samples)
        return str(out / "*.tar")
