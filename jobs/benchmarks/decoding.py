"""Reading and decoding on one core, beside the bare decoder of each modality.

The bare decoder is what a script would call: Pillow or torchvision and a resize,
``soundfile.read``, PyAV's frames, ``bytes.decode``; without checks, limits and resampling. All take
turns on the same samples, in one process with one thread, by CPU time.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
import torchvision
from PIL import Image

from jobs.benchmarks import data, runner
from jobs.benchmarks.figures import Figures, Side, alternate
from jobs.benchmarks.runner import option
from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Array, Modality
from multimem_ray.modalities.batch import Stacked
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.draws import Draws
from multimem_ray.modalities.fields import find_fields
from multimem_ray.sample import Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

Bare = Callable[[Any], object]
RATE = "samples/s of CPU time"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    shards: tuple[str, ...] = option((), "WebDataset shards; default: the demo's")
    samples: int = option(100, "samples of the first shard that are decoded", quick=5)
    repeats: int = option(7, "turns of each side", quick=2)


def measure(options: Options, folder: Path) -> Figures:
    """Rates of reading a shard, of our decoder, a random view and each bare decoder."""
    shards = data.shards_or_demo(options.shards, folder)
    samples = data.read_samples(shards)[: options.samples]
    decoder = Decoder(find_fields(samples))
    figures = Figures()
    with one_thread():
        alternate({"read a shard": _reading(shards)}, options.repeats, figures)
        for modality in decoder.modalities:
            values = list(_decodable(modality, decoder, samples))
            if values:
                _measure_modality(modality, values, options.repeats, figures)
    return figures


def _measure_modality(
    modality: Modality, values: Sequence[Any], repeats: int, figures: Figures
) -> None:
    decoded = [modality.decode(value) for value in values]
    ours = f"{modality.name}: ours"
    bare = {f"{modality.name}: {name}": do for name, do in BARE.get(modality.name, {}).items()}
    sides: dict[str, Side] = {ours: partial(_rate, modality.decode, values)}
    sides |= {name: partial(_rate, do, values) for name, do in bare.items()}
    sides[f"{modality.name}: a view"] = partial(_view_rate, modality, decoded)
    alternate(sides, repeats, figures)
    for name in bare:
        figures.ratio(RATE, ours, name, "our rate by it", row=name)


def _reading(shards: Sequence[str]) -> Side:
    storage = Storage()
    shard = find_shards(list(shards), storage).shards[0]

    def read() -> dict[str, float]:
        return {"MB/s": shard.size / 1e6 / _seconds(lambda: list(read_shard(shard.url, storage)))}

    return read


def _decodable(modality: Modality, decoder: Decoder, samples: Sequence[Sample]) -> Iterator[Any]:
    for sample in samples:
        with contextlib.suppress(SampleError):
            value = decoder.fields.value(sample, modality.name)
            if value is not None:
                modality.decode(value)
                yield value


def _rate(function: Bare, values: Sequence[Any]) -> dict[str, float]:
    return {RATE: len(values) / _seconds(lambda: [function(value) for value in values])}


def _view_rate(modality: Modality, decoded: Sequence[Array]) -> dict[str, float]:
    """Views a second, four of each sample, as a chunk's are made."""
    arrays = Stacked.of(decoded)
    draws = Draws(torch.arange(len(decoded)), range(4))
    return {RATE: 4 * len(decoded) / _seconds(lambda: modality.views(arrays, draws))}


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    # The clock of a process can be too coarse for five captions.
    return max(time.process_time() - started, 1e-9)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread while the block runs."""
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
        chosen = set(np.linspace(0, max(0, stream.frames - 1), FRAMES).astype(int).tolist())
        return [
            frame.reformat(48, 36, "rgb24", threads=1).to_ndarray()
            for number, frame in enumerate(container.decode(stream))
            if number in chosen
        ]


def _text(data: Any) -> object:
    return data.decode() if isinstance(data, bytes) else data


BARE: dict[str, dict[str, Bare]] = {
    "audio": {"soundfile.read": _soundfile},
    "image": {"Pillow + resize": _pillow, "torchvision + resize": _torchvision},
    "text": {"bytes.decode": _text},
    "video": {"PyAV, 16 frames scaled": _pyav},
}


if __name__ == "__main__":
    runner.main("decoding")
