"""A kit for a GPU machine: limits of the card, and what the product reaches of them.

Makes its own data, needs no network and no Ray, and takes some minutes. Without a GPU everything
runs on the CPU: with ``--quick``, a check that the kit works.

    limits   decoding on one core, on all of them and on the card; views
    model    embedding samples that lie on the device, and the equality of CPU and device
    step     training steps on a batch that lies on the device: one model after the other
    feed     what reaches the models in scoring and in training, without any models
    score    scoring by one process, by the models alone
    train    training by one process, by the plain loop; what a checkpoint holds up
    start    the command until training begins and until it has stepped

Each row is told on standard error as soon as it is known. A part that fails says why there, and the
others go on. ``GPU busy`` is the share of the time with a kernel under way; rows of a ``line`` tell
where threads of the process were.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console

from jobs.benchmarks import data, runner
from jobs.benchmarks.device_watch import DeviceWatch
from jobs.benchmarks.figures import Figures
from jobs.benchmarks.runner import option
from multimem_ray.audit import score, train
from multimem_ray.config import Config
from multimem_ray.metric import cmc
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel, channels_last
from multimem_ray.prefetch import ahead
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.chunks import ChunkReader
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.store.commits import commit_log
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import TrainingStream
from multimem_ray.training.train_state import build_optimizer

logger = logging.getLogger(__name__)
PARTS = ("limits", "model", "step", "feed", "score", "train", "start")
RATE, GPU = "samples/s", torch.cuda.is_available()
_ROOT = Path(__file__).resolve().parents[2]
_CORES = len(os.sched_getaffinity(0))
_VIEWS = 4
_WORDS = ("a", "an", "one", "red", "green", "old", "small", "dog", "house", "with", "and", "near")


@dataclass(frozen=True)
class Options:
    """What is measured."""

    samples: int = option(8192, "of the data", quick=48)
    picture: int = option(256, "pixels of a picture's side", quick=40)
    preset: str = option("clip", "architecture; 'small': towers for a CPU", quick="small")
    batch: int = option(1024, "of a training step", quick=8)
    models: tuple[int, ...] = option((2, 8), "reference models", quick=(2,))
    seconds: float = option(1.0, "least time of a rate", quick=0.01)
    parts: tuple[str, ...] = option(PARTS, "which of them", choices=PARTS)


def measure(options: Options, folder: Path) -> Figures:
    """All parts; a part that failed has ``failed`` in its row."""
    kit = Kit(options, folder)
    for part in options.parts:
        started = time.monotonic()
        try:
            _PARTS[part](kit)
        except Exception:
            # Time on such a machine is short: what else there is to measure is measured.
            logger.exception("part %s failed", part)
            kit.tell(f"part {part}", {"failed": 1.0})
        kit.tell(f"part {part}", {"took, s": time.monotonic() - started})
    return kit.figures


class Kit:
    """The data, the runs on them, and the figures so far."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder, self.figures = options, folder, Figures()
        self.device = torch.device("cuda" if GPU else "cpu")
        self._say = Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print
        started = time.monotonic()
        make_shards(folder / "shards", options.samples, options.picture)
        self.tell("data", {"took, s": time.monotonic() - started})

    def tell(self, row: str, values: Mapping[str, float]) -> None:
        """Keep a row, and say it."""
        self.figures.add(row, values)
        self._say(json.dumps({row: values}))

    def config(self, name: str, models: int, precision: str = "fp32", **training: Any) -> Config:
        """A configuration of a run of that name."""
        small = self.options.preset == "small"
        gpus = {"gpus": 1.0} if GPU else {}
        size = {"modalities": {"image": {"size": 32}}} if small else {}
        return resolve(
            {
                "output": str(self.folder / name),
                "data": {"shards": str(self.folder / "shards" / "*.tar")},
                "design": {"models": models},
                "held_out": {"fraction": 0.25 if small else 0.05},
                "model": {} if small else {"preset": self.options.preset},
                "training": {
                    "epochs": 2,
                    "batch_size": self.options.batch,
                    "precision": precision,
                    "held_out_samples": 0,
                    "warmup_steps": 1,
                    **training,
                },
                "scoring": {"precision": precision},
                "resources": {
                    "train": gpus,
                    "score": {**gpus, "cpus": _CORES if GPU else 1},
                    "cache_dir": str(self.folder / "cache"),
                },
                **size,
            }
        )

    def run(self, name: str, models: int = 2, precision: str = "fp32", **training: Any) -> Run:
        """An opened run."""
        return inspect(self.config(name, models, precision, **training))[0]

    def rate(self, work: Callable[[], object], count: int) -> float:
        """How many a second, of work that does ``count`` of them."""
        work()
        wait()
        started, times = time.perf_counter(), 0
        while not times or time.perf_counter() - started < self.options.seconds:
            work()
            wait()
            times += 1
        return count * times / (time.perf_counter() - started)

    def batch(self, run: Run, size: int) -> Batch:
        """Samples on the device, of which there are a few different ones."""
        samples = data.read_samples(kit_shards(run))[:64]
        decoded = [run.decoder.decode(sample) for sample in samples]
        decoded = [decoded[i % len(decoded)] for i in range(size)]
        return run.decoder.views(run.decoder.clean(decoded).to(self.device))

    def model(self, run: Run) -> ContrastiveModel:
        """A model of the run on the device, in its training precision."""
        model = build_model(run.config.model, run.decoder.modalities, 0).to(self.device)
        model.precision = run.config.training.precision
        return model if model.precision == "fp32" and GPU else channels_last(model)

    def watched(self, row: str, work: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """A row of what work tells, and of what was seen of the device and threads meanwhile."""
        with DeviceWatch() as watch:
            told = dict(work())
        self.tell(row, told | watch.figures())
        for place, share in watch.places().items():
            self.tell(f"line in {row}: {place}", {"share of looks": share})
        return told


def wait() -> None:
    """Until the device has done all that it was given."""
    if GPU:
        torch.cuda.synchronize()


def make_shards(folder: Path, samples: int, side: int) -> None:
    """Shards of 512 pictures (JPEG, at 256 pixels about 20 kB) with captions."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (32, 12, 12, 3), dtype=np.uint8)
    size, bicubic = (2 * side, 2 * side), Image.Resampling.BICUBIC
    bases = [Image.fromarray(one).resize(size, bicubic) for one in coarse]
    grain = [rng.normal(0, 12, (side, side, 3)) for _ in range(8)]

    def members(number: int) -> dict[str, bytes]:
        own = np.random.default_rng(number)
        x, y = own.integers(0, side, 2).tolist()
        crop = bases[number % len(bases)].crop((x, y, x + side, y + side))
        pixels = np.clip(np.asarray(crop) + grain[number % len(grain)], 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=88)
        caption = " ".join(own.choice(_WORDS, own.integers(5, 20)).tolist())
        return {"jpg": file.getvalue(), "txt": caption.encode()}

    per_shard = max(2, min(512, samples // 4))
    with ShardWriter(str(folder), max_samples=per_shard) as writer, ThreadPoolExecutor() as pool:
        for number, each in enumerate(pool.map(members, range(samples))):
            writer.write(f"{number:08d}", each)


def limits(kit: Kit) -> None:
    """Decoding and views, without models."""
    from torchvision.io import ImageReadMode, decode_jpeg

    run = kit.run("limits")
    samples = data.read_samples(kit_shards(run))
    files = [
        torch.frombuffer(bytearray(sample.members["jpg"]), dtype=torch.uint8) for sample in samples
    ]
    bare = partial(decode_jpeg, mode=ImageReadMode.RGB)
    torch.set_num_threads(1)
    for threads in sorted({1, _CORES}):
        with ThreadPoolExecutor(threads) as pool:
            ours = run.decoder.decode
            sides: list[tuple[str, Callable[[Any], object], list[Any]]] = [
                ("torchvision", bare, files),
                ("ours", ours, samples),
            ]
            for name, decode, items in sides:
                rate = kit.rate(lambda: list(pool.map(decode, items)), len(items))  # noqa: B023
                kit.tell(f"decoding, {name}, {threads} threads", {RATE: rate})
    if GPU:
        batch = files[:512]
        rate = kit.rate(lambda: decode_jpeg(batch, ImageReadMode.RGB, device="cuda"), len(batch))
        kit.tell("decoding, nvJPEG", {RATE: rate})
    first = [run.decoder.decode(sample) for sample in samples[:64]]
    keys = [str(number) for number in range(len(first))]
    decoded = run.decoder.stacked(keys, first, 0, range(_VIEWS))
    for device in sorted({"cpu", kit.device.type}):
        there = decoded.to(torch.device(device))
        rate = kit.rate(lambda: run.decoder.views(there), _VIEWS * len(first))  # noqa: B023
        kit.tell(f"views, ours, {device}", {"views/s": rate})


def model_only(kit: Kit) -> None:
    """Embedding what lies on the device; the same scores on the CPU and there."""
    for precision in ("fp32", "bf16"):
        run = kit.run("model", 2, precision)
        model = kit.model(run).eval()
        for size in (128, 512) if GPU else (kit.options.batch,):
            batch = kit.batch(run, size)
            with torch.inference_mode():
                rate = kit.rate(lambda: model.embed(model.prepare(batch.values)), size)  # noqa: B023
            kit.tell(f"model only, {precision}", {f"{RATE}, batch {size}": rate})
    run = kit.run("equal")
    data.finish_models(run)
    chunk = next(ChunkReader(run).chunks(kit_shards(run)[0]))
    if chunk.decoded is None:
        raise ValueError("the first chunk has no sample to be scored")
    scores = []
    for device in (torch.device("cpu"), kit.device):
        bank = ScoringBank(run, device)
        means = torch.zeros(bank.count, len(run.modalities), bank.dim, dtype=torch.float64)
        agreements = bank.agreements(chunk.decoded, means)
        scores.append(
            torch.stack([cmc(a, chunk.decoded.present(run.modalities)) for a in agreements])
        )
    kit.tell("scores of CPU and device", {"largest difference": _distance(*scores)})


def _distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().nan_to_num().max())


def kit_shards(run: Run) -> list[str]:
    """URLs of the run's shards."""
    return [shard.url for shard in inspect(run.config)[1].scored]


def step_only(kit: Kit) -> None:
    """A plain loop's steps."""
    for precision in ("fp32", "bf16"):
        run = kit.run("step", 2, precision)
        model, batch = kit.model(run), kit.batch(run, kit.options.batch)
        optimizer = build_optimizer(model, run.config.training)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)  # noqa: B023
            model.loss(model.prepare(batch.values), batch.rows).backward()  # type: ignore[no-untyped-call]  # noqa: B023
            optimizer.step()  # noqa: B023

        if GPU:
            torch.cuda.reset_peak_memory_stats()
        rate = kit.rate(step, kit.options.batch)
        memory = {"GPU memory, GB": torch.cuda.max_memory_allocated() / 1e9} if GPU else {}
        kit.tell(f"step only, {precision}", {RATE: rate, **memory})


