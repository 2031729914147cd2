"""Models that were trained elsewhere: the user says who trained on what.

all, none   everything, nothing
recorded    the rule in the ``membership.json`` of a reference model of ours
FILE        a list of keys, as Parquet (column ``key``) or text (one on each line)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import DesignConfig, GivenModel, HeldOutConfig
from multimem_ray.design.held_out import HeldOutRule
from multimem_ray.design.key_list import read_key_file
from multimem_ray.design.membership import BoolMatrix, Design, make_rule
from multimem_ray.errors import DesignError, StorageError
from multimem_ray.own_files import read_own
from multimem_ray.storage import Storage

Members = Callable[[Sequence[str]], NDArray[np.bool_]]
"""Groups to (N,) bool."""


class Given(Design):
    """Given models, compared by what each of them saw.

    Args:
        config: The section ``design``.
        storage: Where checkpoints and lists of keys lie.
    """

    kind: ClassVar[str] = "given"
    rule: ClassVar[str] = "as the user says of each model"

    def __init__(self, config: DesignConfig, storage: Storage | None = None) -> None:
        super().__init__(config)
        self._storage = storage or Storage()

    def checkpoints(self) -> dict[str, str]:
        """See :meth:`Design.checkpoints`."""
        ids = self.model_ids()
        return {i: given.checkpoint for i, given in zip(ids, self.config.given, strict=True)}

    def assignments(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.assignments`.

        Raises:
            DesignError: A list of keys or a recorded rule cannot be read.
        """
        return np.stack([members(groups) for members in self._members], axis=1)

    def train_fractions(self) -> list[float]:
        """See :meth:`Design.train_fractions`; nothing is trained here."""
        return [0.0] * self.config.models

    def describe(self) -> dict[str, Any]:
        """See :meth:`Design.describe`; with each checkpoint and its members."""
        given = [model.model_dump(mode="json") for model in self.config.given]
        return {
            "kind": self.kind,
            "rule": self.rule,
            "models": self.config.models,
            "seed": self.config.seed,
            "group": self.config.group,
            "given": dict(zip(self.model_ids(), given, strict=True)),
        }

    def _check(self) -> None:
        if len(self.config.given) < 2:
            raise DesignError("design.given: name at least two models")

    def seen_elsewhere(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.seen_elsewhere`."""
        return self.assignments(groups)

    @cached_property
    def _members(self) -> list[Members]:
        return [members_of(model, self._storage) for model in self.config.given]


def members_of(given: GivenModel, storage: Storage) -> Members:
    """Tells of groups whether a given model trained on them.

    Raises:
        DesignError: A list of keys or a recorded rule cannot be read.
    """
    if given.members in {"all", "none"}:
        answer = given.members == "all"
        return lambda groups: np.full(len(groups), answer)
    if given.members == "recorded":
        return _recorded(given.checkpoint, storage)
    wrong = f"members '{given.members}' is none of all, none, recorded"
    return read_key_file(given.members, storage, wrong).contains


def recorded_membership(checkpoint: str, storage: Storage) -> dict[str, Any]:
    """The ``membership.json`` of a reference model.

    Raises:
        DesignError: It has none.
    """
    folder = checkpoint.removeprefix("local:").removesuffix("model.safetensors").rstrip("/")
    try:
        url = storage.join(folder, "membership.json")
        content = read_own(storage, url, "take it from the audit again", design=dict)
    except StorageError as error:
        raise _unrecorded(checkpoint, error) from error
    return content


def _unrecorded(checkpoint: str, error: Exception) -> DesignError:
    return DesignError(
        f"{checkpoint} does not say what it trained on ({error}); set members: all, none, or a "
        "file of keys"
    )


def _recorded(checkpoint: str, storage: Storage) -> Members:
    content = recorded_membership(checkpoint, storage)
    try:
        described = {k: content["design"].get(k) for k in DesignConfig.model_fields}
        rule = make_rule(
            DesignConfig.model_validate({k: v for k, v in described.items() if v is not None})
        )
        number, config = int(content["number"]), HeldOutConfig.model_validate(content["held_out"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unrecorded(checkpoint, error) from error
    if content["design"].get("pool_shards") is not None:
        raise DesignError(
            f"{checkpoint} was trained on some of its shards only, which no rule of keys tells; "
            "set members to a file of keys"
        )
    if config.shards is not None:
        return lambda groups: rule.members(groups)[:, number]
    held_out = HeldOutRule(config, rule.config.seed)
    return lambda groups: rule.members(groups)[:, number] & ~held_out.is_held_out(groups, "")


class UnseenHeldOut(HeldOutRule):
    """A hashed fraction of what no given model trained on; or the shards that were listed."""

    def __init__(self, config: HeldOutConfig, design: Design, shards: Sequence[str]) -> None:
        super().__init__(config, design.config.seed, shards)
        self._design = design

    def is_held_out(self, groups: Sequence[str], shard: str) -> NDArray[np.bool_]:
        """See :meth:`HeldOutRule.is_held_out`."""
        chosen = super().is_held_out(groups, shard)
        if self.config.shards is not None or not chosen.any():
            return chosen
        return chosen & ~self._design.seen_elsewhere(groups).any(axis=1)
