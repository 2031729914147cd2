"""A decoded chunk on its way from the node that decoded it to the one that embeds it.

Arrays travel as the integers they were decoded to, in safetensors; the rest as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from multimem_ray.modalities.batch import Batch
from multimem_ray.sample import Failure
from multimem_ray.scoring.bank import Views
from multimem_ray.scoring.chunks import Chunk
from multimem_ray.scoring.rows import Identity


def pack(chunk: Chunk) -> dict[str, Any]:
    """A chunk as two columns of bytes."""
    about = {
        "first": chunk.first,
        "end": chunk.end,
        "held_out": chunk.held_out,
        "who": asdict(chunk.who),
        "failures": [asdict(failure) for failure in chunk.failures],
        "views": 0 if chunk.views is None else len(chunk.views.batches),
    }
    tensors = {} if chunk.views is None else _tensors(chunk.views)
    return {"about": json.dumps(about).encode(), "tensors": save(tensors)}


def unpack(row: dict[str, Any]) -> Chunk:
    """The chunk that :func:`pack` was given."""
    about = json.loads(row["about"])
    who = Identity(**about["who"])
    failures = [Failure(**failure) for failure in about["failures"]]
    views = None
    if about["views"]:
        tensors = load(row["tensors"])
        batches = [_batch(tensors, view, len(who.keys)) for view in range(about["views"])]
        views = Views(batches, tensors["present"])
    return Chunk(about["first"], about["end"], who, views, about["held_out"], failures)


def _tensors(views: Views) -> dict[str, Tensor]:
    found = {"present": views.present}
    for view, batch in enumerate(views.batches):
        for name in batch.names:
            found[f"{view}.values.{name}"] = batch.values[name].contiguous()
            found[f"{view}.rows.{name}"] = batch.rows[name].to(torch.int64).contiguous()
    return found


def _batch(tensors: dict[str, Tensor], view: int, size: int) -> Batch:
    def of(kind: str) -> dict[str, Tensor]:
        start = f"{view}.{kind}."
        return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}

    return Batch(of("values"), of("rows"), size)