def feed(kit: Kit) -> None:
    """What reaches the models."""
    run = kit.run("feed")
    for threads in sorted({1, min(4, _CORES), _CORES}):
        kit.tell(f"feed of scoring, {threads} threads", {RATE: _feed_rate(run, threads)})
    cache = DecodedCache(kit.folder / "feed-cache", 1 << 40)
    stream = TrainingStream(run, inspect(run.config)[1].scored, cache, _CORES)
    for name in ("decoding", "from the cache"):
        started = time.perf_counter()
        count = sum(1 for _ in ahead(stream.samples(0), 256))
        kit.tell(f"feed of training, {name}", {RATE: count / (time.perf_counter() - started)})


def _feed_rate(run: Run, threads: int, most_s: float = 5.0) -> float:
    started, count = time.perf_counter(), 0
    for url in kit_shards(run):
        for chunk in ahead(ChunkReader(run).chunks(url, threads=threads), 2):
            count += chunk.end - chunk.first
        if time.perf_counter() - started > most_s:
            break
    return count / (time.perf_counter() - started)


def scoring(kit: Kit) -> None:
    """Scoring by the local executor, by the models alone."""
    for models in kit.options.models:
        for precision in ("fp32", "bf16"):
            config = kit.config(f"score-{models}-{precision}", models, precision)
            if precision == "fp32":
                # It takes several times as long, and a rate needs no more.
                config = _on(config, 2)
            data.finish_models(inspect(config)[0])
            work = partial(_scored, kit, config, models)
            kit.watched(f"scoring, M = {models}, {precision}", work)


