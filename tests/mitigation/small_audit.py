"""An audit of a few samples in this process, without Ray: its folder is like that of any audit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.experiments.trials import audit_here
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from tests.small import small_config, write_shards

QUIET = Progress(Console(file=io.StringIO()))


def small_audit(folder: Path, name: str, *sets: str) -> Run:
    """Trained, scored and evaluated in ``folder/name``, on the shards in ``folder/shards``."""
    shards = folder / "shards"
    if not shards.exists():
        write_shards(shards, 60)
    config = small_config(shards, folder / name, "training.batch_size=8", *sets)
    return audit_here(config, QUIET)


def history(run: Run, model: str = "000") -> list[dict[str, Any]]:
    """Its epochs."""
    return run.model_folder(model).history()
