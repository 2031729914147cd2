"""The held-out set H as a score sees it: one mean vector per modality and model.

    m_k = E_{h ∈ H, v} [ φ_k(h, v) ],   over the samples h of H that have modality k

(why a mean is enough: :mod:`multimem_ray.metric.agreement`). Sums and counts are kept apart, in
float64, so that accumulators filled by different workers can be merged in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from multimem_ray.errors import HeldOutError
from multimem_ray.metric._checks import check_embeddings, exact, masked


class MeanAccumulator:
    """Accumulates the held-out mean vectors of one model.

    Args:
        names: The modalities, in the order of the embeddings' third axis.
        dim: Dimensions d of the embedding.

    Attributes:
        names: As given.
        sums: (n, d) float64 on the CPU, sum over samples of the mean over their views.
        counts: (n,) int64, held-out samples that have each modality.
    """

    def __init__(self, names: Sequence[str], dim: int) -> None:
        self.names = tuple(names)
        self.sums = torch.zeros(len(self.names), dim, dtype=torch.float64)
        self.counts = torch.zeros(len(self.names), dtype=torch.int64)

    @classmethod
    def from_state(cls, names: Sequence[str], state: Mapping[str, Tensor]) -> Self:
        """Rebuild an accumulator from what :meth:`state` returned.

        Raises:
            HeldOutError: The stored tensors do not belong to these modalities.
        """
        sums, counts = state["sums"], state["counts"]
        if sums.ndim != 2 or sums.shape[0] != len(names) or counts.shape != (len(names),):
            raise HeldOutError(
                f"stored held-out sums {tuple(sums.shape)} and counts {tuple(counts.shape)} do not "
                f"fit the modalities {', '.join(names)}: compute the held-out means again"
            )
        rebuilt = cls(names, sums.shape[1])
        rebuilt.sums += sums.to("cpu", torch.float64)
        rebuilt.counts += counts.to("cpu", torch.int64)
        return rebuilt

    def state(self) -> dict[str, Tensor]:
        """Copies of ``sums`` and ``counts``, to be stored or sent."""
        return {"sums": self.sums.clone(), "counts": self.counts.clone()}

    def add(self, embeddings: Tensor, present: Tensor) -> None:
        """Add samples of H: embeddings (V, B, n, d), L2-normalised, and present (B, n) bool.

        Every sample weighs the same, whatever its number of views.

        Raises:
            ValueError: A shape or dtype does not fit.
        """
        check_embeddings(embeddings, present)
        self._check_shape(embeddings)
        self.sums += _sample_means(embeddings, present).sum(dim=0).to("cpu", torch.float64)
        self.counts += present.sum(dim=0).cpu()

    def merge(self, other: MeanAccumulator) -> None:
        """Add what another accumulator of the same model has seen.

        Raises:
            ValueError: The other has other modalities or dimensions.
        """
        if other.names != self.names or other.sums.shape != self.sums.shape:
            raise ValueError(
                f"cannot merge held-out means of {other.names} {tuple(other.sums.shape)} "
                f"into those of {self.names} {tuple(self.sums.shape)}"
            )
        self.sums += other.sums
        self.counts += other.counts

    def means(self) -> Tensor:
        """The mean vectors m_k, (n, d) float64 on the CPU.

        Raises:
            HeldOutError: No held-out sample has some modality, or an embedding was not finite.
        """
        self._require(minimum=1, modalities=torch.ones_like(self.counts, dtype=torch.bool))
        return self.sums / self.counts[:, None]

    def leave_one_out(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """The means of H without each of these samples, which were added before.

        A sample of H that is itself scored must not be compared with itself:
        ``m_k without h = (N_k m_k - E_v[φ_k(h, v)]) / (N_k - 1)``.

        Args:
            embeddings: (V, B, n, d), as they were added.
            present: (B, n) bool.

        Returns:
            (B, n, d) float64 on the CPU, for :func:`agreement`; zero where absent.

        Raises:
            HeldOutError: One of the samples is the only one that has some modality, or an
                embedding was not finite.
            ValueError: A shape or dtype does not fit.
        """
        check_embeddings(embeddings, present)
        self._check_shape(embeddings)
        self._require(minimum=2, modalities=present.any(dim=0).cpu())
        others = self.sums - _sample_means(embeddings, present).to("cpu", torch.float64)
        return masked(others / (self.counts[:, None] - 1), present[:, :, None].cpu())

    def _check_shape(self, embeddings: Tensor) -> None:
        if embeddings.shape[2:] != self.sums.shape:
            raise ValueError(
                f"embeddings have (modalities, dimensions) {tuple(embeddings.shape[2:])}; "
                f"this accumulator was made for {tuple(self.sums.shape)}"
            )

    def _require(self, minimum: int, modalities: Tensor) -> None:
        few = (modalities & (self.counts < minimum)).nonzero().flatten().tolist()
        if few:
            found = ", ".join(f"{self.names[k]}: {int(self.counts[k])}" for k in few)
            raise HeldOutError(
                f"the held-out set needs at least {minimum} sample(s) with each modality, and has "
                f"{found}; raise held_out.fraction or held_out.max_samples, or name other "
                "held_out.shards"
            )
        broken = (~self.sums.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if broken:
            raise HeldOutError(
                "held-out embeddings are not finite for "
                f"{', '.join(self.names[k] for k in broken)}: the model has diverged; train it "
                "again with a lower training.lr"
            )


def _sample_means(embeddings: Tensor, present: Tensor) -> Tensor:
    """Mean over views, (B, n, d); zero where absent."""
    return masked(exact(embeddings).mean(dim=0), present[:, :, None])
