"""Which samples are held out, and which of them enter the mean vectors.

The held-out set H is never trained on. It is a hashed fraction of the samples (of their groups), or
everything in the shards that the user lists. However large it is, a few thousand samples fix its
mean vectors, so :class:`BalancedCap` keeps a bounded number of them, spread evenly over the labels
if there are any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import HeldOutConfig
from multimem_ray.design.hashing import uniform
from multimem_ray.errors import HeldOutError


class HeldOutRule:
    """Tells of any sample whether it is held out, without a list of samples.

    Args:
        config: The section ``held_out`` of the configuration.
        seed: Of the hash; independent of membership even where the seeds are equal.
        shards: The shards that ``held_out.shards`` resolved to, named as samples name theirs.

    Raises:
        HeldOutError: The rule would hold out nothing, or everything.
    """

    def __init__(self, config: HeldOutConfig, seed: int, shards: Collection[str] = ()) -> None:
        if config.shards is not None and not shards:
            raise HeldOutError(
                f"held_out.shards = {config.shards!r} matches no shard: correct it, or remove it "
                "to hold out held_out.fraction of the samples"
            )
        if config.shards is None and not 0 < config.fraction < 1:
            raise HeldOutError(
                f"held_out.fraction = {config.fraction} leaves nothing to hold out or nothing to "
                "train on: use a value between 0 and 1, or name held_out.shards"
            )
        self.config = config
        self.seed = seed
        self.shards = frozenset(shards) if config.shards is not None else frozenset[str]()

    def is_held_out(self, groups: Sequence[str], shard: str) -> NDArray[np.bool_]:
        """(N,) bool: which samples of one shard are held out.

        Args:
            groups: Each sample's group, or its key where samples are not grouped.
            shard: The shard they stand in. Where shards are held out, it alone decides; put
                what belongs to one group on one side yourself.
        """
        if self.config.shards is not None:
            return np.full(len(groups), shard in self.shards)
        return uniform(self.seed, "held_out", groups) < self.config.fraction

    def rank(self, keys: Sequence[str]) -> NDArray[np.float64]:
        """(N,) the place of each sample in the hash order that the cap follows, in [0, 1).

        Independent of :meth:`is_held_out`, and drawn from the key also where samples are grouped,
        so that the cap takes from many groups.
        """
        return uniform(self.seed, "held_out_rank", keys)

    def cap(self) -> BalancedCap:
        """An empty cap of ``held_out.max_samples``."""
        return BalancedCap(self.config.max_samples)

    def describe(self) -> dict[str, Any]:
        """The rule in words and numbers, for JSON."""
        by_shards = self.config.shards is not None
        return {
            "kind": "shards" if by_shards else "fraction",
            "fraction": None if by_shards else self.config.fraction,
            "shards": sorted(self.shards) if by_shards else None,
            "max_samples": self.config.max_samples,
            "balance": self.config.balance,
            "seed": self.seed,
        }


class BalancedCap:
    """Keeps at most ``max_samples`` of the samples it is shown, evenly over their labels.

    Labels take turns, each giving its sample of smallest rank, until ``max_samples`` are chosen or
    all are. So no label has two more than another that still had some to give; without labels the
    smallest ranks are chosen. The choice depends on neither order nor batches, and caps filled by
    different workers can be merged. At most ``2 * max_samples`` names are held between calls.

    Args:
        max_samples: At least 1.
    """

    def __init__(self, max_samples: int) -> None:
        if max_samples < 1:
            raise HeldOutError(f"held_out.max_samples = {max_samples}: use at least 2")
        self.max_samples = max_samples
        self._shown: dict[str, tuple[float, str | None]] = {}

    def __len__(self) -> int:
        """Number of samples chosen."""
        return min(len(self._shown), self.max_samples)

    def add(
        self,
        names: Sequence[str],
        ranks: Sequence[float] | NDArray[np.float64],
        labels: Sequence[str | None] | None = None,
    ) -> None:
        """Show samples to the cap.

        Args:
            names: What identifies each sample; a name shown twice counts once.
            ranks: (N,), see :meth:`HeldOutRule.rank`.
            labels: (N,); samples whose label is None count as one label of their own. None
                altogether: not balanced.

        Raises:
            ValueError: The lengths differ.
        """
        given = labels if labels is not None else [None] * len(names)
        for name, rank, label in zip(names, ranks, given, strict=True):
            self._shown.setdefault(name, (float(rank), label))
        self._prune()

    def merge(self, other: BalancedCap) -> None:
        """Add what another cap of the same size was shown.

        Raises:
            ValueError: The other has another size, so what it dropped might be missing here.
        """
        if other.max_samples != self.max_samples:
            raise ValueError(f"caps of {self.max_samples} and {other.max_samples} cannot be merged")
        for name, item in other._shown.items():
            self._shown.setdefault(name, item)
        self._prune()

    def chosen(self) -> list[str]:
        """Names of the chosen samples, in the order in which they were chosen."""
        turns: dict[str | None, int] = {}
        order: list[tuple[int, float, str]] = []
        for rank, name, label in sorted(
            ((rank, name, label) for name, (rank, label) in self._shown.items()),
            key=lambda item: item[:2],
        ):
            turn = turns.get(label, 0)
            turns[label] = turn + 1
            order.append((turn, rank, name))
        return [name for _, _, name in sorted(order)[: self.max_samples]]

    def _prune(self) -> None:
        """Forget samples that no later one can bring back.

        A sample is dropped when ``max_samples`` come before it in (turn, rank). Showing more
        samples only adds to those before it and only delays its own turn; and what its label gives
        after it was dropped with it, so nobody's turn moves.
        """
        if len(self._shown) > 2 * self.max_samples:
            self._shown = {name: self._shown[name] for name in self.chosen()}
