"""The demo: make shards, plant misalignment, audit them, say what was found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from multimem_ray.audit import audit
from multimem_ray.config import Config
from multimem_ray.demo.dataset import FIELDS, LABEL, make_demo_shards
from multimem_ray.progress import Progress
from multimem_ray.results.terminal import print_summary
from multimem_ray.setup import resolve
from multimem_ray.shards.plant import plant
from multimem_ray.storage import Storage

PLANTED = 0.08
EPOCHS = 60


def run_demo(folder: Path, samples: int, progress: Progress, console: Console) -> None:
    """Make the data in ``folder`` unless it is there, audit it into ``folder/run``.

    Running it again resumes what was interrupted; a folder made for another number of samples
    gets its data anew.
    """
    progress.say(
        f"The demo makes {samples} samples with sound, picture, video and caption, gives "
        f"{100 * PLANTED:.0f} % of them a wrong one, trains four small models that each know half "
        "of the data, and asks them which samples they memorized."
    )
    truth = _make_data(folder, samples, progress)
    config = demo_config(folder, samples, truth)
    print_summary(audit(config, progress), config.output, console)
    console.print(
        "The planted samples don't fit together, so a model can only learn them by heart: "
        "MultiMem finds them where the consistency of the model that learned them no longer does.",
        highlight=False,
    )


def demo_config(folder: Path, samples: int, truth: str) -> Config:
    """The demo's configuration: the defaults, with fewer epochs and smaller video."""
    return resolve(
        {
            "output": str(folder / f"run-{samples}"),
            "data": {"shards": str(folder / f"planted-{samples}" / "*.tar"), "planted": truth},
            "training": {"epochs": EPOCHS},
            "modalities": {"video": {"frames": 4}},
            "report": {"title": "multimem demo"},
        }
    )


def _make_data(folder: Path, samples: int, progress: Progress) -> str:
    planted = folder / f"planted-{samples}"
    truth = planted / "planted.parquet"
    if truth.exists():
        progress.say(f"data: {planted} is there already")
        return str(truth)
    clean = folder / f"clean-{samples}"
    with progress.task("make samples", samples, unit="samples") as shown:
        make_demo_shards(clean, samples=samples, progress=shown.update)
    made = plant(
        str(clean / "*.tar"),
        str(planted),
        fraction=PLANTED,
        fields=FIELDS,
        label=LABEL,
        storage=Storage(),
    )
    return made.truth
