"""How far a run is, told by its files alone; also for a run on another machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from multimem_ray.fence import FOLDER
from multimem_ray.own_files import HELD_OUT_AGAIN, read_own
from multimem_ray.planning.timings import recorded
from multimem_ray.run import Run, load_run
from multimem_ray.storage import Storage
from multimem_ray.store.markers import details, valid_commits

_RECENT = 32


@dataclass(frozen=True)
class RunStatus:
    """State of a run; times in seconds.

    ``undecodable`` and ``killed`` are held-out samples that were left out of the means;
    ``epochs`` those of all models together. Hours are those of stages that have ended. ``opened``
    tells who writes into the run, or did so last.
    """

    models: int
    models_done: int
    shards: int
    shards_done: int
    missing: int
    rows: int
    held_out: int
    errors: int
    shards_per_s: float | None
    undecodable: int = 0
    killed: int = 0
    epochs: int = 0
    epochs_done: int = 0
    reported: bool = False
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    opened: str = ""

    @property
    def stage(self) -> str:
        """What is being done, or is to be done next."""
        if self.models_done < self.models:
            return "train"
        if self.shards_done < self.shards:
            return "score"
        return "done" if self.reported else "report"

    @property
    def left_s(self) -> float | None:
        """Estimated time left, from the most recent commits."""
        if not self.shards_per_s:
            return None
        return (self.shards - self.shards_done) / self.shards_per_s

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each fact, for a person."""
        epochs = f", {self.epochs_done} of {self.epochs} epochs" if self.stage == "train" else ""
        found = [
            ("stage", self.stage),
            ("reference models", f"{self.models_done} of {self.models} trained{epochs}"),
            (
                "shards",
                f"{self.shards_done} of {self.shards} committed"
                + (f", {self.missing} missing" if self.missing else ""),
            ),
            ("samples", f"{self.rows} scored, {self.held_out} held out"),
            ("errors", str(self.errors)),
        ]
        if self.undecodable or self.killed:
            told = f"{self.undecodable} could not be used, {self.killed} killed their process"
            found.append(("left out of the held-out set", told))
        if self.shards_done < self.shards and self.left_s is not None:
            rate = f"{self.shards_per_s:.2f} shards/s, about {self.left_s:.0f} s left"
            found.append(("rate", rate))
        gpus = f", {self.gpu_hours:.2g} GPU-hours" if self.gpu_hours else ""
        found.append(("took so far", f"{self.cpu_hours:.2g} core-hours{gpus}, of ended stages"))
        if self.opened:
            found.append(("opened by", self.opened))
        return found

    def sentence(self) -> str:
        """The same in one line, for whoever follows the run."""
        told = {
            "train": f"{self.models_done} of {self.models} models, "
            f"{self.epochs_done} of {self.epochs} epochs",
            "score": f"{self.shards_done} of {self.shards} shards, {self.rows} samples"
            + (f", about {self.left_s:.0f} s left" if self.left_s is not None else ""),
            "report": "summary and report are to be written",
            "done": f"{self.rows} samples scored, {self.errors} in errors/",
        }
        return f"{self.stage}: {told[self.stage]}"


def run_status(output: str, run_json: Mapping[str, Any], storage: Storage) -> RunStatus:
    """Status of the run in ``output``: one listing, and the last few markers for the rate."""
    run = Run.from_json({**run_json, "config": {**run_json["config"], "output": output}})
    commits = valid_commits(storage, output, run_json["fingerprint"])
    ids = run.design.model_ids()
    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(run.is_trained, ids))
        recent = sorted(
            float(d["finished_at"])
            for d in pool.map(
                lambda c: details(storage, c, finished_at=(int, float)), commits[-_RECENT:]
            )
        )
        epochs = run.config.training.trained_epochs
        trained = pool.map(lambda one: _epochs_done(run, one, epochs), ids)
        epochs_done = sum(trained)
    held_out = _held_out(output, run_json, storage)
    hours = [(e["seconds"] / 3600, e["cpus"], e["gpus"]) for e in recorded(run)]
    return RunStatus(
        models=len(ids),
        models_done=done,
        shards=int(run_json["shards"]),
        shards_done=len(commits),
        missing=len(run_json["missing"]),
        rows=sum(c.rows for c in commits),
        held_out=sum(c.held_out for c in commits),
        errors=sum(c.errors for c in commits),
        shards_per_s=_rate(recent),
        undecodable=int(held_out.get("undecodable", 0)),
        killed=len(held_out.get("killed", [])),
        epochs=epochs * len(ids),
        epochs_done=epochs_done,
        reported=_is_reported(run, len(commits)),
        cpu_hours=sum(h * cpus for h, cpus, _ in hours),
        gpu_hours=sum(h * gpus for h, _, gpus in hours),
        opened=_opened(run),
    )


def follow(
    output: str, storage: Storage, say: Callable[[str], None], every_s: float = 2.0
) -> RunStatus:
    """Say how far the run is whenever that has changed, until it is done.

    Args:
        every_s: Seconds between two looks.
    """
    said = ""
    while True:
        status = run_status(output, load_run(output, storage), storage)
        # How long it will take changes with every look, and is no news.
        news = status.sentence().partition(", about ")[0]
        if news != said:
            said = news
            say(status.sentence())
        if status.stage == "done":
            return status
        time.sleep(every_s)


def _epochs_done(run: Run, model_id: str, epochs: int) -> int:
    if run.is_trained(model_id):
        return epochs
    return len(run.model_folder(model_id).history())


def _is_reported(run: Run, commits: int) -> bool:
    """Whether the summary is there, of all that is committed."""
    url = run.path("summary.json")
    if not run.storage.exists(url):
        return False
    summary = read_own(run.storage, url, "run `multimem report` again")
    return bool((summary.get("verdict") or {}).get("of", {}).get("shards") == commits)


def _opened(run: Run) -> str:
    """Process and host that opened the run last; empty of runs that nobody fenced."""
    folder = run.path(FOLDER)
    files = [info.url for info in run.storage.list(folder, recursive=False)]
    if not files:
        return ""
    last = read_own(run.storage, max(files), "it is told anew when the run is opened again")
    return f"process {last.get('pid')} on {last.get('host')}, {last.get('at')}"


def _held_out(output: str, run_json: Mapping[str, Any], storage: Storage) -> dict[str, Any]:
    """What is told of the held-out set; {} before it is embedded."""
    url = storage.join(output, "held_out", "held_out.json")
    known = read_own(storage, url, HELD_OUT_AGAIN) if storage.exists(url) else {}
    return known if known.get("fingerprint") == run_json["fingerprint"] else {}


def _rate(times: list[float]) -> float | None:
    """Commits per second over a span of recent ones; None when it cannot be told."""
    if len(times) < 2:
        return None
    span = max(times[-1], time.time()) - times[0] if time.time() - times[-1] < 600 else 0.0
    return len(times) / span if span > 0 else None
