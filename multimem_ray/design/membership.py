"""Membership: which reference model trains on which sample.

A design is a rule. Given the samples' groups (the keys, or whatever belongs together: copies of a
picture, clips of one recording), it says which of the M models train on them. Samples of one group
are always treated alike, because a near-duplicate that stays in hides the memorization of the one
left out (arXiv 2506.20481).

    complementary_halves  pair k of models splits the data by one fair bit: model 2k trains on the
                          ones, model 2k + 1 on the zeros. Every sample is seen by exactly half of
                          the models (the subsets of Feldman & Zhang 2020 with p = ½, in pairs).
    three_folds           block k of three models splits the data into three folds by a hash; model
                          3k + j trains on all but fold j. Every sample is seen by two of three.
    leave_subset_out      model 0 trains on everything, each of the others on all but one of M - 1
                          folds. Every sample is left out by exactly one model.
    candidate             the papers' design (arXiv 2606.22220, 2502.07830): f trains on S_S and
                          S_C, g on S_S and S_I, which are of the same size.

Where the data is too much to train on M times, a pool bounds it: only a hashed fraction of the
groups may be trained on. A sample outside the pool is seen by no model: it has an out-of-sample
consistency, and no MultiMem.

The rules know nothing of the held-out set: what is held out is decided before, by
:class:`multimem_ray.design.HeldOutRule`, and trains no model whatever its membership here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import DesignConfig
from multimem_ray.design.hashing import bits, uniform
from multimem_ray.errors import DesignError

BoolMatrix = NDArray[np.bool_]


class Design(ABC):
    """A membership design for M models; cheap to make and to send to a worker.

    Args:
        config: The section ``design`` of the configuration.

    Raises:
        DesignError: The design cannot work with these settings.
    """

    kind: ClassVar[str]
    rule: ClassVar[str]
    block: ClassVar[int] = 1
    """Models in a row that are compared with one another; a block more changes no earlier one."""

    def __init__(self, config: DesignConfig) -> None:
        self.config = config
        self._check()

    def model_ids(self) -> list[str]:
        """Names of the models, "000", "001", …; more models append names and change none."""
        return [f"{model:03d}" for model in range(self.config.models)]

    def block_of(self, number: int) -> int:
        """Number of the block that a model belongs to."""
        return number // self.block

    def in_pool(self, groups: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) bool: which groups may be trained on; independent of every other hash."""
        if self.config.pool == 1.0:
            return np.ones(len(groups), bool)
        return uniform(self.config.seed, "pool", groups) < self.config.pool

    def members(self, groups: Sequence[str]) -> BoolMatrix:
        """(N, M) bool: which models train on the samples of these groups; none outside the pool."""
        return self.assignments(groups) & self.in_pool(groups)[:, None]

    @abstractmethod
    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """(N, M) bool: which models train on these groups if they are in the pool."""

    def checkpoints(self) -> dict[str, str]:
        """Models that are not trained here, each with where its weights are."""
        return {}

    def seen_elsewhere(self, groups: Sequence[str]) -> BoolMatrix:
        """(N, K) bool: which models that are not trained here saw these groups.

        What is held out is chosen among samples that none of them saw.
        """
        return np.zeros((len(groups), 0), bool)

    def outside_pool(self, groups: Sequence[str]) -> BoolMatrix:
        """(N, M) bool: members among samples of a shard that no model may train on here."""
        return np.zeros((len(groups), len(self.model_ids())), bool)

    def contrast(self, groups: Sequence[str]) -> tuple[BoolMatrix, BoolMatrix]:
        """The two sides (f, g) whose difference is the score, each (N, M) bool."""
        return self.contrast_of(groups, self.members(groups))

    def contrast_of(
        self, groups: Sequence[str], members: BoolMatrix
    ) -> tuple[BoolMatrix, BoolMatrix]:
        """The two sides (f, g), each (N, M) bool, where it is known who saw what.

        f: the models that trained on the sample, g: those that did not, unless the design says
        otherwise. A sample that no model trained on has nothing to be compared.
        """
        del groups
        return members, ~members & members.any(axis=1, keepdims=True)

    def splits(self, groups: Sequence[str]) -> list[str | None] | None:
        """The papers' split of each sample: "S_S", "S_C" or "S_I"; None without such splits.

        A sample outside the pool is in none of them.
        """
        del groups
        return None

    @abstractmethod
    def train_fractions(self) -> list[float]:
        """Per model, the share of the trainable samples it is expected to train on."""

    def describe(self) -> dict[str, Any]:
        """The design in words and numbers, for JSON."""
        return {
            "kind": self.kind,
            "rule": self.rule,
            "models": self.config.models,
            "seed": self.config.seed,
            "group": self.config.group,
            "pool": self.config.pool,
            "pool_shards": self.config.pool_shards,
            "share": dict(zip(self.model_ids(), self.train_fractions(), strict=True)),
        }

    @abstractmethod
    def _check(self) -> None:
        """Raise DesignError if the settings cannot work."""

    def _require_pairs(self) -> None:
        models = self.config.models
        if models < 2 or models % 2:
            raise DesignError(
                f"design.models = {models}: {self.kind} trains models in pairs; "
                f"use {max(models - 1, 2)} or {models + 1 + (models < 2)}"
            )


