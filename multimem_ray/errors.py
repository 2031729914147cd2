"""Everything multimem_ray raises on purpose.

    MultiMemError
    ├── ConfigError            a key, value or combination in the configuration
    ├── StorageError           a file or object that cannot be read or written
    ├── ShardError             a shard: names it, and the key where one is known
    │   ├── ShardNotFoundError nothing at that path, or no shard at all
    │   └── DamagedShardError  the archive cannot be read past some byte
    ├── SampleError            one sample: names shard and key, stage and reason
    │   └── DecodeError        one modality of one sample
    │       └── AbsentError    its member is there, and holds nothing of it
    ├── DesignError            a membership design that cannot work
    ├── HeldOutError           a held-out set that cannot serve
    ├── ModelError             a preset, tower, adapter or checkpoint
    ├── TrainingError          training cannot go on (divergence, no data)
    ├── ClusterError           a cluster that does not bring what the configuration asks for
    └── ResumeError            the output folder belongs to another configuration
        └── ReplacedError      another process has opened the run since, and goes on with it

Each message names the shard, key, model or config field, and the way out.
"""

from __future__ import annotations


class MultiMemError(Exception):
    """Base of all errors raised by multimem_ray."""


class ConfigError(MultiMemError):
    """A key, value or combination in the configuration is wrong."""


class StorageError(MultiMemError):
    """A file or object cannot be read or written."""


class ShardError(MultiMemError):
    """Something is wrong with a shard.

    Args:
        message: What is wrong and the way out.
        shard: Its path or URL.
    """

    def __init__(self, message: str, shard: str = "") -> None:
        super().__init__(f"{shard}: {message}" if shard else message)
        self.shard = shard
        self.reason = message

    def __reduce__(self) -> tuple[type[ShardError], tuple[str, str]]:
        return type(self), (self.reason, self.shard)


class ShardNotFoundError(ShardError):
    """There is no shard at this path."""


class DamagedShardError(ShardError):
    """The archive cannot be read past some byte; what lay before it was read."""


class SampleError(MultiMemError):
    """One sample cannot be used; it goes into ``errors/`` and the rest goes on.

    Args:
        reason: What is wrong, in words for a person.
        kind: A short stable name for grouping, such as ``undecodable`` or ``too_large``.
        stage: Where it happened: ``read``, ``select``, ``decode``, ``score``.
    """

    def __init__(self, reason: str, kind: str, stage: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.stage = stage

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, ...]]:
        return type(self), (self.reason, self.kind, self.stage)


class DecodeError(SampleError):
    """One modality of one sample cannot be decoded, or is beyond a limit."""

    def __init__(self, reason: str, kind: str = "undecodable", stage: str = "decode") -> None:
        super().__init__(reason, kind, stage)


class AbsentError(DecodeError):
    """The member is there and well, and holds nothing of the modality: a video without sound.

    The sample is used without it, as if there were no such member.
    """

    def __init__(self, reason: str, kind: str = "absent", stage: str = "decode") -> None:
        super().__init__(reason, kind, stage)


class DesignError(MultiMemError):
    """A membership design cannot work as configured."""


class HeldOutError(MultiMemError):
    """The held-out set cannot serve: empty, or without one of the modalities."""


class ModelError(MultiMemError):
    """A preset, tower, adapter or checkpoint cannot be used."""


class TrainingError(MultiMemError):
    """Training cannot go on; names the model and the step."""


class ClusterError(MultiMemError):
    """The cluster has no room for what the configuration asks for, and none came."""


class ResumeError(MultiMemError):
    """The output belongs to a run with another configuration; shows the difference."""


class ReplacedError(ResumeError):
    """Another process has opened the run since and goes on with it; this one must stop."""


class MultiMemWarning(UserWarning):
    """Something the user should know about, though the run goes on."""
