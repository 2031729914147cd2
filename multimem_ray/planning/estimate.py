"""Hours, wall time and cost of a run on a cluster, from the work and what a sample costs.

A bank's epoch is as slow as the slowest of three: one thread makes the views of its samples, its
models step in threads of their own (or one after the other on its GPU), and both together share
the bank's cores. The first epoch also decodes, on all cores that are free; so does every other
one, if the decoded samples don't fit the cache. Scoring shares everything among its actors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multimem_ray.config import Config, PlanConfig, ScoreResources
from multimem_ray.planning.probe import Speed
from multimem_ray.planning.work import Work

# A Ray Train run starts six processes and a scoring pipeline four, most of which load Ray and
# torch; on two cores, with nodes at hand, that takes so many times what one process takes.
STARTS_OF_BANK, STARTS_OF_SCORING = 3.0, 2.0
# Ray itself, before the first stage.
STARTS_OF_RUN = 2.0


@dataclass(frozen=True)
class Estimate:
    """What a run takes on a cluster of ``cpus`` cores and ``gpus`` GPUs.

    Hours of cores and GPUs are those of work, wherever it is done; seconds are wall time.
    """

    cpus: int
    gpus: int
    train_s: float
    score_s: float
    other_s: float
    train_cpu_hours: float
    score_cpu_hours: float
    train_gpu_hours: float
    score_gpu_hours: float
    cost: float | None
    currency: str

    @property
    def wall_s(self) -> float:
        """Seconds from start to end."""
        return self.train_s + self.score_s + self.other_s

    def as_json(self) -> dict[str, Any]:
        """For ``plan.json``."""
        return asdict(self) | {"wall_s": self.wall_s}


def estimate(config: Config, work: Work, speed: Speed, cpus: int, gpus: int) -> Estimate:
    """Estimate a run on a cluster of so many cores and GPUs."""
    workers, cache = config.resources.train.workers_per_bank, config.training.cache_gb
    epochs = config.training.trained_epochs
    train_s, train_core_s, train_gpu_s = _training(epochs, cache, workers, work, speed, cpus)
    other_s = STARTS_OF_RUN * speed.start
    samples = work.samples - (work.held_out if config.held_out.shards is None else 0)
    samples += work.held_out_used
    score_s, score_core_s, score_gpu_s = _scoring(
        config.resources.score, samples, work, speed, cpus, gpus
    )
    return Estimate(
        cpus=cpus,
        gpus=gpus,
        train_s=train_s,
        score_s=score_s,
        other_s=other_s,
        train_cpu_hours=train_core_s / 3600,
        score_cpu_hours=score_core_s / 3600,
        train_gpu_hours=train_gpu_s / 3600,
        score_gpu_hours=score_gpu_s / 3600,
        cost=_cost(config.plan, train_s + score_s + other_s, cpus, gpus),
        currency=config.plan.currency,
    )


def _training(
    epochs: int, cache_gb: float, workers: int, work: Work, speed: Speed, cpus: int
) -> tuple[float, float, float]:
    """Wall seconds, core seconds, GPU seconds."""
    layout = work.layout
    per_bank = min(layout.per_bank, work.models)
    share = sum(work.shares) / work.models
    fits = work.trainable * speed.decoded_bytes <= cache_gb * 1e9
    decode = work.trainable * (speed.read + speed.decode) * (1 if fits else epochs)
    views = epochs * work.trainable * speed.train_view
    steps = epochs * work.trainable * share * per_bank * speed.train_step
    cores = max(1.0, cpus / layout.at_once)
    if speed.gpu:
        busy = max(views / workers, steps / workers, views / cores)
        core_s, gpu_s = decode + views, steps
    else:
        busy = max(views / workers, steps / layout.threads, (views + steps) / cores)
        core_s, gpu_s = decode + views + steps, 0.0
    bank_s = STARTS_OF_BANK * speed.start + decode / cores + busy
    rounds = -(-work.banks // layout.at_once)
    return rounds * bank_s, work.banks * core_s, work.banks * gpu_s


def _scoring(
    resources: ScoreResources, samples: int, work: Work, speed: Speed, cpus: int, gpus: int
) -> tuple[float, float, float]:
    """Wall seconds, core seconds, GPU seconds."""
    embed = samples * work.models * speed.score_embed
    core_s = samples * (speed.read + speed.decode + speed.score_views + speed.score_rows)
    start = STARTS_OF_SCORING * speed.start
    cores = min(cpus, _actors(resources, cpus) * resources.cpus)
    if not speed.gpu:
        return start + (core_s + embed) / cores, core_s + embed, 0.0
    at_work = max(1.0, min(float(gpus), _actors(resources, cpus) * resources.gpus))
    # Beside a GPU an actor decodes with its own cores, and with two fleets all cores do; "auto"
    # makes two only where there are nodes without a GPU, which a plan does not know.
    decoders: float = cpus
    if resources.layout != "split" and resources.gpus:
        decoders = min(cores, max(1.0, gpus // resources.gpus) * resources.cpus)
    return start + max(core_s / decoders, embed / at_work), core_s, embed


def _actors(resources: ScoreResources, cpus: int) -> int:
    actors = resources.actors
    if actors == "auto":
        return max(1, cpus // resources.cpus)
    return actors if isinstance(actors, int) else actors[1]


def _cost(plan: PlanConfig, seconds: float, cpus: int, gpus: int) -> float | None:
    """The whole cluster for the whole time; None without prices."""
    if not plan.prices.cpu_hour and not plan.prices.gpu_hour:
        return None
    return seconds / 3600 * (cpus * plan.prices.cpu_hour + gpus * plan.prices.gpu_hour)
