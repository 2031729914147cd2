"""Models that were trained elsewhere: the user says who trained on what.

    all, none   everything, nothing
    recorded    the rule in the ``membership.json`` of a reference model of ours
    FILE        a list of keys, as Parquet (column ``key``) or text (one on each line)

A list is kept as sorted 64-bit hashes: eight bytes a key, and a wrong answer for one key in 10^10
at a thousand million of them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import DesignConfig, GivenModel, HeldOutConfig
from multimem_ray.design.held_out import HeldOutRule
from multimem_ray.design.membership import BoolMatrix, Design, make_rule
from multimem_ray.errors import DesignError, StorageError
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

    def sides(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.sides`.

        Raises:
            DesignError: A list of keys or a recorded rule cannot be read.
        """
        return np.stack([members(groups) for members in self._members], axis=1)

    def shares(self) -> list[float]:
        """See :meth:`Design.shares`; nothing is trained here."""
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

    def foreign(self, groups: Sequence[str]) -> BoolMatrix:
        """See :meth:`Design.foreign`."""
        return self.sides(groups)

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
    known = np.unique(_hashes(_listed(given.members, storage)))
    return lambda groups: _isin(_hashes(groups), known)


def _recorded(checkpoint: str, storage: Storage) -> Members:
    folder = checkpoint.removeprefix("local:").removesuffix("model.safetensors").rstrip("/")
    url = storage.join(folder, "membership.json")
    try:
        content = json.loads(storage.read_bytes(url))
        described = {k: content["design"].get(k) for k in DesignConfig.model_fields}
        rule = make_rule(
            DesignConfig.model_validate({k: v for k, v in described.items() if v is not None})
        )
        number, config = int(content["number"]), HeldOutConfig.model_validate(content["held_out"])
    except (StorageError, ValueError, KeyError, TypeError) as error:
        raise DesignError(
            f"{checkpoint} does not say what it trained on ({error}); set members: all, none, or a "
            "file of keys"
        ) from error
    if content["design"].get("pool_shards") is not None:
        raise DesignError(
            f"{checkpoint} was trained on some of its shards only, which no rule of keys tells; "
            "set members to a file of keys"
        )
    if config.shards is not None:
        return lambda groups: rule.members(groups)[:, number]
    held_out = HeldOutRule(config, rule.config.seed)
    return lambda groups: rule.members(groups)[:, number] & ~held_out.is_held_out(groups, "")


def _listed(url: str, storage: Storage) -> Iterator[str]:
    try:
        data = storage.read_bytes(url)
        if url.endswith(".parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return iter(pq.read_table(io.BytesIO(data), columns=["key"])["key"].to_pylist())
            except (pa.ArrowException, KeyError) as error:
                raise DesignError(f"{url}: no Parquet with a column 'key': {error}") from error
        lines = data.decode("utf-8").splitlines()
    except (StorageError, UnicodeDecodeError) as error:
        raise DesignError(
            f"members '{url}' is none of all, none, recorded, and no file that can be read: {error}"
        ) from error
    return (line.strip() for line in lines if line.strip())


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
        return chosen & ~self._design.foreign(groups).any(axis=1)


def _hashes(keys: Iterator[str] | Sequence[str]) -> NDArray[np.uint64]:
    def digests() -> Iterator[int]:
        for key in keys:
            yield int.from_bytes(
                hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "little"
            )

    return np.fromiter(digests(), dtype=np.uint64)


def _isin(values: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each value is in a sorted array."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == values
    return found
