"""The plan of a configuration: what there is to do, and what it would take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from multimem_ray.config import Config, DesignConfig
from multimem_ray.distributed.session import is_private
from multimem_ray.models.build import build_model
from multimem_ray.models.operations import operations
from multimem_ray.planning.estimate import Estimate, estimate
from multimem_ray.planning.probe import Speed, probe
from multimem_ray.planning.timings import save_plan
from multimem_ray.planning.trust import Trust, expected_trust
from multimem_ray.planning.work import Work, survey
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.scoring.held_out_plan import FEWEST
from multimem_ray.setup import inspect, require_shards
from multimem_ray.setup.proxy import proxy_config
from multimem_ray.training.memory import too_large
from multimem_ray.verdict.blend import LEAST


@dataclass(frozen=True)
class Plan:
    """A plan; speed and estimate are None if nothing was measured."""

    run: Run
    work: Work
    speed: Speed | None
    estimate: Estimate | None
    hints: tuple[str, ...]
    trust: Trust | None = None
    proxy: Plan | None = None
    """Of the audit by the cheaper model that ``design.proxy`` adds."""
    proxy_operations: float | None = None
    """Operations of the cheaper model for a sample, as a share of the full one's."""

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {
            "work": asdict(self.work)
            | {"model_bytes": self.work.memory.bank(1), "bank_bytes": self.work.bank_bytes},
            "speed": None if self.speed is None else asdict(self.speed),
            "estimate": None if self.estimate is None else self.estimate.as_json(),
            "hints": list(self.hints),
            "trust": self.trust and self.trust.as_json(),
            "proxy": self.proxy and self.proxy.as_json(),
            "proxy_operations": self.proxy_operations,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Name and value of each fact, for a person."""
        yield from _work_lines(self.work)
        if self.speed is not None and self.estimate is not None:
            yield from _speed_lines(self.speed, self.work)
            yield from _estimate_lines(self.estimate)
        else:
            yield "time and cost", "with --probe"
        if self.proxy is not None:
            yield from _proxy_lines(self.proxy, self.proxy_operations or 0.0)
        for hint in self.hints:
            yield "mind", hint
        if self.trust is not None:
            yield from self.trust.lines()


def make_plan(config: Config, progress: Progress, *, probing: bool, save: bool = False) -> Plan:
    """Plan a run, starting nothing.

    Args:
        probing: Measure a few samples, which takes some seconds.
        save: Keep the plan in the output; the only thing that is ever written.

    Raises:
        MultiMemError: What would stop the run as well: see :func:`multimem_ray.setup.discovery`.
    """
    require_shards(config.data, "plan")
    run, shards = inspect(config)
    cpus = config.plan.cpus or os.cpu_count() or 1
    gpus = torch.cuda.device_count() if config.plan.gpus is None else config.plan.gpus
    work = survey(run, shards, cpus, gpus, _gpu_bytes(config.plan.gpu_gb))
    said = shards.warnings
    trust, proxy, share = expected_trust(run), None, None
    if config.design.proxy is not None:
        proxy = make_plan(proxy_config(run), progress, probing=probing, save=save)
        share = _operations(proxy.run) / _operations(run)
    hints = (*said, *_hints(config, work, None, trust))
    if not probing:
        return Plan(run, work, None, None, hints, trust, proxy, share)
    progress.say("measuring a few samples")
    speed = probe(run, shards)
    took = estimate(config, work, speed, cpus, gpus)
    hints = (*said, *_hints(config, work, speed, trust))
    made = Plan(run, work, speed, took, hints, trust, proxy, share)
    if save:
        progress.say(f"plan: {save_plan(run, made.as_json())}")
    return made


def _gpu_bytes(gpu_gb: float | None) -> float | None:
    """Memory of one GPU of the cluster: as configured, or of the one that is here."""
    if gpu_gb is not None:
        return gpu_gb * 1e9
    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory)


def _of_growth(design: DesignConfig, work: Work, trust: Trust | None) -> str:
    """What ``design.models: auto`` adds to the plan of the models that it has now."""
    said = f"design.models: auto: time and cost are those of {work.models} models"
    if design.reliability is None or trust is None:
        return f"{said}; more are added within design.budget_hours"
    models = trust.models_for(design.reliability)
    expected = "more than those below" if models is None else f"about {models}"
    return f"{said}; a reliability of {design.reliability:g} is expected of {expected}"


def _hints(config: Config, work: Work, speed: Speed | None, trust: Trust | None) -> tuple[str, ...]:
    found = []
    wants_gpu = config.resources.train.gpus or config.resources.score.gpus
    if speed is not None and wants_gpu and speed.gpu is None:
        found.append("no GPU here: models were measured on the CPU, GPUs will be much faster")
    here = torch.cuda.device_count() if config.plan.gpus is None else config.plan.gpus
    resources = config.resources
    for stage, asked in (("train", resources.train.gpus), ("score", resources.score.gpus)):
        if asked > here and is_private(resources.ray_address):
            found.append(
                f"resources.{stage}.gpus asks for {asked:g}, and there are {here}: lower it, or "
                "name a cluster in resources.ray_address (and its GPUs in plan.gpus)"
            )
    if config.design.grows:
        found.append(_of_growth(config.design, work, trust))
    if config.design.proxy is not None and work.samples - work.held_out < LEAST:
        found.append(f"a blend takes {LEAST} scored samples: no proxies will be trained")
    if work.missing:
        found.append(f"{work.missing} shards are missing; they are listed in errors/")
    if work.held_out_used < 100:
        found.append(
            f"only about {work.held_out_used} held-out samples: their means will be noisy; raise "
            "held_out.fraction"
        )
    for name, share in work.present.items():
        expected = share * work.held_out_used
        # Of so few, less than what it takes may turn up (at 6, one time in sixty).
        if expected < 3 * FEWEST:
            found.append(
                f"about {expected:.1f} held-out samples have {name}, and it takes {FEWEST}: the "
                "run may refuse to start; raise held_out.fraction or held_out.max_samples, or "
                f"leave {name} out of data.fields"
            )
    workers = config.resources.train.workers_per_bank
    if work.gpu_bytes is not None and not work.memory.fit(work.gpu_bytes, workers):
        found.append(too_large(work.memory, work.gpu_bytes, workers))
    least = min(work.shares) * work.trainable
    if least < config.training.batch_size:
        found.append(
            f"a model trains on about {least:.0f} samples, less than one batch of "
            f"{config.training.batch_size}"
        )
    return tuple(found)


def _work_lines(work: Work) -> Iterator[tuple[str, str]]:
    missing = f", {work.missing} missing" if work.missing else ""
    yield "shards", f"{work.shards:,}, {_bytes(work.size)}{missing}"
    yield "samples", f"about {work.samples:,}, {_bytes(work.size / work.samples)} each"
    partly = [f"{name} in {share:.0%}" for name, share in work.present.items() if share < 1]
    if partly:
        yield "modalities", ", ".join(partly) + " of the samples that were looked at"
    yield "held out", f"about {work.held_out:,}, of which {work.held_out_used:,} are used"
    pool = f" in {work.pool_shards:,} shards" if work.pool_shards < work.shards else ""
    yield "trained on", f"about {work.trainable:,}{pool}"
    mean = sum(work.shares) / work.models * work.trainable
    yield "reference models", f"{work.models}, each on about {mean:,.0f} samples"
    layout = work.layout
    size, at_once = min(layout.per_bank, work.models), min(layout.at_once, work.banks)
    yield "banks", f"{work.banks} of up to {size} models, {at_once} at once"
    yield "parameters", f"{work.parameters:,} per model"
    yield (
        "memory of a bank",
        f"{_bytes(work.bank_bytes)}: {_bytes(work.memory.state)} of a model for weights, "
        f"gradients and optimizer, {_bytes(work.memory.step)} for a step"
        + (f"; a GPU has {_bytes(work.gpu_bytes)}" if work.gpu_bytes else ""),
    )


def _speed_lines(speed: Speed, work: Work) -> Iterator[tuple[str, str]]:
    device = speed.gpu or "one core"
    yield "read and decode", f"{1 / (speed.read + speed.decode):,.0f} samples/s on one core"
    yield "train", f"{1 / speed.train_step:,.0f} samples/s of one model on {device}"
    embed = work.models * speed.score_embed
    yield "embed", f"{1 / embed:,.0f} samples/s with {work.models} models on {device}"
    if speed.step_peak_bytes is not None:
        yield "memory of a step", f"{_bytes(speed.step_peak_bytes)} for one model"


def _estimate_lines(made: Estimate) -> Iterator[tuple[str, str]]:
    yield "cluster", f"{made.cpus} cores, {made.gpus} GPUs"
    yield (
        "core-hours",
        f"{made.train_cpu_hours:,.2f} to train, {made.score_cpu_hours:,.2f} to score",
    )
    if made.train_gpu_hours or made.score_gpu_hours:
        yield (
            "GPU-hours",
            f"{made.train_gpu_hours:,.2f} to train, {made.score_gpu_hours:,.2f} to score",
        )
    parts = (
        f"{_duration(made.train_s)} to train, {_duration(made.score_s)} to score, "
        f"{_duration(made.other_s)} to start Ray"
    )
    yield "wall time", f"{_duration(made.wall_s)}: {parts}"
    cost = "no prices in plan.prices" if made.cost is None else f"{made.cost:,.2f} {made.currency}"
    yield "cost", cost


def _operations(run: Run) -> int:
    modalities = run.decoder.modalities
    model = build_model(run.config.model, modalities, 0, weights=False)
    return operations(model, modalities)


def _proxy_lines(proxy: Plan, share: float) -> Iterator[tuple[str, str]]:
    work = proxy.work
    said = f"{work.models} models of {work.parameters:,} parameters"
    yield "proxies", f"{said}, each {share:.2f} of a full one's operations"
    if proxy.estimate is not None:
        for name, said in _estimate_lines(proxy.estimate):
            if name != "cluster":
                yield f"proxies: {name}", said


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} PB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
