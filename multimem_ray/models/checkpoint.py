"""Reference models on storage: what a folder ``models/<id>/`` holds, and nothing executable.

    model.safetensors        weights of the finished model
    config.json              what it was built from
    membership.json          which rule said what it trained on
    history.jsonl            one line per epoch
    checkpoint.safetensors   weights, optimizer state and place, while training goes on
    DONE                     fingerprint of the training; written last

Everything is safetensors or JSON: reading a checkpoint never unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from multimem_ray.errors import ModelError, StorageError
from multimem_ray.fence import Fence
from multimem_ray.own_files import parsed
from multimem_ray.storage import Storage

if TYPE_CHECKING:
    # Who only asks whether a model is there should not wait seconds for torch.
    import torch
    from torch import Tensor, nn

    from multimem_ray.models.snapshot import Snapshot

_WEIGHT, _OPTIMIZER, _CHOSEN = "weight.", "optimizer.", "mitigation.chosen"
# Data parallelism; Lightning's and other trainers' attribute.
_WRAPPERS = ("module.", "model.")
_MIDWAY, _MIDWAY_WORDS = "midway.", ("passed", "seen", "last")
_MIDWAY_TENSORS = ("waiting", "losses", "skipped")


@dataclass(frozen=True)
class Progress:
    """Where the training of a model stands.

    Args:
        epoch: Epochs done.
        step: Optimizer steps taken.
        loss_scale: fp16: factor of the loss, and steps since it last changed.
        chosen: Mitigation: the samples that are treated, (K, 2) int64.
        midway: Within an epoch: what of it is done.
    """

    epoch: int
    step: int
    loss_scale: tuple[float, int] | None = None
    chosen: Tensor | None = field(default=None, compare=False)
    midway: Midway | None = None


@dataclass(frozen=True)
class Midway:
    """How far an epoch has come.

    Args:
        passed: Samples of the epoch's stream that are behind.
        seen: Samples in the epoch's batches.
        last: Key of the last sample behind.
        waiting: (K,) int64 places of those behind that wait for a batch, ascending.
        losses: (S,) loss of each step of the epoch.
        skipped: (S,) bool, whether each was skipped, in fp16.
    """

    passed: int
    seen: int
    last: str
    waiting: Tensor = field(compare=False)
    losses: Tensor = field(compare=False)
    skipped: Tensor = field(compare=False)


@dataclass(frozen=True)
class ModelFolder:
    """The files of one reference model.

    Args:
        storage: Where they lie.
        url: The folder ``<output>/models/<id>``.
        fingerprint: Of the training; files of another one are refused or ignored.
        fence: Says whether this is still the one that writes; None: nobody else may.
    """

    storage: Storage
    url: str
    fingerprint: str
    fence: Fence | None = None

    def path(self, name: str) -> str:
        return self.storage.join(self.url, name)

    def is_done(self) -> bool:
        """Whether this training, and no other, has finished."""
        done = self.path("DONE")
        if not self.storage.exists(done):
            return False
        return self.storage.read_bytes(done).strip() == self.fingerprint.encode()

    def finish(self, model: nn.Module, config: dict[str, Any], membership: dict[str, Any]) -> None:
        """Write the finished model; the marker comes last, the checkpoint goes."""
        from safetensors.torch import save

        before = self.storage.version(self.path("model.safetensors"))
        self._require_fence()
        weights = save(_flat(model))
        if not self.storage.write_if(self.path("model.safetensors"), weights, before):
            self._require_fence()
            self.storage.write_atomic(self.path("model.safetensors"), weights)
        for name, content in (("config.json", config), ("membership.json", membership)):
            text = json.dumps(content, indent=1, sort_keys=True)
            self.storage.write_atomic(self.path(name), text.encode())
        self._require_fence()
        self.storage.write_atomic(self.path("DONE"), self.fingerprint.encode())
        self.storage.discard(self.path("checkpoint.safetensors"))

    def _require_fence(self) -> None:
        if self.fence is not None:
            self.fence.require()

    def load_into(self, model: nn.Module) -> None:
        """Load the finished weights.

        Raises:
            ModelError: Missing, damaged, or of another architecture.
        """
        url = self.path("model.safetensors")
        try:
            weights = read_weights(self.storage, url)
        except ModelError as error:
            raise ModelError(f"{error}; remove the folder and train again") from error
        load_weights(model, weights, url)

    def save_progress(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        """Write weights, optimizer state and place in one atomic file."""
        self.write_progress(self.snapshot(model, optimizer, progress))

    def snapshot(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        memory: Tensor | None = None,
    ) -> Snapshot:
        """A copy of weights, optimizer state and place; see :meth:`Snapshot.of`."""
        from multimem_ray.models.snapshot import Snapshot

        tensors = state_tensors(model, optimizer)
        if progress.chosen is not None:
            tensors[_CHOSEN] = progress.chosen
        metadata = {
            "epoch": str(progress.epoch),
            "step": str(progress.step),
            "fingerprint": self.fingerprint,
            "loss_scale": json.dumps(progress.loss_scale),
        }
        if progress.midway is not None:
            midway = vars(progress.midway)
            metadata |= {_MIDWAY + name: str(midway[name]) for name in _MIDWAY_WORDS}
            tensors |= {_MIDWAY + name: midway[name] for name in _MIDWAY_TENSORS}
        return Snapshot.of(tensors, metadata, memory)

    def write_progress(self, snapshot: Snapshot) -> None:
        """Write a snapshot as the checkpoint."""
        self._require_fence()
        snapshot.write(self.storage, self.path("checkpoint.safetensors"))

    def load_progress(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Continue from the last checkpoint of this very training; None if there is none.

        Raises:
            ModelError: The checkpoint is damaged.
        """
        from safetensors.torch import load

        url = self.path("checkpoint.safetensors")
        if not self.storage.exists(url):
            return None
        data = self.storage.read_bytes(url)
        try:
            return self._restored(_metadata(data), load(data), model, optimizer)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{url}: damaged ({said}); remove it to train afresh") from error

    def _restored(
        self,
        metadata: dict[str, str],
        tensors: dict[str, Tensor],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> Progress | None:
        if metadata.get("fingerprint") != self.fingerprint:
            return None
        weights = {k.removeprefix(_WEIGHT): v for k, v in tensors.items() if k.startswith(_WEIGHT)}
        load_weights(model, weights, self.path("checkpoint.safetensors"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_OPTIMIZER):
                index, field = name.removeprefix(_OPTIMIZER).split(".", 1)
                state.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        _match_strides(optimizer)
        scale = json.loads(metadata.get("loss_scale", "null"))
        return Progress(
            int(metadata["epoch"]),
            int(metadata["step"]),
            None if scale is None else tuple(scale),
            tensors.get(_CHOSEN),
            _midway(metadata, tensors),
        )

    def steps(self) -> int:
        """Optimizer steps that are kept: those of the last checkpoint, or of the history."""
        url, lines = self.path("checkpoint.safetensors"), self.history(step=int)
        told = lines[-1]["step"] if lines else 0
        if not self.storage.exists(url):
            return int(told)
        try:
            return max(int(told), int(_metadata(self.storage.read_bytes(url)).get("step", 0)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{url}: damaged ({error}); remove it to train afresh") from error

    def append_history(self, lines: list[dict[str, Any]]) -> None:
        """Add epochs to ``history.jsonl``; an epoch that is there already is replaced."""
        url = self.path("history.jsonl")
        merged = {line["epoch"]: line for line in [*self.history(), *lines]}
        text = "".join(json.dumps(merged[epoch]) + "\n" for epoch in sorted(merged))
        self._require_fence()
        self.storage.write_atomic(url, text.encode())

    def history(self, **fields: Any) -> list[dict[str, Any]]:
        """The epochs recorded so far.

        Args:
            fields: Keys that each line must have, and their types.

        Raises:
            StorageError: It is damaged.
        """
        url = self.path("history.jsonl")
        if not self.storage.exists(url):
            return []
        lost = "remove it: only the record of the epochs so far is lost"
        lines = self.storage.read_bytes(url).splitlines()
        return [parsed(line, url, lost, epoch=int, **fields) for line in lines]


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimizer state by their names in a checkpoint, where they are."""
    import torch

    tensors: dict[str, Tensor] = {_WEIGHT + k: v for k, v in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value)
    return tensors


def _midway(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Midway | None:
    if _MIDWAY + _MIDWAY_WORDS[0] not in metadata:
        return None
    passed, seen, last = (metadata[_MIDWAY + name] for name in _MIDWAY_WORDS)
    kept = (tensors[_MIDWAY + name] for name in _MIDWAY_TENSORS)
    return Midway(int(passed), int(seen), last, *kept)


def read_weights(storage: Storage, source: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a folder's ``model.safetensors``.

    Raises:
        ModelError: Missing or damaged, or of another format, which is not opened.
    """
    from safetensors.torch import load

    url = source if source.endswith(".safetensors") else storage.join(source, "model.safetensors")
    try:
        return unprefixed(load(storage.read_bytes(url)))
    except (StorageError, SafetensorError) as error:
        raise ModelError(f"{url}: cannot be loaded ({error})") from error


def unprefixed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what wrappers put before the names of all of them.

    ``torch.compile`` puts ``_orig_mod.`` before those of every module that it compiled by itself.
    """
    named = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    while named:
        first = next((w for w in _WRAPPERS if all(name.startswith(w) for name in named)), None)
        if first is None:
            break
        named = {name.removeprefix(first): value for name, value in named.items()}
    return named


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Strict loading with an error that says what does not fit.

    Raises:
        ModelError: Names the source and the first few keys.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:400]
        raise ModelError(
            f"{source}: the weights do not fit the configured model: {detail}"
        ) from error


def _match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Lay out optimizer state as its parameters: fused kernels walk both by memory order."""
    import torch

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)


def _flat(model: nn.Module) -> dict[str, Tensor]:
    """Weights on the CPU; those that a model uses under two names are written twice."""
    flat: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        flat[name] = tensor.clone() if place in known else tensor
        known.add(place)
    return flat


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata block of a safetensors file: 8 bytes of length, then JSON."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return dict(header.get("__metadata__", {}))
