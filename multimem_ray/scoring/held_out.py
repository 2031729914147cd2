"""The held-out set: which samples it is made of, and its mean vectors under every model.

Shards are visited in an order that follows from their names until ``held_out.max_samples`` held-out
samples were met, so a small H of a huge data set is found in a few shards, and is the same H
whoever looks. What is left behind:

    held_out/means.safetensors     (M, n, d) float64: all that scoring needs of H
    held_out/keys.parquet          shard and key of each sample used
    held_out/held_out.json         counts, and the consistency of H itself under each model
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy
from safetensors.torch import load, save
from torch import Tensor

from multimem_ray import metric
from multimem_ray.design.hashing import uniform
from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.metric import Agreement, MeanAccumulator
from multimem_ray.progress import Progress
from multimem_ray.ray_session import data_context
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank, make_views, pick_device
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo


def held_out_means(run: Run, shards: Shards, actors: int, progress: Progress) -> Tensor:
    """Mean vectors of H under each model, (M, n, d); computed once and stored.

    Raises:
        HeldOutError: H is empty or lacks a modality; says which and the way out.
    """
    url = run.path("held_out", "means.safetensors")
    if run.storage.exists(run.path("held_out", "held_out.json")):
        known = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
        if known["fingerprint"] == run.fingerprint:
            return load(run.storage.read_bytes(url))["means"]
    chosen = _choose(run, shards, progress)
    parts = _embed(run, chosen, actors, progress)
    means, facts = _summarize(run, parts)
    run.storage.write_atomic(url, save({"means": means}))
    keys = [(item.shard.url, key) for item in chosen for key in item.keys]
    table = pa.table({"shard": [k[0] for k in keys], "key": [k[1] for k in keys]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    run.storage.write_atomic(run.path("held_out", "keys.parquet"), buffer.getvalue())
    content = {"fingerprint": run.fingerprint, "keys_seen": len(keys), **facts}
    run.storage.write_atomic(
        run.path("held_out", "held_out.json"), json.dumps(content, indent=1).encode()
    )
    return means


@dataclass(frozen=True)
class _Chosen:
    """Held-out samples of one shard, by key."""

    shard: FileInfo
    keys: tuple[str, ...]


def _choose(run: Run, shards: Shards, progress: Progress) -> list[_Chosen]:
    """At most ``max_samples`` held-out samples, from as few shards as hold them."""
    candidates = shards.held_out or shards.scored
    names = [shard.url.rsplit("/", 1)[-1] for shard in candidates]
    places = uniform(run.config.design.seed, "held-out-shards", names)
    order = sorted(range(len(names)), key=lambda i: (places[i], candidates[i].url))
    limit = run.config.held_out.max_samples
    cap = run.held_out_rule.cap()
    visited = 0
    with data_context(preserve_order=True):
        source = ray.data.from_items(
            [{"number": i} for i in order], override_num_blocks=min(len(order), 10_000)
        )
        found = source.map(_Finder(run, candidates), num_cpus=1)
    with progress.task("held-out set", len(order), unit="shards") as shown:
        met = 0
        for row in found.iter_rows():
            visited += 1
            keys = list(row["keys"])
            names_of = [f"{row['number']}/{key}" for key in keys]
            labels = list(row["labels"]) if run.config.held_out.balance else None
            cap.add(names_of, run.held_out_rule.rank(keys), labels)
            met += len(keys)
            shown.update(visited, f"{met} samples")
            if met >= limit:
                break
    by_shard: dict[int, list[str]] = {}
    for name in cap.chosen():
        number, _, key = name.partition("/")
        by_shard.setdefault(int(number), []).append(key)
    if not by_shard:
        raise HeldOutError(
            f"no sample of {visited} shards is held out; raise held_out.fraction (now "
            f"{run.config.held_out.fraction}) or name held_out.shards"
        )
    return [_Chosen(candidates[i], tuple(sorted(keys))) for i, keys in sorted(by_shard.items())]


class _Finder:
    """Lists the held-out samples of a shard; called by Ray Data."""

    def __init__(self, run: Run, shards: Sequence[FileInfo]) -> None:
        self._run, self._shards = run, list(shards)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        run, shard = self._run, self._shards[row["number"]]
        keys, labels = [], []
        for item in read_shard(shard.url, run.storage):
            if not isinstance(item, Sample):
                continue
            try:
                if run.held_out_rule.is_held_out([run.group(item)], shard.url)[0]:
                    balance = run.config.held_out.balance
                    labels.append(str(item.field(balance)) if balance else "")
                    keys.append(item.key)
            except SampleError:
                continue
        return {"number": row["number"], "keys": keys, "labels": labels}


@dataclass(frozen=True)
class _Embedded:
    """Held-out samples of one shard under all models.

    Args:
        mean: (M, B, n, d), embeddings averaged over the views.
        alignment: (M, B, n, n).
        present: (B, n).
    """

    mean: Tensor
    alignment: Tensor
    present: Tensor


def _embed(run: Run, chosen: Sequence[_Chosen], actors: int, progress: Progress) -> list[_Embedded]:
    score = run.config.resources.score
    total = sum(len(item.keys) for item in chosen)
    parts: dict[str, _Embedded] = {}
    with data_context():
        rows = [
            {
                "url": c.shard.url,
                "size": c.shard.size,
                "version": c.shard.version,
                "keys": list(c.keys),
            }
            for c in chosen
        ]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Embedder,  # type: ignore[arg-type]
            fn_constructor_args=(run,),
            compute=ActorPoolStrategy(size=min(actors, len(rows))),
            num_cpus=0 if score.gpus else score.cpus,
            num_gpus=score.gpus or None,
        )
    with progress.task("held-out embeddings", total, unit="samples") as shown:
        done = 0
        for row in found.iter_rows():
            tensors = load(row["data"])
            parts[row["url"]] = _Embedded(**tensors)
            done += len(tensors["present"])
            shown.update(done)
    return [parts[url] for url in sorted(parts)]


class _Embedder:
    """Embeds the named samples of a shard with the whole bank; an actor of Ray Data."""

    def __init__(self, run: Run) -> None:
        self._run = run
        score = run.config.resources.score
        device = pick_device(score.gpus)
        if device.type == "cpu":
            torch.set_num_threads(score.cpus)
        self._bank = ScoringBank(run, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        run, wanted = self._run, set(row["keys"])
        keys, decoded = [], []
        for item in read_shard(row["url"], run.storage):
            if isinstance(item, Sample) and item.key in wanted:
                try:
                    decoded.append(run.decoder.decode(item))
                    keys.append(item.key)
                except SampleError:
                    # Scoring meets it again and lists it in errors/, where it is counted.
                    continue
        size = run.config.scoring.batch_size
        chunks = [
            self._chunk(keys[i : i + size], decoded[i : i + size])
            for i in range(0, len(keys), size)
        ]
        joined = (
            {
                name: torch.cat(
                    [chunk[name] for chunk in chunks], dim=0 if name == "present" else 1
                )
                for name in ("mean", "alignment", "present")
            }
            if chunks
            else self._nothing()
        )
        return {"url": row["url"], "data": save({n: t.contiguous() for n, t in joined.items()})}

    def _chunk(self, keys: list[str], decoded: list[Any]) -> dict[str, Tensor]:
        views = make_views(self._run, keys, decoded)
        embedded = self._bank.embed(views).cpu()
        models, _, samples, modalities, dim = embedded.shape
        nowhere = torch.zeros(modalities, dim)
        alignment = [metric.agreement(e, views.present, nowhere).alignment for e in embedded]
        return {
            "mean": embedded.mean(dim=1),
            "alignment": torch.stack(alignment).view(models, samples, modalities, modalities),
            "present": views.present,
        }

    def _nothing(self) -> dict[str, Tensor]:
        models, n = len(self._bank.models), len(self._run.modalities)
        return {
            "mean": torch.zeros(models, 0, n, self._run.config.model.dim),
            "alignment": torch.zeros(models, 0, n, n, dtype=torch.float64),
            "present": torch.zeros(0, n, dtype=torch.bool),
        }


def _summarize(run: Run, parts: Sequence[_Embedded]) -> tuple[Tensor, dict[str, Any]]:
    """Means (M, n, d), and the consistency of H's own samples, each against the rest of H."""
    means, levels = [], {}
    present = torch.cat([part.present for part in parts])
    for number, model_id in enumerate(run.design.model_ids()):
        accumulator = MeanAccumulator(run.modalities, run.config.model.dim)
        for part in parts:
            accumulator.add(part.mean[number][None], part.present)
        means.append(accumulator.means())
        values = np.concatenate([_own_cmc(accumulator, part, number) for part in parts])
        levels[model_id] = {
            "cmc_mean": float(values.mean()),
            "cmc_se": float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
        }
    facts = {
        "samples": len(present),
        "modalities": dict(zip(run.modalities, present.sum(0).tolist(), strict=True)),
        "models": levels,
    }
    return torch.stack(means), facts


def _own_cmc(accumulator: MeanAccumulator, part: _Embedded, number: int) -> Any:
    """CMC of held-out samples under one model, leaving each out of its own reference."""
    mean = part.mean[number]
    others = accumulator.leave_one_out(mean[None], part.present)
    uniformity = mean.double() @ others.transpose(-1, -2)
    both = part.present[:, :, None] & part.present[:, None, :]
    own = Agreement(part.alignment[number].double(), torch.where(both, uniformity, 0.0))
    return metric.cmc(own, part.present).numpy()