class ComplementaryHalves(Design):
    """Pairs of models that train on complementary halves. Adding models changes no earlier one."""

    kind: ClassVar[str] = "complementary_halves"
    block: ClassVar[int] = 2
    rule: ClassVar[str] = (
        "model 2k trains where bit k of the hash of the group is 1, model 2k+1 where it is 0"
    )

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`; every row has exactly M / 2 models."""
        purpose = f"halves {self.config.draw}" if self.config.draw else "halves"
        halves = bits(self.config.seed, purpose, groups, self.config.models // 2)
        return np.stack([halves, ~halves], axis=2).reshape(len(groups), self.config.models)

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`."""
        return [0.5] * self.config.models

    def describe(self) -> dict[str, Any]:
        """See :meth:`Design.describe`; with the draw where it is not the first."""
        return super().describe() | ({"draw": self.config.draw} if self.config.draw else {})

    def _check(self) -> None:
        self._require_pairs()


class ThreeFolds(Design):
    """Blocks of three models that each leave out one fold of three.

    A model trains on two thirds of the data, which is nearer to leaving out one sample than a half
    is, at 4/3 of the cost. Adding models changes no earlier one.
    """

    kind: ClassVar[str] = "three_folds"
    block: ClassVar[int] = 3
    rule: ClassVar[str] = "model 3k+j trains on all but fold j of hash k of the group"

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`; every row misses exactly M / 3 models, one a block."""
        seed, blocks = self.config.seed, self.config.models // 3
        drawn = [uniform(seed, f"three folds {block}", groups) for block in range(blocks)]
        fold = np.floor(np.stack(drawn, axis=1) * 3).astype(np.int64)
        members = np.not_equal(fold[:, :, None], np.arange(3))
        return members.reshape(len(groups), self.config.models)

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`."""
        return [2 / 3] * self.config.models

    def _check(self) -> None:
        models = self.config.models
        if models % 3:
            raise DesignError(
                f"design.models = {models}: three_folds trains models in threes; use "
                f"{max(3, models // 3 * 3)} or {models // 3 * 3 + 3}"
            )


class LeaveSubsetOut(Design):
    """One model on everything, the others each without one fold.

    Another number of models makes other folds; membership of the models 1 … M - 1 then changes.
    """

    kind: ClassVar[str] = "leave_subset_out"
    rule: ClassVar[str] = (
        "model 0 trains on everything; model m trains on all but fold m-1 of the hash of the group"
    )

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`; every row misses exactly one model, never model 0."""
        folds = self.config.models - 1
        fold = np.floor(uniform(self.config.seed, "folds", groups) * folds).astype(np.int64)
        left_out = np.arange(-1, folds)  # -1: model 0 leaves out no fold
        return np.not_equal(fold[:, None], left_out[None, :])

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`."""
        folds = self.config.models - 1
        return [1.0] + [(folds - 1) / folds] * folds

    def _check(self) -> None:
        if self.config.models < 3:
            raise DesignError(
                f"design.models = {self.config.models}: leave_subset_out needs one model on "
                "everything and at least two folds; use 3 or more"
            )


