"""What is to be read, trained and scored.

The number of samples is estimated: from a few shards, the first samples tell how many bytes of
archive a sample takes, and the sizes of all shards are known from the listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from multimem_ray.errors import ShardError
from multimem_ray.models.build import build_model
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.scoring.held_out_plan import has_modality
from multimem_ray.storage import FileInfo
from multimem_ray.training.memory import BankPacking, ModelMemory, model_memory, pack

SHARDS_LOOKED_AT, SAMPLES_LOOKED_AT = 4, 256
_BLOCK = 512


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Args:
        shards: Number of shards that are scored; with those of the held-out set in ``held_out``.
        size: Their bytes.
        missing: Shards that are named and not there.
        samples: Estimated number of samples in them.
        held_out: Estimated number of samples held out, of which ``held_out_used`` are embedded.
        pool_shards: Number of shards that training reads.
        trainable: Estimated number of samples that may be trained on.
        shares: Per model, the share of the trainable samples that it trains on.
        layout: How the models are packed.
        banks: Number of banks.
        parameters: Of one model, of which ``trained`` are not frozen.
        memory: What one model needs in training.
        gpu_bytes: Memory of a GPU, or of a worker's part of one; None on CPUs or if not known.
        present: Modality → share of the samples that have it, of those that were looked at.
    """

    shards: int
    size: int
    missing: int
    samples: int
    held_out: int
    held_out_used: int
    pool_shards: int
    trainable: int
    shares: Sequence[float]
    layout: BankPacking
    banks: int
    parameters: int
    trained: int
    memory: ModelMemory
    gpu_bytes: float | None = None
    present: Mapping[str, float] = field(default_factory=dict)

    @property
    def models(self) -> int:
        """Number of reference models."""
        return len(self.shares)

    @property
    def bank_bytes(self) -> int:
        """Memory of a full bank's models in training, all workers together."""
        at_once = 1 if self.gpu_bytes is not None else self.layout.threads
        return self.memory.bank(min(self.layout.per_bank, self.models), at_once)


def survey(run: Run, shards: Shards, cpus: int, gpus: int, gpu_bytes: float | None = None) -> Work:
    """What the run has to do on a cluster of so many cores and GPUs.

    Args:
        gpu_bytes: Memory of one GPU, if it is known.

    Raises:
        ShardError: A shard that was looked at cannot be read.
    """
    config = run.config
    size = sum(shard.size for shard in shards.scored)
    per_sample, present = looked_at(run, shards.scored)
    samples = round(size / per_sample)
    if shards.held_out:
        held_out = round(sum(shard.size for shard in shards.held_out) / per_sample)
        kept = 1.0
    else:
        held_out = round(samples * config.held_out.fraction)
        kept = 1.0 - config.held_out.fraction
    pool = [shard for shard in shards.scored if run.trains_on(shard.url)]
    share_of_bytes = sum(shard.size for shard in pool) / max(size, 1)
    shares = run.design.train_fractions()
    wanted = config.resources.train
    memory, fit = model_memory(run), None
    if gpu_bytes is not None and wanted.gpus:
        gpu_bytes *= min(1.0, wanted.gpus / wanted.workers_per_bank)
        fit = memory.fit(gpu_bytes, wanted.workers_per_bank)
    layout = pack(wanted, len(shares), cpus, gpus, fit)
    model = build_model(config.model, run.decoder.modalities, 0, storage=run.storage)
    return Work(
        shards=len(shards.scored),
        size=size,
        missing=len(shards.missing),
        samples=samples,
        held_out=held_out,
        held_out_used=min(held_out, config.held_out.max_samples),
        pool_shards=len(pool),
        trainable=round(samples * kept * share_of_bytes * config.design.pool),
        shares=shares,
        layout=layout,
        banks=len(layout.banks(run.design.model_ids())),
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        memory=memory,
        gpu_bytes=gpu_bytes if wanted.gpus else None,
        present=present,
    )


def looked_at(run: Run, shards: Sequence[FileInfo]) -> tuple[float, dict[str, float]]:
    """What the first samples of a few shards are like.

    Returns:
        Mean bytes of archive that a sample takes, and modality → share of samples that have it.

    Raises:
        ShardError: None of them holds a sample.
    """
    size, count, having = 0, 0, dict.fromkeys(run.modalities, 0)
    for shard in spread(shards):
        for sample in first(run, shard):
            size, count = size + _archived(sample), count + 1
            for name in having:
                having[name] += has_modality(run, sample, name)
    if not count:
        raise ShardError("holds no sample that can be read", shards[0].url)
    return size / count, {name: have / count for name, have in having.items()}


def spread(shards: Sequence[FileInfo], count: int = SHARDS_LOOKED_AT) -> Sequence[FileInfo]:
    """A few shards from all over the list."""
    step = max(1, len(shards) // count)
    return shards[::step][:count]


def first(run: Run, shard: FileInfo, count: int = SAMPLES_LOOKED_AT) -> Iterator[Sample]:
    """The first readable samples of a shard."""
    found = (item for item in run.read(shard.url) if isinstance(item, Sample))
    return islice(found, count)


def _archived(sample: Sample) -> int:
    """Bytes of its members in a tar file: a header each, and content in whole blocks."""
    return sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for data in sample.members.values())
