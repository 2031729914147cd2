"""The held-out set under every model: mean vectors, and the consistency of H itself.

The scoring actors do it before they score, shard by shard of H, and tell each other by files:

    held_out/keys.parquet           the plan: shard and key of each sample of H
    held_out/parts/<run>/<shard>    held-out samples of one shard under all models, while it lasts
    held_out/means.safetensors      (M, n, d) float64: all that scoring needs of H; with a target,
                                    also the levels of the models on H
    held_out/held_out.json          counts, who was left out, and the consistency of H under each
                                    model; written last

Whoever finishes the last part sums up; whoever waits too long does what is missing. So no actor
depends on another one staying alive, and the driver needs neither models nor means.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from multimem_ray import metric
from multimem_ray.errors import SampleError
from multimem_ray.metric import Agreement, Calibration, CalibrationAccumulator, MeanAccumulator
from multimem_ray.modalities.base import Array
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank, make_views
from multimem_ray.scoring.held_out_care import embedded_carefully
from multimem_ray.scoring.held_out_parts import Embedded, Killed
from multimem_ray.scoring.held_out_plan import Chosen, is_summarized, load_plan
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo
from multimem_ray.store.names import shard_id
from multimem_ray.store.parts import PartFolder

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
PATIENCE_S = 30.0

_Decoded: TypeAlias = tuple[str, Mapping[str, Array]]


class HeldOutMeans:
    """What an actor does for the held-out set, and gets from it.

    Args:
        patience_s: Seconds without any sign of the others after which it helps.
        careful: Note down what is about to be done, and leave out samples that killed their
            process; for after a death. Where others left notes it is careful anyway.
    """

    def __init__(
        self,
        run: Run,
        bank: ScoringBank,
        patience_s: float = PATIENCE_S,
        *,
        careful: bool = False,
    ) -> None:
        self._run, self._bank, self._patience_s = run, bank, patience_s
        self._careful = careful
        self._stored: HeldOutStatistics | None = None

    def embed(self, chosen: Chosen) -> None:
        """Embed the held-out samples of one shard; sum up if it was the last."""
        url = self._part_url(chosen)
        if is_summarized(self._run) or self._run.storage.exists(url):
            return
        careful = self._careful or bool(self._notes(chosen).names())
        self._run.storage.write_atomic(url, self.part(chosen, careful).to_bytes())
        if not self._missing():
            self._summarize()

    def part(self, chosen: Chosen, careful: bool) -> Embedded:
        """What becomes of the held-out samples of one shard."""
        samples, most = self._samples(chosen), self._run.config.scoring.batch_size
        if careful:
            folder = self._notes(chosen)
            parts = embedded_carefully(chosen, samples, most, folder, self._decoded, self._embedded)
        else:
            parts = [self._embedded(self._decoded(batch)) for batch in _batches(samples, most)]
        return Embedded.joined([self._embedded([]), *parts])

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
        signs: set[FileInfo] = set()
        since = time.monotonic()
        while not is_summarized(self._run):
            there = self._run.storage.list(self._parts_folder())
            # Who goes through a shard with care writes notes all the while.
            if set(there) != signs:
                signs, since = set(there), time.monotonic()
            if time.monotonic() - since < self._patience_s:
                time.sleep(LOOK_EVERY_S)
            elif left := self._missing():
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

    def _notes(self, chosen: Chosen) -> PartFolder:
        storage = self._run.storage
        place = storage.join(self._parts_folder(), "notes", shard_id(chosen.shard))
        return PartFolder(storage, place)

    def _samples(self, chosen: Chosen) -> Iterator[Sample]:
        wanted = set(chosen.keys)
        for item in read_shard(chosen.shard, self._run.storage):
            if isinstance(item, Sample) and item.key in wanted:
                yield item

    def _decoded(self, samples: Iterable[Sample]) -> list[_Decoded]:
        found: list[_Decoded] = []
        for sample in samples:
            # A held-out sample that cannot be decoded is left out of the means.
            with suppress(SampleError):
                found.append((sample.key, self._run.decoder.decode(sample)))
        return found

    def _embedded(self, decoded: Sequence[_Decoded]) -> Embedded:
        """A batch under all models; samples on which the models raise an error are left out."""
        if not decoded:
            models, n = len(self._run.design.model_ids()), len(self._run.modalities)
            return Embedded.nothing(models, n, self._bank.dim)
        try:
            return self._batch(decoded)
        except Exception as error:
            if len(decoded) == 1:
                logger.warning("held-out sample %s is left out: %s", decoded[0][0], error)
                return self._embedded([])
            parts = [self._embedded([one]) for one in decoded]
            if not any(len(part.present) for part in parts):
                raise
            return Embedded.joined(parts)

    def _batch(self, decoded: Sequence[_Decoded]) -> Embedded:
        keys, arrays = (list(column) for column in zip(*decoded, strict=True))
        views = make_views(self._run, keys, arrays)
        embedded = self._bank.embed(views).cpu()
        nowhere = torch.zeros(embedded.shape[-2:])
        alignment = [metric.agreement(e, views.present, nowhere).alignment for e in embedded]
        return Embedded(embedded.mean(dim=1), torch.stack(alignment), views.present)

    def _parts(self) -> Iterator[Embedded]:
        """The parts in the order of the plan, one at a time in memory."""
        for item in load_plan(self._run):
            yield Embedded.from_bytes(self._run.storage.read_bytes(self._part_url(item)))

    def _summarize(self) -> None:
        run, ids = self._run, self._run.design.model_ids()
        sums = [MeanAccumulator(run.modalities, self._bank.dim) for _ in ids]
        killed: list[Killed] = []
        try:
            for part in self._parts():
                killed += part.killed
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
        chosen = sum(len(item.keys) for item in plan)
        content = {
            "fingerprint": run.fingerprint,
            "keys_seen": chosen,
            "samples": found.samples,
            "undecodable": chosen - found.samples - len(killed),
            "killed": [asdict(one) for one in killed],
            "modalities": dict(zip(run.modalities, sums[0].counts.tolist(), strict=True)),
            "models": dict(zip(ids, found.models, strict=True)),
            "target": found.target,
        }
        text = json.dumps(content, indent=1)
        run.storage.write_atomic(run.path("held_out", "held_out.json"), text.encode())
        run.storage.remove(run.path("held_out", "parts"), recursive=True)


def _batches(samples: Iterator[Sample], most: int) -> Iterator[list[Sample]]:
    while batch := list(islice(samples, most)):
        yield batch


@dataclass(frozen=True)
class _Found:
    """The held-out set under each model: for people, and for the scores of a target."""

    samples: int
    models: list[dict[str, float | None]]
    target: dict[str, Any] | None
    levels: Calibration | None


def _levels(run: Run, sums: Sequence[MeanAccumulator], parts: Iterator[Embedded]) -> _Found:
    """Consistency of H's own samples under each model, each against the rest of H."""
    values: list[Tensor] = []
    gathered = CalibrationAccumulator(len(sums), len(run.modalities))
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
