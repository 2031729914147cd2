"""Means of a held-out set, computed in one go."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from multimem_ray.errors import SampleError
from multimem_ray.metric import MeanAccumulator
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import batch_of


def means(run: Run, bank: ScoringBank, url: str) -> Tensor:
    """Mean vectors (M, n, d) of the held-out samples of a shard."""
    held_out = [
        sample
        for sample in read_shard(url, run.storage)
        if isinstance(sample, Sample)
        and run.held_out_rule.is_held_out([run.group(sample)], sample.shard)[0]
    ]
    decoded = {}
    for sample in held_out:
        with contextlib.suppress(SampleError):
            decoded[sample.key] = run.decoder.decode(sample)
    batch, found = batch_of(run, decoded), []
    present = batch.present(run.modalities)
    for embedded in bank.embed(batch):
        accumulator = MeanAccumulator(run.modalities, embedded.shape[-1])
        accumulator.add(embedded, present)
        found.append(accumulator.means())
    return torch.stack(found)
