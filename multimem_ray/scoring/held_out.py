"""The held-out set under every model: a third output, beside scores and embeddings.

The scoring actors make it before they score, shard by shard of H, and tell each other by files:

    held_out/keys.parquet                       the plan: shard and key of each sample of H
    held_out/parts/<run>/<shard>                held-out samples of one shard under all models
    held_out/parts/<run>/claims/<actor>/<item>  what an actor has begun
    held_out/parts/<run>/notes/<shard>/         notes and parts of a shard on which a process died
    held_out/means.safetensors                  (M, n, d) float64: all that scoring needs of H; with
                                                a target, also the levels of the models on H
    held_out/held_out.json                      counts, who was left out, and the consistency of H
                                                under each model; written last

An actor that needs the means does at once whatever nobody has begun, and what others have begun
when they give no sign any more. So no actor depends on another one staying alive, none waits for
itself, and the driver needs neither models nor means.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import torch

from multimem_ray import metric
from multimem_ray.run import Run
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.bank import ScoringBank, require_directions
from multimem_ray.scoring.chunks import ChunkReader, Item
from multimem_ray.scoring.held_out_plan import (
    CLAIMS,
    Chosen,
    is_summarized,
    load_plan,
    means_name,
    parts_folder,
)
from multimem_ray.scoring.held_out_stats import (
    Embedded,
    EmbeddedParts,
    HeldOutStatistics,
    summarize,
)
from multimem_ray.scoring.poison import KILLED, isolated_parts
from multimem_ray.scoring.rows import IdentityRow
from multimem_ray.scoring.shard import Output, ScoringBatch, shard_parts
from multimem_ray.storage import FileInfo
from multimem_ray.store.names import shard_id
from multimem_ray.store.parts import Part, joined

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
PATIENCE_S = 30.0
_SUMMARY = "summary"


class HeldOut(ABC):
    """What an actor does for the held-out set, and gets from it.

    Args:
        patience_s: Seconds without any sign of the others after which what they began is done.
        careful: Isolate samples that kill their process; for after a death. Where others left
            notes it is careful anyway.
        actor: Name of the actor, the same when it is started again; default: of the process.
    """

    def __init__(
        self,
        run: Run,
        *,
        patience_s: float = PATIENCE_S,
        careful: bool = False,
        actor: str | None = None,
    ) -> None:
        self._run, self._patience_s, self._careful = run, patience_s, careful
        self._actor = actor or f"{socket.gethostname()}-{os.getpid()}"
        self._folder = parts_folder(run)
        # Of its own epoch: what an earlier driver's actors have begun is waited for by nobody.
        self._claims = CLAIMS + run.fence.suffix
        self._parts = EmbeddedParts(run.storage, self._folder)
        self._statistics: HeldOutStatistics | None = None

    @abstractmethod
    def part(self, chosen: Chosen, *, careful: bool) -> Part[Embedded]:
        """What becomes of the held-out samples of one shard."""

    def embed(self, chosen: Chosen) -> None:
        """Embed the held-out samples of one shard; sum up if it was the last."""
        url = self._part_url(chosen)
        if is_summarized(self._run) or self._run.storage.exists(url):
            return
        self._claim(shard_id(chosen.shard))
        careful = self._careful or bool(self.notes(chosen).names())
        part = self.part(chosen, careful=careful)
        for failure in part.failures:
            logger.warning(
                "%s: held-out sample %s is left out: %s",
                *(failure.shard, failure.key, failure.detail),
            )
        self._run.storage.write_atomic(url, self._parts.encoded(part))
        if is_summarized(self._run):
            self._clear()  # another one has done the same, and was faster
        elif not self._missing(self._run.storage.list(self._folder)):
            self._sum_up()

    def statistics(self) -> HeldOutStatistics:
        """All that scoring needs of H; helps until H is embedded.

        Raises:
            HeldOutError: H lacks a modality, or an embedding is not finite.
        """
        if self._statistics is None:
            means = self._run.storage.read_bytes(self._run.path("held_out", self._wait()))
            self._statistics = HeldOutStatistics.from_bytes(means)
        return self._statistics

    def notes(self, chosen: Chosen) -> EmbeddedParts:
        """Where notes and parts of a shard lie on which a process died."""
        storage = self._run.storage
        return EmbeddedParts(storage, storage.join(self._folder, "notes", shard_id(chosen.shard)))

    def _wait(self) -> str:
        """The name of the means, as soon as they are there."""
        signs: set[FileInfo] = set()
        since = time.monotonic()
        while (means := means_name(self._run)) is None:
            self._run.fence.require()
            there = self._run.storage.list(self._folder)
            # Who goes through a shard with care writes notes all the while.
            if set(there) != signs:
                signs, since = set(there), time.monotonic()
            missing = {shard_id(chosen.shard): chosen for chosen in self._missing(there)}
            items: dict[str, Chosen | None] = {**missing} or {_SUMMARY: None}
            gone = time.monotonic() - since >= self._patience_s
            free = sorted(items.keys() - (set() if gone else self._begun_by_others(there)))
            if not free:
                time.sleep(LOOK_EVERY_S)
                continue
            chosen = items[random.choice(free)]  # noqa: S311 - so that helpers differ
            if chosen is None:
                self._sum_up()
            else:
                self.embed(chosen)
        return means

    def _claim(self, item: str) -> None:
        url = self._run.storage.join(self._folder, self._claims, self._actor, item)
        self._run.storage.write_atomic(url, b"")

    def _begun_by_others(self, there: Sequence[FileInfo]) -> set[str]:
        claims = (info.url.rsplit("/", 3)[-3:] for info in there)
        own, actor_of_own = self._claims, self._actor
        return {item for kind, actor, item in claims if kind == own and actor != actor_of_own}

    def _missing(self, there: Sequence[FileInfo]) -> list[Chosen]:
        urls = {info.url for info in there}
        return [chosen for chosen in self._plan if self._part_url(chosen) not in urls]

    @cached_property
    def _plan(self) -> list[Chosen]:
        return load_plan(self._run)

    def _part_url(self, chosen: Chosen) -> str:
        return self._run.storage.join(self._folder, shard_id(chosen.shard))

    def _embedded(self) -> Iterator[Part[Embedded]]:
        """The parts in the order of the plan, one at a time in memory."""
        for chosen in self._plan:
            yield self._parts.decoded(self._run.storage.read_bytes(self._part_url(chosen)))

    def _sum_up(self) -> None:
        self._claim(_SUMMARY)
        run, target = self._run, self._run.config.design.target is not None
        try:
            paired = run.config.design.kind == "complementary_halves"
            summary = summarize(self._embedded, run.modalities, target=target, paired=paired)
        except Exception:
            # Another one may have been faster, and have cleared the parts away.
            if is_summarized(run):
                return
            raise
        stored = summary.statistics.to_bytes()
        name = f"means{run.fence.suffix}.safetensors"
        run.fence.require()
        run.storage.write_atomic(run.path("held_out", name), stored)
        chosen = sum(len(item.keys) for item in self._plan)
        killed = [failure for failure in summary.failures if failure.error == KILLED]
        content = {
            "fingerprint": run.fingerprint,
            "means": name,
            "keys_seen": chosen,
            "samples": summary.samples,
            "undecodable": chosen - summary.samples - len(killed),
            "killed": [_told(one) for one in killed],
            "left_out": [_told(one) for one in summary.failures if one.error != KILLED],
            "modalities": summary.modalities,
            "models": dict(zip(run.design.model_ids(), summary.models, strict=True)),
            "target": summary.target,
        }
        text = json.dumps(content, indent=1)
        run.fence.require()
        run.storage.write_atomic(run.path("held_out", "held_out.json"), text.encode())
        self._clear()

    def _clear(self) -> None:
        if self._run.fence.is_open():
            self._run.storage.discard(self._run.path("held_out", "parts"), recursive=True)


def _told(failure: Failure) -> dict[str, Any]:
    return {name: getattr(failure, name) for name in ("shard", "key", "stage", "detail")}


class HeldOutOfShards(HeldOut):
    """The held-out set of shards, under a bank of models."""

    def __init__(
        self,
        run: Run,
        bank: ScoringBank,
        *,
        patience_s: float = PATIENCE_S,
        careful: bool = False,
        actor: str | None = None,
    ) -> None:
        super().__init__(run, patience_s=patience_s, careful=careful, actor=actor)
        self._bank = bank

    def part(self, chosen: Chosen, *, careful: bool) -> Part[Embedded]:
        output = HeldOutSamples(self._run, self._bank, chosen)
        if careful:
            parts = isolated_parts(output, chosen.shard, self.notes(chosen))
        else:
            parts = shard_parts(output, chosen.shard)
        return joined(parts, output.joined)


class HeldOutSamples(Output[Embedded]):
    """The chosen samples of a shard under all models; what fails is left out of the means."""

    blames_one_of_one: ClassVar[bool] = True

    def __init__(self, run: Run, bank: ScoringBank, chosen: Chosen) -> None:
        super().__init__(_ChosenReader(run, chosen))
        self._bank, self._modalities, self._design = bank, run.modalities, run.design

    def rows(self, batch: ScoringBatch) -> Embedded:
        present = batch.decoded.present(self._modalities)
        embedded = self._bank.embed(batch.decoded).cpu()
        require_directions(embedded, present)
        nowhere = torch.zeros(embedded.shape[-2:])
        alignment = [metric.agreement(e, present, nowhere).alignment for e in embedded]
        assigned = torch.from_numpy(self._design.assignments(batch.who.groups))
        return Embedded(embedded.mean(dim=1), torch.stack(alignment), present, assigned)

    def joined(self, rows: Sequence[Embedded]) -> Embedded:
        nothing = Embedded.nothing(self._bank.count, len(self._modalities), self._bank.dim)
        return Embedded.joined([nothing, *rows])


class _ChosenReader(ChunkReader):
    """Counts only the chosen samples of a shard as positions."""

    def __init__(self, run: Run, chosen: Chosen) -> None:
        super().__init__(run, keep_held_out=True)
        self._keys = frozenset(chosen.keys)

    def items(self, shard: str) -> Iterator[Item]:
        samples = (item for item in super().items(shard) if isinstance(item, Sample))
        return (sample for sample in samples if sample.key in self._keys)

    def identity(self, sample: Sample) -> IdentityRow:
        # Nothing else is needed; a label that cannot be read must not cost a held-out sample.
        return sample.key, sample.index, None, self._run.group(sample), None

    def unread(self, shard: str, position: int, detail: str) -> list[Failure]:
        seen = {item.key for item in islice(self.items(shard), position)}
        return [
            Failure(shard, key, None, "read", KILLED, detail) for key in sorted(self._keys - seen)
        ]
