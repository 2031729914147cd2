"""A rank's part of the samples; a module of its own, so that who only decodes loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RankShard:
    """One rank's share of the samples: those whose place in their shard leaves ``rank``."""

    rank: int = 0
    world: int = 1

    def has(self, index: int) -> bool:
        """Whether the sample at this place of its shard is decoded here."""
        return index % self.world == self.rank

    def named(self, name: str) -> str:
        """The name of what is kept of a shard on this rank."""
        return name if self.world == 1 else f"{name}-{self.rank}of{self.world}"
