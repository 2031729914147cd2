"""How true are the scores? ``python -m jobs.experiments.truth --quick``.

On shards of your own, or the demo's. One run trains many models: a few pairs of them are as many
small audits, and all others the truth that these are held against, with views of its own.

    intervals   how often they hold the truth, by number of models: of all samples, of those listed
    lists       realised share of false ones and power, planted samples among never-trained ones
    recipes     correlation with the truth, and what the same correlation costs today's recipe
    copies      exact copies of some samples, left out together and each by itself
    proxies     the same by a few full models and many narrower ones, by operations and wall time

Writes ``truth.json`` and ``truth.md``; run again, it goes on where it was. About 20 minutes of two
cores with ``--quick``, hours without. Intervals are over samples: audits that share models with one
another, and other seeds, differ by more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs import command
from jobs.experiments import truth_tables as tables
from jobs.experiments.folder import claim_folder
from jobs.experiments.judged import Consistencies
from multimem_ray.audit import score, train
from multimem_ray.config.models import ECONOMY_STOP
from multimem_ray.demo.dataset import FIELDS, LABEL, make_demo_shards
from multimem_ray.design.hashing import uniform
from multimem_ray.models.build import build_model
from multimem_ray.models.operations import operations
from multimem_ray.models.towers.narrower import narrower
from multimem_ray.planning.timings import recorded
from multimem_ray.progress import Progress
from multimem_ray.report.tables import Table
from multimem_ray.results.planted import read_truth
from multimem_ray.run import Run, load_run
from multimem_ray.sample import Sample
from multimem_ray.setup import apply_overrides, inspect, resolve
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.plant import TRUTH, plant
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage

PLANTED, COPIED = 0.08, 0.2
TODAY = "today"
RECIPES: dict[str, tuple[str, ...]] = {
    "shared_init": ("training.shared_init=true",),
    "stop_at 2/3": (f"training.stop_at={ECONOMY_STOP}",),
    "both": ("training.shared_init=true", f"training.stop_at={ECONOMY_STOP}"),
    "three_folds": ("design.kind=three_folds",),
    "three_folds, stop_at 2/3": ("design.kind=three_folds", f"training.stop_at={ECONOMY_STOP}"),
}
PARTS = ("intervals", "lists", "recipes", "copies", "proxies")
NARROWER = {"half the width": 1, "a quarter": 2}
"""Proxies by how many times the width of every tower is halved."""


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    samples: int  # of the demo's shards
    epochs: int  # of each training
    batch_size: int
    width: int  # of the towers for sound and pictures; 0: as the preset has it
    audits: int  # models that make the small audits
    truth: int  # models of the truth
    recipe: int  # models of every other recipe, about
    proxies: int  # models of every kind of proxies
    views: int  # that samples are scored with
    other_views: int  # that the truth is scored with
    leave_out: int  # trainings of a truth by leaving out a tenth; 0: none


QUICK = Size(
    320, 50, 32, 8, audits=16, truth=16, recipe=8, proxies=16, views=4, other_views=8, leave_out=0
)
FULL = Size(
    800,
    60,
    128,
    16,
    audits=32,
    truth=64,
    recipe=16,
    proxies=16,
    views=4,
    other_views=16,
    leave_out=4,
)


class Study:
    """Data and runs below one folder.

    Args:
        folder: Receives everything; what is there already is not made again.
        size: How large.
        progress: What is told.
        threads: Models that train side by side.
        shards: Of your own; None: the demo's.
        sets: Overrides of the configuration of every run.
        seed: Of planting, design and training.
    """

    def __init__(
        self,
        folder: Path,
        size: Size,
        progress: Progress,
        threads: int,
        shards: str | None,
        sets: Sequence[str],
        seed: int,
    ) -> None:
        self.folder, self.size, self.progress, self.threads = folder, size, progress, threads
        self.seed, self._given, self._sets = seed, shards, tuple(sets)
        self._storage = Storage()
        settings = asdict(size) | {"shards": shards, "sets": list(sets), "seed": seed}
        claim_folder(folder, settings)

    @cached_property
    def shards(self) -> str:
        """The data, with a few samples planted."""
        place = self.folder / "planted"
        if not (place / TRUTH).exists():
            clean, fields, label = self._clean()
            plant(
                clean,
                str(place),
                fraction=PLANTED,
                fields=fields,
                label=label,
                seed=self.seed,
                storage=self._storage,
            )
        return str(place / "*.tar")

    @cached_property
    def planted(self) -> set[str]:
        """The planted samples, as :class:`Consistencies` names them."""
        truth = read_truth(str(Path(self.shards).parent / TRUTH), self._storage)
        return {f"{shard}:{key}" for shard, key in truth}

    @cached_property
    def copied(self) -> str:
        """The data, and a shard with copies of a few of the samples under keys of their own."""
        place = self.folder / "copied"
        if not (place / "copies.tar").exists():
            copies = []
            for shard in find_shards(self.shards, self._storage).shards:
                path = Path(shard.url)
                samples = [s for s in read_shard(shard.url, self._storage) if type(s) is Sample]
                draws = uniform(self.seed, "copies", [s.key for s in samples])
                with create_shard(str(place / path.name), self._storage) as writer:
                    for sample, draw in zip(samples, draws, strict=True):
                        writer.write(sample.key, sample.members)
                        if draw < COPIED:
                            copies.append((f"{path.stem}~{sample.key}", sample.members))
            with create_shard(str(place / "copies.tar"), self._storage) as writer:
                for key, members in copies:
                    writer.write(key, members)
        return str(place / "*.tar")

    def run(self, name: str, *sets: str, shards: str | None = None) -> Consistencies:
        """A run of this name, trained and scored as far as it is not yet."""
        raw: dict[str, Any] = {
            "data": {"shards": shards or self.shards},
            "held_out": {"fraction": 0.2},
            "design": {"seed": self.seed},
            "training": {
                "seed": self.seed,
                "epochs": self.size.epochs,
                "batch_size": self.size.batch_size,
                "checkpoint_every_s": 1e9,
            },
            "scoring": {"views": self.size.views},
            "resources": {
                "cache_dir": str(self.folder / "cache"),
                "train": {"cpus": self.threads, "models_per_bank": 8},
            },
        }
        if self.size.width:
            towers = {name: {"width": self.size.width} for name in ("audio", "image")}
            raw["model"] = {"towers": towers}
        if self._given is None:
            fields = {name: FIELDS[name] for name in ("audio", "image", "text")}
            raw["data"] |= {"fields": fields, "label": LABEL}
            raw["modalities"] = {"audio": {"seconds": 1.0}, "image": {"size": 32}}
        place = f"output={self.folder / 'runs' / name}"
        config = resolve(apply_overrides(raw, [place, *self._sets, *sets]))
        self.progress.say(f"run: {name}")
        quiet = Progress(Console(quiet=True))
        if config.design.kind != "given":
            train(config, quiet, executor="local")
        score(config, quiet, executor="local")
        return Consistencies.of(self.opened(config))

    @cached_property
    def audits(self) -> Consistencies:
        """All models of today's recipe; see :meth:`truth` for the latter of them."""
        return self.run(TODAY, f"design.models={self.size.audits + self.size.truth}")

    @cached_property
    def truth(self) -> Consistencies:
        """The models of the truth, with other views than those of the audits."""
        _ = self.audits  # trains them
        folders = (
            self.folder / "runs" / TODAY / "models" / f"{number:03d}"
            for number in range(self.size.audits, self.size.audits + self.size.truth)
        )
        given = [{"checkpoint": str(folder), "members": "recorded"} for folder in folders]
        views = f"scoring.views={self.size.other_views}"
        sets = ("design.kind=given", f"design.given={json.dumps(given)}", views, "scoring.seed=1")
        return self.run("truth", *sets)

    @cached_property
    def left_out(self) -> list[Consistencies]:
        """Models on everything and on all but a tenth, once for each training seed."""
        sets = ("design.kind=leave_subset_out", "design.models=11")
        seeds = range(self.seed + 1000, self.seed + 1000 + self.size.leave_out)
        return [self.run(f"left-out-{s}", *sets, f"training.seed={s}") for s in seeds]

    def recipe(self, name: str) -> Consistencies:
        """Models of another recipe."""
        sets, count = RECIPES[name], self.size.recipe
        block = 3 if any("three_folds" in item for item in sets) else 2
        place = "".join(c if c.isalnum() else "-" for c in name)
        return self.run(place, *sets, f"design.models={-(-count // block) * block}")

    def proxies(self, name: str) -> tables.Proxies:
        """Models of narrower towers, other halves and views, and what one costs of a full one."""
        full = self.opened_as(TODAY)
        modalities, narrow = full.decoder.modalities, full.config.model
        towers = {m.name: dict(narrow.towers.get(m.name, {})) for m in modalities}
        for _ in range(NARROWER[name]):
            towers = {m.name: narrower(m.name, m.spec, towers[m.name]) for m in modalities}
        place = name.replace(" ", "-")
        sets = ("design.draw=1", "scoring.seed=2", f"design.models={self.size.proxies}")
        run = self.run(place, *sets, f"model.towers={json.dumps(towers)}")
        runs = (self.opened_as(place), full)
        counts = [operations(build_model(r.config.model, modalities, 0), modalities) for r in runs]
        times = [
            [(e["seconds"], e["done"]) for e in recorded(r) if e["stage"] == "train"] for r in runs
        ]
        each = [sum(s for s, _ in time) / sum(done for _, done in time) for time in times]
        return tables.Proxies(run, counts[0] / counts[1], each[0] / each[1])

    def opened_as(self, name: str) -> Run:
        """A run of the study that there is already."""
        return Run.from_json(load_run(str(self.folder / "runs" / name), self._storage))

    @staticmethod
    def opened(config: Any) -> Run:
        """The run of a configuration."""
        return inspect(config)[0]

    def _clean(self) -> tuple[str, dict[str, str], str | None]:
        if self._given is not None:
            raw = {"data": {"shards": self._given}, "output": str(self.folder / "looked")}
            run = self.opened(resolve(apply_overrides(raw, self._sets)))
            return self._given, dict(run.fields), run.label
        place = self.folder / "clean"
        if not place.exists():
            make_demo_shards(place, samples=self.size.samples, shards=2, seed=self.seed)
        fields = {name: FIELDS[name] for name in ("audio", "image", "text")}
        return str(place / "*.tar"), fields, LABEL