def _on(config: Config, count: int) -> Config:
    """The configuration for the first shards alone."""
    urls = [shard.url for shard in inspect(config)[1].scored[:count]]
    shards = config.data.model_copy(update={"shards": "::".join(urls)})
    return config.model_copy(update={"data": shards})


def _scored(kit: Kit, config: Config, models: int) -> dict[str, float]:
    started = time.perf_counter()
    score(config, Progress(Console(quiet=True)), executor="local")
    seconds = time.perf_counter() - started
    rate = sum(commit.samples for commit in commit_log(inspect(config)[0]).load()) / seconds
    alone = kit.figures.rows.get(f"model only, {config.scoring.precision}", {})
    if not alone:
        return {RATE: rate, "s": seconds}
    best = max(values[0] for values in alone.values()) / models / config.scoring.views
    return {RATE: rate, "s": seconds, "by the models alone": rate / best}


def training(kit: Kit) -> None:
    """Training by the local executor, by the plain loop; then checkpoints of a bank."""
    for models in kit.options.models:
        config = kit.config(f"train-{models}", models, "bf16")
        kit.watched(f"training, M = {models}, bf16", partial(_trained, kit, config))
        _checkpoint(kit, models)


def _trained(kit: Kit, config: Config) -> dict[str, float]:
    """Rates count the samples that the models stepped on, all together, in each epoch."""
    started = time.perf_counter()
    train(config, Progress(Console(quiet=True)), executor="local")
    told = {"s": time.perf_counter() - started}
    run, _ = inspect(config)
    histories = [run.model_folder(one).history() for one in run.design.model_ids()]
    alone = kit.figures.median("step only, bf16", RATE)
    for epoch, name in enumerate(("decoding", "from the cache")):
        lines = [history[epoch] for history in histories]
        rate = sum(line["samples"] for line in lines) / lines[0]["seconds"]
        told[f"steps on {RATE}, {name}"] = rate
        if alone is not None:
            told[f"by the plain loop, {name}"] = rate / alone
    return told


