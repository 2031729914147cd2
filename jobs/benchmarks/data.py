"""What the benchmarks work on: shards repeated to size, and runs whose models need no training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from multimem_ray.config import Config
from multimem_ray.demo.dataset import make_demo_shards
from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

DEMO_SAMPLES = 250


def shards_or_demo(shards: Sequence[str], folder: Path, samples: int = DEMO_SAMPLES) -> list[str]:
    """The given shards; if there are none, the demo's, made in the folder."""
    return list(shards) or [str(path) for path in make_demo_shards(folder, samples=samples)]


def read_samples(shards: Sequence[str]) -> list[Sample]:
    """The samples of the first shard.

    Raises:
        ShardNotFoundError: There are no such shards.
    """
    storage = Storage()
    first = find_shards(list(shards), storage).shards[0]
    return [item for item in read_shard(first.url, storage) if isinstance(item, Sample)]


def make_run(
    folder: Path,
    shards: Sequence[str],
    *,
    samples: int,
    models: int,
    modalities: Sequence[str] = (),
    workers: int = 1,
) -> Path:
    """A run whose models have their first weights: scoring costs the same as with trained ones.

    Args:
        folder: Receives everything.
        shards: Are repeated up to the wanted number of samples; default: the demo's.
        samples: At least so many.
        models: How many.
        modalities: Those that take part; default: all that the shards have.
        workers: Actors that score.

    Returns:
        The configuration, a YAML file; ``output`` lies beside it.
    """
    repeat(shards_or_demo(shards, folder / "demo"), folder / "shards", samples)
    config = _config(folder, models, workers)
    run, _ = inspect(config)
    if modalities:
        config = _config(folder, models, workers, {name: run.fields[name] for name in modalities})
        run, _ = inspect(config)
    finish_models(run)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    return path


def repeat(shards: Sequence[str], folder: Path, samples: int) -> list[Path]:
    """Copies of the shards, again and again, until they hold so many samples."""
    storage = Storage()
    sources = find_shards(list(shards), storage).shards
    sizes = [
        sum(isinstance(item, Sample) for item in read_shard(source.url, storage))
        for source in sources
    ]
    folder.mkdir(parents=True)
    copies: list[Path] = []
    while not copies or sum(sizes[i % len(sizes)] for i in range(len(copies))) < samples:
        source = sources[len(copies) % len(sources)]
        with storage.local_copy(source.url) as local:
            copies.append(Path(shutil.copy(local, folder / f"{len(copies):06d}.tar")))
    return copies


def finish_models(run: Run) -> None:
    """All models of a run as if they were trained."""
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})


def _config(
    folder: Path, models: int, workers: int, fields: dict[str, str] | None = None
) -> Config:
    data: dict[str, Any] = {"shards": str(folder / "shards" / "*.tar")}
    return resolve(
        {
            "output": str(folder / "out"),
            "data": data | ({"fields": fields} if fields else {}),
            "design": {"models": models},
            "resources": {"score": {"actors": workers}},
        }
    )
