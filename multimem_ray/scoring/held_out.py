"""The held-out set under every model: mean vectors, and the consistency of H itself.

The scoring actors do it before they score, shard by shard of H, and tell each other by files:

    held_out/keys.parquet           the plan: shard and key of each sample of H
    held_out/parts/<run>/<shard>    held-out samples of one shard under all models, while it lasts
    held_out/means.safetensors      (M, n, d) float64: all that scoring needs of H; with a target,
                                    also the levels of the models on H
    held_out/held_out.json          counts, and the consistency of H under each model; written last

Whoever finishes the last part sums up; whoever waits too long does what is missing. So no actor
depends on another one staying alive, and the driver needs neither models nor means.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from safetensors.torch import load, save
from torch import Tensor

from multimem_ray import metric
from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.metric import Agreement, Levels, LevelsAccumulator, MeanAccumulator
from multimem_ray.modalities.base import Array
from multimem_ray.run import Run, shard_id
from multimem_ray.sample import Sample
from multimem_ray.scoring.attempts import Attempt
from multimem_ray.scoring.bank import ScoringBank, make_views
from multimem_ray.scoring.held_out_plan import Chosen, is_summarized, load_plan
from multimem_ray.scoring.parts import PartFolder
from multimem_ray.scoring.statistics import HeldOutStatistics
from multimem_ray.shards.reader import read_shard

LOOK_EVERY_S = 0.1
PATIENCE_S = 30.0

_Decoded: TypeAlias = tuple[str, Mapping[str, Array]]


@dataclass(frozen=True)
class Embedded:
    """Held-out samples of one shard under all models.

    Args:
        mean: (M, B, n, d), embeddings averaged over the views.
        alignment: (M, B, n, n).
        present: (B, n).
    """

    mean: Tensor
    alignment: Tensor
    present: Tensor


class HeldOutMeans:
    """What an actor does for the held-out set, and gets from it.

    Args:
        patience_s: Seconds without any progress of the others after which it helps.
    """

    def __init__(self, run: Run, bank: ScoringBank, patience_s: float = PATIENCE_S) -> None:
        self._run, self._bank, self._patience_s = run, bank, patience_s
        self._stored: HeldOutStatistics | None = None

    def embed(self, chosen: Chosen, careful: bool = False) -> None:
        """Embed the held-out samples of one shard; sum up if it was the last.

        Args:
            careful: Note down each sample, and leave out one that killed its process; for after
                a death.
        """
        url = self._part_url(chosen)
        if is_summarized(self._run) or self._run.storage.exists(url):
            return
        self._run.storage.write_atomic(url, save(_tensors(self.part(chosen, careful))))
        if not self._missing():
            self._summarize()

    def part(self, chosen: Chosen, careful: bool) -> Embedded:
        """What becomes of the held-out samples of one shard."""
        decoded = self._carefully(chosen) if careful else self._decoded(self._samples(chosen))
        return self._embedded(decoded)

    def statistics(self) -> HeldOutStatistics:
        """All that scoring needs of H; waits until H is embedded.

        Raises:
            HeldOutError: H lacks a modality, or an embedding is not finite.
        """
        if self._stored is None:
            self._wait()
            url = self._run.path("held_out", "means.safetensors")
            self._stored = HeldOutStatistics.from_bytes(self._run.storage.read_bytes(url))
        return self._stored

    def _wait(self) -> None:
        missing: list[Chosen] | None = None
        since = time.monotonic()
        while not is_summarized(self._run):
            left = self._missing()
            if missing is None or len(left) < len(missing):
                missing, since = left, time.monotonic()
            if time.monotonic() - since < self._patience_s:
                time.sleep(LOOK_EVERY_S)
            elif left:
                self.embed(random.choice(left))  # noqa: S311 - so that helpers differ
            else:
                self._summarize()

    def _missing(self) -> list[Chosen]:
        run = self._run
        listed = run.storage.list(self._parts_folder(), recursive=False)
        there = {run.storage.name(info.url) for info in listed}
        return [item for item in load_plan(run) if shard_id(item.shard) not in there]

    def _parts_folder(self) -> str:
        return self._run.path("held_out", "parts", self._run.fingerprint)

    def _part_url(self, chosen: Chosen) -> str:
        return self._run.storage.join(self._parts_folder(), shard_id(chosen.shard))

    def _samples(self, chosen: Chosen) -> Iterator[Sample]:
        wanted = set(chosen.keys)
        for item in read_shard(chosen.shard, self._run.storage):
            if isinstance(item, Sample) and item.key in wanted:
                yield item

    def _decoded(self, samples: Iterable[Sample]) -> Iterator[_Decoded]:
        for sample in samples:
            # A held-out sample that cannot be decoded is left out of the means.
            with suppress(SampleError):
                yield sample.key, self._run.decoder.decode(sample)

    def _carefully(self, chosen: Chosen) -> Iterator[_Decoded]:
        storage = self._run.storage
        place = storage.join(self._parts_folder(), "notes", shard_id(chosen.shard))
        folder = PartFolder(storage, place)
        notes = Attempt.load(folder)
        notes.save(folder)
        if notes.hopeless:
            raise HeldOutError(
                f"{chosen.shard}: embedding its held-out samples killed {notes.deaths} processes; "
                "remove the shard from data.shards"
            )
        for sample in self._samples(chosen):
            if sample.index not in notes.killers:
                notes.begin(folder, "decode", sample.index, sample.index + 1)
                yield from self._decoded([sample])
        notes.done(folder)

    def _embedded(self, samples: Iterable[_Decoded]) -> Embedded:
        parts = []
        remaining = iter(samples)
        while batch := list(islice(remaining, self._run.config.scoring.batch_size)):
            keys, decoded = (list(column) for column in zip(*batch, strict=True))
            parts.append(self._chunk(keys, decoded))
        if not parts:
            return self._nothing()
        return Embedded(
            torch.cat([part.mean for part in parts], dim=1),
            torch.cat([part.alignment for part in parts], dim=1),
            torch.cat([part.present for part in parts]),
        )

    def _chunk(self, keys: list[str], decoded: list[Any]) -> Embedded:
        views = make_views(self._run, keys, decoded)
        embedded = self._bank.embed(views).cpu()
        nowhere = torch.zeros(embedded.shape[-2:])
        alignment = [metric.agreement(e, views.present, nowhere).alignment for e in embedded]
        return Embedded(embedded.mean(dim=1), torch.stack(alignment), views.present)

    def _nothing(self) -> Embedded:
        models, n = len(self._run.design.model_ids()), len(self._run.modalities)
        return Embedded(
            torch.zeros(models, 0, n, self._bank.dim),
            torch.zeros(models, 0, n, n, dtype=torch.float64),
            torch.zeros(0, n, dtype=torch.bool),
        )

    def _parts(self) -> Iterator[Embedded]:
        """The parts in the order of the plan, one at a time in memory."""
        for item in load_plan(self._run):
            yield Embedded(**load(self._run.storage.read_bytes(self._part_url(item))))

    def _summarize(self) -> None:
        run, ids = self._run, self._run.design.model_ids()
        sums = [MeanAccumulator(run.modalities, self._bank.dim) for _ in ids]
        try:
            for part in self._parts():
                for accumulator, mean in zip(sums, part.mean, strict=True):
                    accumulator.add(mean[None], part.present)
            means = torch.stack([accumulator.means() for accumulator in sums])
            found = _levels(run, sums, self._parts())
        except Exception:
            # Another one may have been faster, and have cleared the parts away.
            if is_summarized(run):
                return
            raise
        plan = load_plan(run)
        stored = HeldOutStatistics(means, found.levels).to_bytes()
        run.storage.write_atomic(run.path("held_out", "means.safetensors"), stored)
        content = {
            "fingerprint": run.fingerprint,
            "keys_seen": sum(len(item.keys) for item in plan),
            "samples": found.samples,
            "modalities": dict(zip(run.modalities, sums[0].counts.tolist(), strict=True)),
            "models": dict(zip(ids, found.models, strict=True)),
            "target": found.target,
        }
        text = json.dumps(content, indent=1)
        run.storage.write_atomic(run.path("held_out", "held_out.json"), text.encode())
        run.storage.remove(run.path("held_out", "parts"), recursive=True)


def _tensors(part: Embedded) -> dict[str, Tensor]:
    named = {"mean": part.mean, "alignment": part.alignment, "present": part.present}
    return {name: tensor.contiguous() for name, tensor in named.items()}


@dataclass(frozen=True)
class _Found:
    """The held-out set under each model: for people, and for the scores of a target."""

    samples: int
    models: list[dict[str, float | None]]
    target: dict[str, Any] | None
    levels: Levels | None


def _levels(run: Run, sums: Sequence[MeanAccumulator], parts: Iterator[Embedded]) -> _Found:
    """Consistency of H's own samples under each model, each against the rest of H."""
    values: list[Tensor] = []
    gathered = LevelsAccumulator(len(sums), len(run.modalities))
    targeted = run.config.design.target is not None
    for part in parts:
        own = [_own_agreement(a, part, number) for number, a in enumerate(sums)]
        values.append(torch.stack([metric.cmc(one, part.present) for one in own]))
        if targeted:
            gathered.add(own, part.present)
    every = torch.cat(values, dim=1)
    # The target is the last of the models.
    gap = _mean_and_se(every[-1] - every[:-1].mean(dim=0)) if targeted else None
    return _Found(
        samples=every.shape[1],
        models=[dict(zip(("cmc_mean", "cmc_se"), _mean_and_se(own), strict=True)) for own in every],
        target=gap and {"gap": gap[0], "gap_se": gap[1]},
        levels=gathered.levels() if targeted else None,
    )


def _mean_and_se(values: Tensor) -> tuple[float, float | None]:
    count = len(values)
    se = float(values.std(unbiased=True)) / count**0.5 if count > 1 else None
    return float(values.mean()), se


def _own_agreement(accumulator: MeanAccumulator, part: Embedded, number: int) -> Agreement:
    """Agreement of held-out samples under one model, leaving each out of its own reference."""
    mean = part.mean[number]
    others = accumulator.leave_one_out(mean[None], part.present)
    uniformity = mean.double() @ others.transpose(-1, -2)
    both = part.present[:, :, None] & part.present[:, None, :]
    return Agreement(part.alignment[number].double(), torch.where(both, uniformity, 0.0))
