"""What a training is told about the treatment of its samples, and by whom: nothing here chooses.

A training is handed a :class:`SamplePolicy` for each of its models. The policy says which batches
a sample goes to and what of it, and sees the embeddings of the epochs it asks for; the training
knows nothing else of a mitigation (see :mod:`multimem_ray.mitigation.choice`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from multimem_ray.modalities.batch import Batch
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.contrastive import ContrastiveModel

Views = Mapping[str, Tensor]


@dataclass(frozen=True)
class BatchGroup:
    """Samples that make batches of their own.

    Args:
        noise: Amount that is put on all of their embeddings, beside ``training.noise``.
        is_learned: Whether the model learns from them; else they are embedded for the policy only.
        fewest: Least samples of an epoch's last batch; None = half a batch, or all that the model
            has in the epoch.
    """

    noise: float = 0.0
    is_learned: bool = True
    fewest: int | None = None


ORDINARY = BatchGroup()
OBSERVED = BatchGroup(is_learned=False, fewest=1)


class SamplePolicy:
    """What a training asks while it trains one model; this one treats all samples alike.

    Attributes:
        groups: All groups that samples are assigned to, in the order of their last batches.
        observes: Whether every sample of this epoch must come by: it cannot be resumed midway.
        observes_first: Whether the samples must come by once before the first epoch, as epoch -1.
        by_shard: Whether it knows samples by shard and key, since keys repeat.
    """

    groups: Sequence[BatchGroup] = (ORDINARY,)
    observes = False
    observes_first = False
    by_shard = False

    def begin(self, epoch: int, model: ContrastiveModel) -> None:
        """Before an epoch."""

    def assign(
        self, key: str, views: Views, other_views: Callable[[], Views] | None
    ) -> tuple[BatchGroup, Views] | None:
        """Where a sample goes, and what of it; None: nowhere.

        Args:
            key: What it is known by: its key, or the name of its shard and its key.
            views: Its views, at least two.
            other_views: Makes the views of :attr:`Policies.decoder`; None if there is none.
        """
        return ORDINARY, views

    def observe(
        self,
        keys: Sequence[str],
        embeddings: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        model: ContrastiveModel,
    ) -> None:
        """See the embeddings of a batch that is learned from.

        Args:
            keys: What its samples are known by, B.
            embeddings: Modality → (N_m, d), before any noise.
            rows: Modality → (N_m,) positions in the batch.
            model: The running model.
        """

    def embed(self, keys: Sequence[str], batch: Batch, model: ContrastiveModel) -> None:
        """Embed and see a batch that is not learned from."""

    def end(self, epoch: int) -> dict[str, Any]:
        """After an epoch: what its line of the history says of the policy."""
        return {}

    def state(self) -> Tensor | None:
        """What a checkpoint holds of it: (K, 2) int64, or nothing."""
        return None

    def load(self, state: Tensor) -> None:
        """Go on with what a checkpoint held."""

    def files(self) -> dict[str, bytes]:
        """What is written beside the finished model: name → content."""
        return {}


@dataclass(frozen=True)
class Policies:
    """The policies of a run's models.

    Args:
        of: Number of a model → its policy.
        decoder: Makes the other views that policies may assign; None if they never do.
    """

    of: Callable[[int], SamplePolicy] = lambda _: SamplePolicy()
    decoder: Decoder | None = None
