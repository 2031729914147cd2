"""Where the models of a bank lie: all on the device, or some at a time and the rest in host memory.

How many are on the device at once changes no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from multimem_ray.models.contrastive import ContrastiveModel, channels_last

# Share of the free memory of a GPU for weights; the rest is for what is computed with them.
_WEIGHT_SHARE = 0.5

Turn: TypeAlias = tuple[range, Sequence[ContrastiveModel]]
"""Numbers of models, and these models on the device."""


class ResidentModels:
    """All models on the device."""

    def __init__(self, models: Sequence[ContrastiveModel]) -> None:
        self._models = models

    def turns(self) -> Iterator[Turn]:
        """One turn of all models."""
        yield range(len(self._models)), self._models


class OffloadedModels:
    """Some models on the device at a time; the weights of the rest wait in (pinned) host memory.

    The models on the device are shells in two halves: while one half computes, weights are copied
    into the other.

    Args:
        shells: Models on the device, of any weights.
        weights: Of every model, in the order of a shell's tensors.
    """

    def __init__(
        self, shells: Sequence[ContrastiveModel], weights: Sequence[Sequence[Tensor]]
    ) -> None:
        half = max(1, len(shells) // 2)
        self._halves = [shells[:half], shells[half : 2 * half]] if len(shells) > 1 else [shells]
        self._weights = weights
        on_gpu = next(shells[0].parameters()).is_cuda
        # Copies need a stream of their own: on the stream that computes, they would wait for it.
        self._stream: Any = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        # Per half, the event after which nothing reads its weights any more. It outlives a batch:
        # the last turn's models stay until the next batch comes, which begins with others.
        self._free: list[Any] = [None for _ in self._halves]

    def turns(self) -> Iterator[Turn]:
        """The models in turns; those of a turn may be used until the next is asked for."""
        size, count = len(self._halves[0]), len(self._weights)
        spans = [range(at, min(at + size, count)) for at in range(0, count, size)]
        ready = self._copy(0, spans[0])
        for turn, span in enumerate(spans):
            half = turn % len(self._halves)
            if ready is not None:
                # The stream waits, not this thread: it goes on to queue the work behind the event.
                torch.cuda.current_stream().wait_event(ready)
            overlaps = len(self._halves) > 1 and turn + 1 < len(spans)
            if overlaps:
                # Queued before this turn computes, so that both go on at the same time.
                ready = self._copy((turn + 1) % len(self._halves), spans[turn + 1])
            yield span, self._halves[half][: len(span)]
            # Whoever took the turn has queued all that it computes: this event comes after it.
            self._free[half] = self._mark()
            if not overlaps and turn + 1 < len(spans):
                # With one shell there is nothing to overlap: its weights are still being read.
                ready = self._copy(half, spans[turn + 1])

    def _copy(self, half: int, span: range) -> Any:
        """Start copying weights into the shells of a half; returns the event of its end."""
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            if self._free[half] is not None:
                self._stream.wait_event(self._free[half])
            for shell, number in zip(self._halves[half], span, strict=False):
                for own, waiting in zip(_tensors(shell), self._weights[number], strict=True):
                    # From pinned memory this returns at once; from any other it would block.
                    own.copy_(waiting, non_blocking=True)
            return self._stream.record_event() if self._stream else None

    def _mark(self) -> Any:
        return torch.cuda.current_stream().record_event() if self._stream else None


def placed(
    models: Iterable[ContrastiveModel],
    count: int,
    at_once: int | Literal["auto"],
    shell: Callable[[], ContrastiveModel],
    device: torch.device,
) -> ResidentModels | OffloadedModels:
    """Models of one architecture on a device, or beside it.

    Args:
        models: Loaded one after the other, ``count`` of them.
        at_once: Most on the device; ``auto``: as many as fit beside what they compute.
        shell: Builds one without weights.
    """
    loaded = iter(models)
    first = next(loaded)
    most = _that_fit(first, device) if at_once == "auto" else at_once
    every = chain([first], loaded)
    if most >= count:
        return ResidentModels([on_device(model, device) for model in every])
    weights = [_host_tensors(model, device) for model in every]
    return OffloadedModels([on_device(shell(), device) for _ in range(most)], weights)


def on_device(model: ContrastiveModel, device: torch.device) -> ContrastiveModel:
    """The model on a device, in the memory order that is fastest there."""
    return channels_last(model.to(device))


def _tensors(model: ContrastiveModel) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _host_tensors(model: ContrastiveModel, device: torch.device) -> list[Tensor]:
    """Weights in the memory order of the device's, pinned where a GPU will fetch them."""
    tensors = [tensor.detach() for tensor in _tensors(on_device(model, torch.device("cpu")))]
    return [tensor.pin_memory() for tensor in tensors] if device.type == "cuda" else tensors


def _that_fit(model: ContrastiveModel, device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 30
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(tensor.nbytes for tensor in _tensors(model))
    return max(1, int(_WEIGHT_SHARE * free / max(size, 1)))
