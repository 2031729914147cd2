"""Which samples a model treats otherwise than the rest, and how: mitigation while it trains.

Each model chooses among its own members, every so many epochs, and treats what it chose until the
next choice:

    augment   in mini-batches of their own, with noise on their embeddings and stronger views
              (arXiv 2606.22220 regroups the top 5 % every 10 epochs)
    unpair    without the modality that fits the others least, judged by models that never saw the
              sample: its good pair goes on teaching; a sample with two modalities is left out
    drop      not at all

By what references know (cmc_out, random, a list), the choice costs nothing and holds from the
first epoch. By what the running model does (MultiMem against the references' consistency, CLIPMem,
cosine, gradient norm), the embeddings of the epoch before the choice are used as training makes
them; only samples that are left out are embedded for it.

Everything follows from the model, the epoch and the keys: banks and resumption change nothing.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from multimem_ray import metric
from multimem_ray.config import MitigationConfig
from multimem_ray.design.key_list import hashed
from multimem_ray.mitigation.policy import (
    OBSERVED,
    ORDINARY,
    BatchGroup,
    Policies,
    SamplePolicy,
    Views,
)
from multimem_ray.mitigation.reference_scores import Floats, Hashes, ReferenceScores
from multimem_ray.modalities.batch import Batch
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.run import Run

HeldOutMeans = Callable[[ContrastiveModel], Tensor]

CHOSEN = "chosen.parquet"
SCORED_TOGETHER = 1024
"""Samples whose embeddings wait to be scored: a few megabytes."""


def policies(run: Run, held_out_means: HeldOutMeans | None = None) -> Policies:
    """The policies that a run configures; reads what its references know.

    Args:
        run: The run.
        held_out_means: Mean embeddings (n, d) of held-out samples under a model, for a choice that
            compares the running model with references.
    """
    config = run.config.mitigation
    if config.kind == "none":
        return Policies()
    scores, decoder = ReferenceScores.load(run), None
    if config.treatment == "augment" and config.views != 1.0:
        settings = {
            m.name: m.settings.model_dump() | {"strength": m.settings.strength * config.views}
            for m in run.decoder.modalities
        }
        decoder = Decoder(run.fields, settings)
    return Policies(
        lambda number: MitigationPolicy(config, scores, run.modalities, number, held_out_means),
        decoder,
    )


@dataclass
class MitigationPolicy(SamplePolicy):
    """The choices of one model.

    Args:
        config: The section ``mitigation``.
        references: What references know of the samples.
        modalities: Names, sorted.
        number: The model's.
        held_out_means: See :func:`policies`.

    Attributes:
        chosen: Hash of the key → place of the modality that fits least, or -1.
        observes: Whether embeddings are wanted now.
        seconds: Time that choosing took in this epoch.
    """

    config: MitigationConfig
    references: ReferenceScores
    modalities: Sequence[str]
    number: int
    held_out_means: HeldOutMeans | None = None
    chosen: dict[int, int] = field(default_factory=dict)
    observes: bool = False
    seconds: float = 0.0
    _means: Tensor | None = None
    _epoch: int = -1
    _ids: list[Hashes] = field(default_factory=list)
    _suspicion: list[Tensor] = field(default_factory=list)
    _waiting: list[tuple[Hashes, Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Chosen samples are few: two of them suffice for a batch.
        self._regrouped = BatchGroup(self.config.noise, fewest=2)
        self.groups = (ORDINARY, self._regrouped, OBSERVED)
        self.observes_first = self._observes(-1)
        self.by_shard = self.references.by_shard

    def begin(self, epoch: int, model: ContrastiveModel) -> None:
        """Before an epoch: choose by what is known, if a choice is due.

        What references know does not change; chance is asked anew.
        """
        self._epoch, self.observes = epoch, self._observes(epoch)
        again = self.config.by == "random" or not self.chosen
        if not self.config.watches and self._is_due(epoch) and again:
            with self._timing():
                suspicion = self.references.suspicion(self.config, self.number, epoch)
                self._choose(self.references.ids, suspicion)
        if self.observes and self.config.by in {"multimem", "clipmem"} and self.held_out_means:
            with self._timing():
                self._means = self.held_out_means(model)

    def end(self, epoch: int) -> dict[str, Any]:
        """After an epoch: choose by what was seen, if a choice is due."""
        if self.observes:
            self.observes = False
            with self._timing():
                self._score_waiting()
                if self._ids:
                    suspicion = torch.cat(self._suspicion).cpu().double().numpy()
                    self._choose(np.concatenate(self._ids), suspicion)
            self._ids, self._suspicion, self._means = [], [], None
        if epoch < 0:
            return {}  # its time is told with that of the first epoch
        seconds, self.seconds = self.seconds, 0.0
        return {"chosen": len(self.chosen), "mitigation_s": seconds}

    def assign(
        self, key: str, views: Views, other_views: Callable[[], Views] | None
    ) -> tuple[BatchGroup, Views] | None:
        if self._epoch < 0:
            return OBSERVED, views
        if not self.chosen:
            return ORDINARY, views
        misfit = self.chosen.get(int(hashed([key])[0]))
        if misfit is None:
            return ORDINARY, views
        if self.config.treatment == "augment":
            return self._regrouped, views if other_views is None else other_views()
        if self.config.treatment == "unpair" and len(views) > 2 and misfit >= 0:
            without = self.modalities[misfit]
            return ORDINARY, {name: view for name, view in views.items() if name != without}
        return (OBSERVED, views) if self.observes else None

    def observe(
        self,
        keys: Sequence[str],
        embeddings: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        model: ContrastiveModel,
    ) -> None:
        """Score the samples of a batch by their embeddings, if a choice needs them."""
        if not self.observes:
            return
        with self._timing():
            ids = hashed(keys)
            detached = {name: e.detach() for name, e in embeddings.items()}
            if self.config.by == "gradient_norm":
                self._ids.append(ids)
                self._suspicion.append(gradient_norms(detached, rows, model, len(keys)))
                return
            self._waiting.append((ids, *self._stacked(len(keys), detached, rows)))
            if sum(len(one) for one, _, _ in self._waiting) >= SCORED_TOGETHER:
                self._score_waiting()

    @torch.no_grad()
    def embed(self, keys: Sequence[str], batch: Batch, model: ContrastiveModel) -> None:
        with self._timing():
            training = model.training
            model.eval()
            try:
                embeddings = model.embed(model.prepare(batch.values))
            finally:
                model.train(training)
        self.observe(keys, embeddings, batch.rows, model)

    def state(self) -> Tensor:
        rows = [(np.uint64(i).astype(np.int64).item(), m) for i, m in sorted(self.chosen.items())]
        return torch.tensor(rows, dtype=torch.int64).view(-1, 2)

    def load(self, state: Tensor) -> None:
        ids = state[:, 0].numpy().astype(np.uint64).tolist()
        self.chosen = dict(zip(ids, state[:, 1].tolist(), strict=True))

    def files(self) -> dict[str, bytes]:
        """What is chosen at the end: ``id`` (of the references) and ``misfit`` (a modality)."""
        names = [None if m < 0 else self.modalities[m] for m in self.chosen.values()]
        ids = pa.array(list(self.chosen), pa.uint64())
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": ids, "misfit": pa.array(names, pa.string())}), buffer)
        return {CHOSEN: buffer.getvalue()}

    @contextmanager
    def _timing(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def _observes(self, epoch: int) -> bool:
        """Whether the choice after this epoch needs its embeddings."""
        return self.config.watches and self._is_due(epoch + 1)

    def _is_due(self, epoch: int) -> bool:
        first = self.config.first
        if self.config.kind == "post_training":
            return epoch == 0
        return epoch >= first and (epoch - first) % self.config.every == 0

    def _stacked(
        self, size: int, embeddings: Mapping[str, Tensor], rows: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(B, n, d) embeddings of a batch, and (B, n) which modalities there are."""
        some = next(iter(embeddings.values()))
        stacked = some.new_zeros(size, len(self.modalities), some.shape[1])
        present = torch.zeros(stacked.shape[:2], dtype=torch.bool, device=some.device)
        for name, embedded in embeddings.items():
            place = self.modalities.index(name)
            stacked[rows[name], place] = embedded
            present[rows[name], place] = True
        return stacked, present

    def _score_waiting(self) -> None:
        """Score what was seen and waits; many samples together, since each call costs."""
        if not self._waiting:
            return
        ids, stacked, present = zip(*self._waiting, strict=True)
        self._waiting = []
        self._ids.append(np.concatenate(ids))
        batch = torch.cat(stacked)[None], torch.cat(present)
        self._suspicion.append(self._scores(self._ids[-1], *batch))

    def _scores(self, ids: Hashes, stacked: Tensor, present: Tensor) -> Tensor:
        """(B,) suspicion by cosine, MultiMem or CLIPMem of the running model."""
        means = stacked.new_zeros(stacked.shape[2:]) if self._means is None else self._means
        agreement = metric.agreement(stacked, present, means)
        if self.config.by == "cosine":
            return -_mean_cosine(agreement.alignment, present)
        if self.config.by == "multimem":
            return metric.cmc(agreement, present) - self._known(ids, "cmc_out", stacked.device)
        pairs = metric.clipmem_alignment(agreement, present).triu(diagonal=1).nansum(dim=(1, 2))
        return pairs - self._known(ids, "unseen_clipmem", stacked.device)

    def _known(self, ids: Hashes, column: str, device: torch.device) -> Tensor:
        rows = self.references.rows(ids)
        values = np.full(len(ids), np.nan)
        values[rows >= 0] = self.references.scores[column][rows[rows >= 0]]
        return torch.from_numpy(values).to(device)

    def _choose(self, ids: Hashes, suspicion: Floats) -> None:
        """The most suspicious become the chosen; ties go by hash."""
        known = np.flatnonzero(~np.isnan(suspicion))
        size = len(known)
        if self.config.by != "list":
            own = self.references.member[:, self.number]
            members = len(ids) if self.config.watches else int(own.sum())
            size = self.config.top or max(1, round(self.config.percent / 100 * members))
        order = known[np.lexsort((ids[known], -suspicion[known]))[:size]]
        rows = self.references.rows(ids[order])
        misfit = np.where(rows >= 0, self.references.misfit[rows], -1)
        self.chosen = dict(zip(ids[order].tolist(), misfit.tolist(), strict=True))


def gradient_norms(
    embeddings: Mapping[str, Tensor], rows: Mapping[str, Tensor], model: ContrastiveModel, size: int
) -> Tensor:
    """(B,) norm of the gradient of a batch's loss with respect to a sample's embeddings.

    That of the weights would need a backward pass for each sample; the last layer's is its usual
    stand-in (Paul et al. 2021, arXiv 2107.07075).
    """
    leaves = {name: e.float().requires_grad_() for name, e in embeddings.items()}
    with torch.enable_grad():
        loss = model.loss_of(leaves, rows)
        wanted = list(leaves.values())
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    squares = torch.zeros(size, device=loss.device)
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            squares[rows[name]] += gradient.square().sum(dim=1)
    return squares.sqrt()


def _mean_cosine(alignment: Tensor, present: Tensor) -> Tensor:
    """(B,) mean over the pairs that a sample has; NaN with a single modality."""
    both = (present[:, :, None] & present[:, None, :]).triu(diagonal=1)
    return (alignment * both).sum(dim=(1, 2)) / both.sum(dim=(1, 2))