def made(study: Study, parts: Sequence[str]) -> Iterator[Table]:
    """The tables, one after the other."""
    size = study.size
    if "intervals" in parts:
        yield tables.intervals(study.audits, study.truth, size.audits)
    if "lists" in parts:
        yield tables.listed(study.audits, study.planted, size.audits)
    if "recipes" in parts:
        runs = {
            TODAY: (study.audits.models(range(size.audits)), 2, 0.5),
            **{name: (study.recipe(name), *_block(sets)) for name, sets in RECIPES.items()},
        }
        yield tables.recipes(runs, study.truth, study.left_out)
    if "copies" in parts:
        grouped = study.run("grouped", "design.models=12", shards=study.copied)
        alone = study.run("by-key", "design.models=4", "design.group=key", shards=study.copied)
        yield tables.copies(grouped, alone)

    if "proxies" in parts:
        found = {name: study.proxies(name) for name in NARROWER}
        yield tables.proxies(study.audits, study.truth, found, size.audits)


def _block(sets: Sequence[str]) -> tuple[int, float]:
    """Models of a block, and passes over the data that one of them costs."""
    folds = any("three_folds" in item for item in sets)
    stopped = ECONOMY_STOP if any("stop_at" in item for item in sets) else 1.0
    return (3, 2 / 3 * stopped) if folds else (2, 0.5 * stopped)


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments, run what is not done, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="minutes, on small trainings")
    parser.add_argument("--out", type=Path, default=Path("truth"), help="folder for everything")
    parser.add_argument("--shards", help="your own shards; default: the demo's, made here")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--threads", type=int, default=2, help="models that train side by side")
    parser.add_argument("--seed", type=int, default=0, help="of planting, design and training")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the configuration"
    )
    for name in asdict(QUICK):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    given = {name: getattr(asked, name) for name in asdict(QUICK)}
    size = replace(
        QUICK if asked.quick else FULL, **{k: v for k, v in given.items() if v is not None}
    )
    progress, started = Progress(), time.monotonic()
    study = Study(
        asked.out.absolute(), size, progress, asked.threads, asked.shards, asked.set, asked.seed
    )
    done = []
    for table in made(study, asked.only):
        done.append(table)
        _write(study, done, time.monotonic() - started)
        progress.say(f"{study.folder / 'truth.md'}: {table.title}")


def _write(study: Study, done: Sequence[Table], seconds: float) -> None:
    content = {
        "size": asdict(study.size),
        "seed": study.seed,
        "seconds": round(seconds),
        "tables": [table.as_dict() for table in done],
    }
    (study.folder / "truth.json").write_text(json.dumps(content, indent=1))
    (study.folder / "truth.md").write_text("\n".join(map(tables.markdown, done)))


if __name__ == "__main__":
    command.run(main)