def _checkpoint(kit: Kit, models: int) -> None:
    """How long a checkpoint of all models, each of which has stepped, holds up its caller."""
    run = kit.run(f"checkpoint-{models}", models, "bf16", checkpoint_every_s=0)
    started = time.perf_counter()
    bank = Bank(run, run.design.model_ids(), kit.device, _CORES)
    wait()
    made = time.perf_counter() - started
    samples = data.read_samples(kit_shards(run))[: kit.options.batch]
    decoded = run.decoder.clean([run.decoder.decode(sample) for sample in samples])
    views = run.decoder.views(decoded.to(kit.device)).samples()
    bank.train_epoch(0, [(view, [True] * models, 0.0) for view in views])
    wait()
    bank.checkpoint()  # the first one has memory pinned
    started = time.perf_counter()
    bank.begin_checkpoint()
    held_up = time.perf_counter() - started
    wait()
    copied = time.perf_counter() - started
    bank.writer.wait()
    written = time.perf_counter() - started
    size = sum(path.stat().st_size for path in Path(run.output).rglob("checkpoint.safetensors"))
    kit.tell(
        f"checkpoint, M = {models}",
        {
            "holds up, s": held_up,
            "copied, s": copied,
            "written, s": written,
            "GB": size / 1e9,
            "bank made, s": made,
        },
    )


def start(kit: Kit) -> None:
    """The command until training begins, and until its one epoch of few steps is over."""
    for modules in ("torch", "torch, open_clip, multimem_ray.training.worker"):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=_ROOT, check=True)  # noqa: S603
        kit.tell(f"import {modules}", {"s": time.monotonic() - started})
    executors = {"local": ["--local"]}
    if importlib.util.find_spec("ray") is not None:
        executors["Ray"] = []
    for models in kit.options.models:
        for name, flags in executors.items():
            kit.tell(f"start, M = {models}, {name}", _started(kit, models, name, flags))


def _started(kit: Kit, models: int, name: str, flags: list[str]) -> dict[str, float]:
    config = _on(kit.config(f"start-{models}-{name}", models, "bf16", epochs=1), 2)
    file = kit.folder / f"start-{models}-{name}.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    command = "from multimem_ray.cli import main; main()"
    began, started = time.time(), time.monotonic()
    subprocess.run(  # noqa: S603
        [sys.executable, "-c", command, "train", str(file), *flags],
        cwd=_ROOT,
        check=True,
        stdout=sys.stderr,
    )
    history = Path(config.output, "models", "000", "history.jsonl")
    (line,) = (json.loads(text) for text in history.read_text("utf-8").splitlines())
    # Nothing lies between the end of the last epoch and its line.
    stepped = history.stat().st_mtime - began
    return {
        "until training, s": stepped - line["seconds"],
        "until stepped, s": stepped,
        "all, s": time.monotonic() - started,
    }


_PARTS: dict[str, Callable[[Kit], None]] = dict(
    zip(PARTS, (limits, model_only, step_only, feed, scoring, training, start), strict=True)
)

if __name__ == "__main__":
    runner.main("gpu")