class Candidate(Design):
    """S_S, S_C and S_I as the papers have them, repeated with M / 2 training seeds.

    Models 2r (f) train on S_S and S_C, models 2r + 1 (g) on S_S and S_I; repeats differ by the
    seed of their training only. S_C and S_I are of one size unless asked otherwise: else one side
    has trained on more, and is better at everything.
    """

    kind: ClassVar[str] = "candidate"
    block: ClassVar[int] = 2
    rule: ClassVar[str] = "models 2r train on S_S and S_C, models 2r+1 on S_S and S_I"

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`."""
        draw = self._draw(groups)
        first, second = self._cuts()
        candidate, independent = draw < first, (draw >= first) & (draw < second)
        pair = np.stack([~independent, ~candidate], axis=1)
        return np.tile(pair, (1, self.config.models // 2))

    def contrast_of(
        self, groups: Sequence[str], members: BoolMatrix
    ) -> tuple[BoolMatrix, BoolMatrix]:
        """All models f against all models g, for every sample, whatever saw it.

        So S_C scores above 0, S_I is its mirror image below, and S_S, which both saw, is the
        noise floor around 0, as in the papers.
        """
        f = np.broadcast_to(np.arange(self.config.models) % 2 == 0, members.shape)
        inside = members.any(axis=1, keepdims=True)
        return f & inside, ~f & inside

    def splits(self, groups: Sequence[str]) -> list[str | None]:
        """See :meth:`Design.splits`."""
        names = np.array(["S_C", "S_I", "S_S"])
        place = np.digitize(self._draw(groups), self._cuts())
        pairs = zip(names[place], self.in_pool(groups), strict=True)
        return [str(name) if inside else None for name, inside in pairs]

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`."""
        candidate, independent = self.config.candidate_shares
        return [1.0 - independent, 1.0 - candidate] * (self.config.models // 2)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Design.describe`; with the shares of S_C and S_I."""
        candidate, independent = self.config.candidate_shares
        return super().describe() | {
            "candidate_fraction": candidate,
            "independent_fraction": independent,
        }

    def _cuts(self) -> tuple[float, float]:
        candidate, independent = self.config.candidate_shares
        return candidate, candidate + independent

    def _draw(self, groups: Sequence[str]) -> NDArray[np.float64]:
        return uniform(self.config.seed, "candidate", groups)

    def _check(self) -> None:
        self._require_pairs()
        candidate, independent = self.config.candidate_shares
        if not (candidate > 0 and candidate + independent <= 1):
            raise DesignError(
                f"design.candidate_fraction = {candidate}: S_C takes this share, and S_I, which is "
                f"disjoint, {independent}; use more than 0, and at most 1 together"
            )


_KINDS: dict[str, type[Design]] = {
    design.kind: design for design in (ComplementaryHalves, ThreeFolds, LeaveSubsetOut, Candidate)
}
BLOCKS = {kind: design.block for kind, design in _KINDS.items() if design.block > 1}
"""Models of a block in each kind of design that has such: they stand on opposite sides of every
sample that is compared, and one block says of a sample what any other does."""
PAIRED = frozenset(kind for kind, design in _KINDS.items() if design.block == 2)
"""Kinds in which models 2p and 2p + 1 stand on opposite sides of every sample that is compared."""


def make_rule(config: DesignConfig) -> Design:
    """The design that is a rule.

    Raises:
        DesignError: The design cannot work with these settings.
    """
    return _KINDS[config.kind](config)
