"""Which samples a model treats otherwise than the rest, and how: mitigation while it trains.

Each model of a bank chooses among its own members, every so many epochs, and treats what it chose
until the next choice:

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimem_ray import metric
from multimem_ray.config import MitigationConfig
from multimem_ray.design.key_list import hashed
from multimem_ray.mitigation.reference_scores import Floats, Hashes, ReferenceScores
from multimem_ray.modalities.base import Array
from multimem_ray.models.contrastive import ContrastiveModel

Views = Mapping[str, Array]

PLAIN, REGROUPED, LEFT_OUT = "plain", "regrouped", "left out"
CHOSEN = "chosen.parquet"
SCORED_TOGETHER = 1024
"""Samples whose embeddings wait to be scored: a few megabytes."""


@dataclass
class SamplePolicy:
    """The choices of one model.

    Args:
        config: The section ``mitigation``.
        judged: What references think of the samples.
        modalities: Names, sorted.
        number: The model's.

    Attributes:
        chosen: Hash of the key → place of the modality that fits least, or -1.
        means: (n, d) held-out means of the running model; set before an epoch that is watched.
        watching: Whether embeddings are wanted now.
        seconds: Time that choosing took in this epoch.
    """

    config: MitigationConfig
    judged: ReferenceScores
    modalities: Sequence[str]
    number: int
    chosen: dict[int, int] = field(default_factory=dict)
    means: Tensor | None = None
    watching: bool = False
    seconds: float = 0.0
    _ids: list[Hashes] = field(default_factory=list)
    _found: list[Tensor] = field(default_factory=list)
    _waiting: list[tuple[Hashes, Tensor, Tensor]] = field(default_factory=list)

    def watches(self, epoch: int) -> bool:
        """Whether the choice after this epoch needs its embeddings."""
        return self.config.watches and self._is_due(epoch + 1)

    def needs_means(self, epoch: int) -> bool:
        """Whether it needs the held-out means of the running model as well."""
        return self.watches(epoch) and self.config.by in {"multimem", "clipmem"}

    def begin(self, epoch: int) -> None:
        """Before an epoch: choose by what is known, if a choice is due.

        What references know does not change; chance is asked anew.
        """
        self.watching = self.watches(epoch)
        again = self.config.by == "random" or not self.chosen
        if not self.config.watches and self._is_due(epoch) and again:
            started = time.perf_counter()
            standing = self.judged.standing(self.config, self.number, epoch)
            self._choose(self.judged.ids, standing)
            self.seconds += time.perf_counter() - started

    def end(self, epoch: int) -> None:
        """After an epoch: choose by what was seen, if a choice is due."""
        if not self.watching:
            return
        self.watching = False
        started = time.perf_counter()
        self._score_waiting()
        if self._ids:
            ids, scores = np.concatenate(self._ids), torch.cat(self._found)
            self._choose(ids, scores.cpu().double().numpy())
        self._ids, self._found, self.means = [], [], None
        self.seconds += time.perf_counter() - started

    def lane(
        self, key: str, views: Views, stronger: Callable[[], Views] | None = None
    ) -> tuple[str, Views]:
        """Where a sample goes, and what of it.

        Args:
            key: Its key.
            views: Its views, at least two.
            stronger: Makes the views of a regrouped sample; default: they are no others.
        """
        if not self.chosen:
            return PLAIN, views
        misfit = self.chosen.get(int(hashed([key])[0]))
        if misfit is None:
            return PLAIN, views
        if self.config.treatment == "augment":
            return REGROUPED, stronger() if stronger is not None else views
        if self.config.treatment == "unpair" and len(views) > 2 and misfit >= 0:
            without = self.modalities[misfit]
            return PLAIN, {name: view for name, view in views.items() if name != without}
        return LEFT_OUT, views

    def watch(
        self,
        keys: Sequence[str],
        embeddings: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        model: ContrastiveModel,
    ) -> None:
        """Score the samples of a batch by their embeddings.

        Args:
            keys: Their keys, B.
            embeddings: Modality → (N_m, d), before any noise.
            rows: Modality → (N_m,) positions in the batch.
            model: The running model.
        """
        started = time.perf_counter()
        ids = hashed(keys)
        detached = {name: e.detach() for name, e in embeddings.items()}
        if self.config.by == "gradient_norm":
            self._ids.append(ids)
            self._found.append(gradient_norms(detached, rows, model, len(keys)))
        else:
            self._waiting.append((ids, *self._stacked(len(keys), detached, rows)))
            if sum(len(one) for one, _, _ in self._waiting) >= SCORED_TOGETHER:
                self._score_waiting()
        self.seconds += time.perf_counter() - started

    def state(self) -> Tensor:
        """(K, 2) int64: what is chosen, for a checkpoint."""
        rows = [(np.uint64(i).astype(np.int64).item(), m) for i, m in sorted(self.chosen.items())]
        return torch.tensor(rows, dtype=torch.int64).view(-1, 2)

    def as_parquet(self) -> bytes:
        """What is chosen at the end: ``id`` (hash of the key) and ``misfit`` (a modality)."""
        names = [None if m < 0 else self.modalities[m] for m in self.chosen.values()]
        ids = pa.array(list(self.chosen), pa.uint64())
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": ids, "misfit": pa.array(names, pa.string())}), buffer)
        return buffer.getvalue()

    def load(self, state: Tensor) -> None:
        """Go on with what a checkpoint held."""
        ids = state[:, 0].numpy().astype(np.uint64).tolist()
        self.chosen = dict(zip(ids, state[:, 1].tolist(), strict=True))

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
        together = np.concatenate(ids)
        self._ids.append(together)
        self._found.append(self._scores(together, torch.cat(stacked)[None], torch.cat(present)))

    def _scores(self, ids: Hashes, stacked: Tensor, present: Tensor) -> Tensor:
        """(B,) suspicion by cosine, MultiMem or CLIPMem of the running model."""
        means = stacked.new_zeros(stacked.shape[2:]) if self.means is None else self.means
        found = metric.agreement(stacked, present, means)
        if self.config.by == "cosine":
            return -_mean_cosine(found.alignment, present)
        if self.config.by == "multimem":
            return metric.cmc(found, present) - self._known(ids, "cmc_out", stacked.device)
        pairs = metric.clipmem_alignment(found, present).triu(diagonal=1).nansum(dim=(1, 2))
        return pairs - self._known(ids, "unseen_clipmem", stacked.device)

    def _known(self, ids: Hashes, column: str, device: torch.device) -> Tensor:
        rows = self.judged.rows(ids)
        values = np.full(len(ids), np.nan)
        values[rows >= 0] = self.judged.scores[column][rows[rows >= 0]]
        return torch.from_numpy(values).to(device)

    def _choose(self, ids: Hashes, suspicion: Floats) -> None:
        """The most suspicious become the chosen; ties go by hash."""
        known = np.flatnonzero(~np.isnan(suspicion))
        members = len(ids) if self.config.watches else int(self._members().sum())
        size = self._size(members, len(known))
        order = known[np.lexsort((ids[known], -suspicion[known]))[:size]]
        rows = self.judged.rows(ids[order])
        misfit = np.where(rows >= 0, self.judged.misfit[rows], -1)
        self.chosen = dict(zip(ids[order].tolist(), misfit.tolist(), strict=True))

    def _size(self, members: int, known: int) -> int:
        if self.config.by == "list":
            return known
        wanted = self.config.top or max(1, round(self.config.percent / 100 * members))
        return min(wanted, known)

    def _members(self) -> NDArray[np.bool_]:
        return self.judged.member[:, self.number]


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
