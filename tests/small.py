"""A small audit that trains in seconds: forty samples with picture, sound and caption."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image
from rich.console import Console

from multimem_ray.audit import audit, score, train
from multimem_ray.config import Config
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.setup import apply_overrides, inspect, resolve
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage

QUIET = Progress(Console(file=io.StringIO(), width=200))

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230)}


def members(number: int, *, image: bool = True) -> dict[str, bytes]:
    """The members of one sample; its colour is heard, seen and named."""
    rng = np.random.default_rng(number)
    name = sorted(COLOURS)[number % len(COLOURS)]
    noise = rng.integers(0, 40, (24, 24, 3))
    pixels = np.clip(np.array(COLOURS[name]) + noise - 20, 0, 255).astype(np.uint8)
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    tone = 0.4 * np.sin(np.arange(2000) * 0.1 * (1 + number % len(COLOURS)))
    soundfile.write(sound, tone + 0.05 * rng.normal(size=2000), 8000, format="FLAC")
    described = {"label": name, "source": f"tape-{number // 2}", "caption": f"a {name} thing"}
    found = {
        "flac": sound.getvalue(),
        "txt": f"a {name} thing number {number}".encode(),
        "json": json.dumps(described).encode(),
    }
    return found | ({"png": picture.getvalue()} if image else {})


def write_shards(folder: Path, samples: int = 40, shards: int = 2) -> Path:
    """Shards of the samples 0 … samples - 1 in equal parts; every fifth lacks its picture."""
    with ShardWriter(str(folder), max_samples=-(-samples // shards)) as writer:
        for number in range(samples):
            writer.write(f"s{number:04d}", members(number, image=number % 5 != 4))
    return folder


def small_raw(shards: Path, output: Path) -> Mapping[str, Any]:
    """An audit of those shards with two small models and two epochs, as a file would have it."""
    return {
        "output": str(output),
        "data": {"shards": str(shards / "*.tar")},
        "held_out": {"fraction": 0.2},
        "design": {"models": 2, "group": "key"},
        "model": {"dim": 16, "towers": {"image": {"width": 4}, "audio": {"width": 4}}},
        "training": {"epochs": 2, "batch_size": 8, "checkpoint_every_s": 0},
        "scoring": {"views": 2, "partitions": 4},
        "modalities": {"audio": {"seconds": 0.2}, "image": {"size": 16}},
        "resources": {"cache_dir": str(output.parent / "cache")},
    }


def small_config(shards: Path, output: Path, *sets: str) -> Config:
    """The configuration of :func:`small_raw`, with overrides."""
    return resolve(apply_overrides(small_raw(shards, output), sets))


def small_run(folder: Path, *sets: str, samples: int = 40) -> tuple[Run, Shards]:
    """The opened run of :func:`small_config`, with its shards under ``folder``."""
    shards = folder / "shards"
    if not shards.exists():
        write_shards(shards, samples)
    return inspect(small_config(shards, folder / "out", *sets))


def trained(run: Run) -> dict[str, dict[str, Any]]:
    """Train a run's models in this process; per model, the line of its last epoch."""
    train(run.config, QUIET, executor="local")
    return {model: run.model_folder(model).history()[-1] for model in run.design.model_ids()}


def scored(run: Run) -> pa.Table:
    """Score a run in this process; its rows, sorted by key."""
    score(run.config, QUIET, executor="local")
    files = sorted(Path(run.output, "scores").rglob("*.parquet"))
    tables = [pq.read_table(path, partitioning=None) for path in files]
    return pa.concat_tables(tables).sort_by("key")


def audited(folder: Path) -> str:
    """Output of a finished audit of 40 samples with URLs; the first two are copies of each other.

    Sample 7 is damaged, and more are held out than the means are made of.
    """
    shards = folder / "shards"
    with ShardWriter(str(shards), max_samples=20) as writer:
        for number in range(40):
            own = members(max(1, number), image=number % 5 != 4)
            about = {
                "url": f"https://host{number % 3}.example/{number}.png",
                "source": f"tape-{number // 10}",
                "label": sorted(COLOURS)[number % 3],
            }
            own["json"] = json.dumps(about).encode()
            if number == 7:
                own["flac"], own["png"] = b"no sound", b"no picture"
            writer.write(f"s{number:04d}", own)
    more = ("design.group=content", "design.models=4", "held_out.max_samples=2")
    config = small_config(shards, folder / "out", *more)
    audit(config, QUIET, executor="local")
    return config.output


def first_samples(shard: Path, folder: Path, count: int) -> Path:
    """A shard of the first samples of another one."""
    with ShardWriter(str(folder), max_samples=count) as writer:
        for item in islice(read_shard(str(shard), Storage()), count):
            assert isinstance(item, Sample)
            writer.write(item.key, item.members)
    return min(folder.glob("*.tar"))
