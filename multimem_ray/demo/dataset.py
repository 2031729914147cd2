"""Writes the demo's data set: WebDataset shards with audio, image, text and video.

A sample is a function of the seed and its index alone: how many samples there are, and how they
are dealt to shards, changes no sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from multimem_ray.demo.caption import describe
from multimem_ray.demo.picture import draw_image, draw_video
from multimem_ray.demo.scene import draw_scene, perceive
from multimem_ray.demo.sound import play
from multimem_ray.errors import ConfigError
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage

FIELDS = {"audio": "flac", "image": "jpg", "text": "txt", "video": "mp4"}
LABEL = "json.class_label"
NOISE = 0.01


def make_demo_shards(
    folder: Path,
    *,
    samples: int = 800,
    shards: int = 4,
    seed: int = 0,
    noise: float = NOISE,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Write the shards ``demo-000000.tar`` ... into a folder, which is created.

    Args:
        folder: Receives the shards, each when it is whole; those of the same name are replaced.
        samples: Number of samples, spread evenly over the shards.
        shards: Number of shards, at most one per sample.
        seed: Same seed, same bytes.
        noise: Probability with which a modality reads one attribute of its scene wrongly.
        progress: Called after each sample with how many are done.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: A number is out of its range.
        StorageError: The folder cannot be written to.
    """
    if not 1 <= shards <= samples:
        raise ConfigError(
            f"demo: {shards} shards of {samples} samples: give 1 <= shards <= samples"
        )
    if not 0 <= noise <= 1:
        raise ConfigError(f"demo: noise {noise} is a probability: give 0 <= noise <= 1")
    storage = Storage()
    paths = []
    edges = [samples * shard // shards for shard in range(shards + 1)]
    for shard, (first, last) in enumerate(pairwise(edges)):
        path = folder / f"demo-{shard:06d}.tar"
        with create_shard(str(path), storage) as writer:
            for index in range(first, last):
                writer.write(f"scene-{index:06d}", make_sample(seed, index, noise))
                if progress is not None:
                    progress(index + 1)
        paths.append(path)
    return paths


def make_sample(seed: int, index: int, noise: float = NOISE) -> dict[str, bytes]:
    """The members of one sample: extension to bytes, as in :data:`FIELDS`, and ``json``.

    The JSON has the class (the scene's ground), the scene, and what each modality makes of it.
    """
    scene_rng, *rngs = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence([seed, index]).spawn(1 + len(FIELDS))
    )
    scene = draw_scene(scene_rng)
    sources = dict(zip(FIELDS, rngs, strict=True))
    seen = {name: perceive(scene, noise, rng) for name, rng in sources.items()}
    about = {
        "uid": f"demo-{seed}-{index:06d}",
        "class_label": scene.ground,
        "scene": scene.as_dict(),
        "seen": {name: view.as_dict() for name, view in seen.items()},
    }
    return {
        "flac": play(seen["audio"], sources["audio"]),
        "jpg": draw_image(seen["image"], sources["image"]),
        "json": json.dumps(about, sort_keys=True).encode(),
        "mp4": draw_video(seen["video"], sources["video"]),
        "txt": describe(seen["text"], plate=1000 + index, rng=sources["text"]).encode(),
    }
