"""Decoding on one core, modality by modality, beside the bare decoder.

    python jobs/decoding.py SHARDS … [--samples 200] [--repeats 7] [--json decoding.json]

The bare decoder is what a script would call: Pillow or torchvision and a resize,
``soundfile.read``, PyAV's frames, ``bytes.decode``; without checks, limits and resampling. Both
sides take turns on the same samples, in one process with one thread, by CPU time; medians count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
import torchvision
from PIL import Image
from rich.console import Console

from jobs import command
from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Modality
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import find_fields
from multimem_ray.sample import Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

Bare = Callable[[Any], object]


@dataclass(frozen=True)
class Comparison:
    """A modality on one core.

    Attributes:
        modality: Its name.
        bare: What it is compared with.
        ours_ms: CPU time of our decoding, a sample.
        bare_ms: CPU time of the bare decoder.
        view_ms: CPU time of one random view, which the bare decoder does not make.
        cost: Median over the turns of our time by that of the bare decoder.
        samples: Number of samples of a turn.
    """

    modality: str
    bare: str
    ours_ms: float
    bare_ms: float
    view_ms: float
    cost: float
    samples: int


def main(arguments: list[str]) -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description="Decoding beside the bare decoders.")
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", default="")
    options = parser.parse_args(arguments)
    found = list(compare(options.shards, options.samples, options.repeats))
    Console(width=110).print(table(found), markup=False)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(c) for c in found], indent=1))


def compare(shards: list[str], samples: int = 200, repeats: int = 7) -> Iterator[Comparison]:
    """Every modality of the first samples, beside each bare decoder that it has."""
    storage = Storage()
    items = (
        i for shard in find_shards(shards, storage).shards for i in read_shard(shard.url, storage)
    )
    some = list(islice((item for item in items if isinstance(item, Sample)), samples))
    decoder = Decoder(find_fields(some))
    with _one_thread():
        for modality in decoder.modalities:
            values = list(_usable(modality, decoder, some))
            for name, bare in BARE.get(modality.name, {}).items():
                if values:
                    yield _turns(modality, name, bare, values, repeats)


def _usable(modality: Modality, decoder: Decoder, samples: list[Sample]) -> Iterator[Any]:
    for sample in samples:
        with contextlib.suppress(SampleError):
            value = decoder.fields.value(sample, modality.name)
            if value is not None:
                modality.decode(value)
                yield value


def _turns(
    modality: Modality, name: str, bare: Bare, values: list[Any], repeats: int
) -> Comparison:
    decoded = [modality.decode(value) for value in values]
    rng = np.random.default_rng(0)
    turns = [
        (
            _seconds(modality.decode, values),
            _seconds(bare, values),
            _seconds(lambda array: modality.view(array, rng), decoded),
        )
        for _ in range(repeats)
    ]
    ours, others, views = (statistics.median(t) / len(values) for t in zip(*turns, strict=True))
    cost = statistics.median(own / other for own, other, _ in turns)
    return Comparison(modality.name, name, 1e3 * ours, 1e3 * others, 1e3 * views, cost, len(values))


def _seconds(function: Callable[[Any], object], values: list[Any]) -> float:
    started = time.process_time()
    for value in values:
        function(value)
    return time.process_time() - started


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


SIDE, FRAMES = 40, 16


def _pillow(data: bytes) -> object:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _torchvision(data: bytes) -> object:
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    picture = torchvision.io.decode_image(raw, torchvision.io.ImageReadMode.RGB)
    return torchvision.transforms.functional.resize(picture, [SIDE, SIDE], antialias=True)


def _soundfile(data: bytes) -> object:
    return soundfile.read(io.BytesIO(data), dtype="float32")


def _pyav(data: bytes) -> object:
    opened: Any = av.open(io.BytesIO(data))
    with opened as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = set(np.linspace(0, max(0, stream.frames - 1), FRAMES).astype(int).tolist())
        return [
            frame.reformat(48, 36, "rgb24", threads=1).to_ndarray()
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]


def _text(data: Any) -> object:
    return data.decode() if isinstance(data, bytes) else data


BARE: dict[str, dict[str, Bare]] = {
    "audio": {"soundfile.read": _soundfile},
    "image": {"Pillow + resize": _pillow, "torchvision + resize": _torchvision},
    "text": {"bytes.decode": _text},
    "video": {"PyAV, 16 frames scaled": _pyav},
}


def table(found: list[Comparison]) -> str:
    """Markdown."""
    lines = [
        "| modality, one core | ours | bare decoder | bare | our cost of bare | a view |",
        "|---|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {c.modality} | {1e3 / c.ours_ms:,.0f}/s | {c.bare} | {1e3 / c.bare_ms:,.0f}/s "
        f"| {c.cost:.2f} | {c.view_ms:.3f} ms |"
        for c in found
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    command.run(partial(main, sys.argv[1:]))
