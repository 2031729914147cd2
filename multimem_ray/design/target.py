"""A target: the user's own trained model as f, reference models as g.

The references need not be its equals: they may be smaller, and know other or less of the data. A
sample that the target trained on is compared with the references that did not see it; how the two
differ on samples that neither saw is measured on the held-out set and taken away
(:mod:`multimem_ray.metric.calibration`). With a pool, the references train on a small part of the
data and every sample outside it still gets a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from multimem_ray.config import DesignConfig, GivenModel
from multimem_ray.design.given import Given, members_of
from multimem_ray.design.membership import BoolMatrix, Design
from multimem_ray.errors import DesignError
from multimem_ray.storage import Storage

TARGET = "target"
"""Name of the target among the models; it comes last."""


class Targeted(Design):
    """Any design of references, and a target beside them.

    Args:
        config: The section ``design``, with a target.
        references: The design of the other models.
        storage: Where checkpoints and lists of keys lie.
    """

    def __init__(
        self, config: DesignConfig, references: Design, storage: Storage | None = None
    ) -> None:
        self.references = references
        self._storage = storage or Storage()
        super().__init__(config)
        self._saw = members_of(self.target, self._storage)

    @property
    def target(self) -> GivenModel:
        """The model that is audited."""
        if self.config.target is None:
            raise DesignError("design.target is not set")
        return self.config.target

    def model_ids(self) -> list[str]:
        """See :meth:`Design.model_ids`; the target is the last."""
        return [*self.references.model_ids(), TARGET]

    def checkpoints(self) -> dict[str, str]:
        """See :meth:`Design.checkpoints`."""
        return self.references.checkpoints() | {TARGET: self.target.checkpoint}

    def block_of(self, number: int) -> int:
        """See :meth:`Design.block_of`; the target stands alone."""
        return self.references.block_of(number)

    def seen_elsewhere(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.seen_elsewhere`."""
        return np.concatenate(
            [self.references.seen_elsewhere(groups), self._target(groups)], axis=1
        )

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`."""
        return np.concatenate([self.references.assignments(groups), self._target(groups)], axis=1)

    def members(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.members`; the pool bounds the references, not the target."""
        return np.concatenate([self.references.members(groups), self._target(groups)], axis=1)

    def outside_pool(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.outside_pool`; the target may have seen what the references may not."""
        return np.concatenate([self.references.outside_pool(groups), self._target(groups)], axis=1)

    def contrast_of(
        self, groups: Sequence[str], members: BoolMatrix
    ) -> tuple[BoolMatrix, BoolMatrix]:
        """The target where it trained on the sample, and the references that did not."""
        f, g = np.zeros_like(members), ~members
        f[:, -1], g[:, -1] = members[:, -1], False
        return f, g

    def splits(self, groups: Sequence[str]) -> list[str | None] | None:
        """See :meth:`Design.splits`."""
        return self.references.splits(groups)

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`; the target is not trained here."""
        return [*self.references.train_fractions(), 0.0]

    def describe(self) -> dict[str, Any]:
        """See :meth:`Design.describe`; with the target."""
        return self.references.describe() | {"target": self.target.model_dump(mode="json")}

    def _check(self) -> None:
        if isinstance(self.references, Given) and self.target in self.config.given:
            raise DesignError(
                "design.target is also listed in design.given: list only the references there"
            )

    def _target(self, groups: Sequence[str]) -> BoolMatrix:
        return np.asarray(self._saw(groups), dtype=bool)[:, None]
