"""Checkpoints of a bank that its training does not wait for.

The state of each model is copied between two of its steps: on the CPU in the thread that steps, on
a GPU on a stream of its own into pinned memory, for which only that model's next step waits, on the
card. Threads beside the training write the copies. One checkpoint is under way at a time, and what
goes wrong with it is raised in the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from multimem_ray.errors import TrainingError
from multimem_ray.models.checkpoint import state_tensors
from multimem_ray.models.snapshot import Snapshot, snapshot_bytes
from multimem_ray.training.train_state import TrainState

_FILES_AT_ONCE = 4
# Beside the state: losses of an epoch's steps, places that wait. What has more is not pinned.
_MORE_BYTES = 4 << 20

Part = tuple[TrainState, "Future[Snapshot]"]


class CheckpointWriter:
    """Writes the checkpoints of a bank beside its training.

    Args:
        device: Where the models are.

    Attributes:
        seconds: How long it took to write the last one.
        stream: Copies, on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._memory: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def is_free(self) -> bool:
        """Whether no checkpoint is under way.

        Raises:
            StorageError: The last one could not be written.
        """
        if self._running is not None and self._running.done():
            self.wait()
        return self._running is None

    def wait(self) -> None:
        """Return when none is under way any more.

        Raises:
            StorageError: It could not be written.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Return when none is under way any more, whatever became of it."""
        self._thread.shutdown()
        while self._memory:
            _, memory = self._memory.popitem()
            _require_success(_cudart().cudaHostUnregister(memory.data_ptr()))

    def prepare(self, states: Sequence[TrainState]) -> bool:
        """Whether the copies can be made without waiting; else this is being seen to.

        Pinning memory for all models takes seconds, and is done once, beside the training.
        """
        if self.stream is None or all(state.id in self._memory for state in states):
            return True
        self._run(lambda: self._pin(states))
        return False

    def memory(self, state: TrainState) -> Tensor | None:
        """Where a snapshot of the state shall lie; None: anywhere."""
        return self._memory.get(state.id)

    def write(self, parts: Sequence[Part], first: Callable[[], None]) -> None:
        """Write snapshots as soon as they are taken.

        Args:
            parts: Models, and what becomes their snapshots.
            first: Done before any is written.
        """
        self._run(lambda: self._write(parts, first))

    def _run(self, job: Callable[[], None]) -> None:
        self.wait()
        self._running = self._thread.submit(job)

    def _write(self, parts: Sequence[Part], first: Callable[[], None]) -> None:
        started = time.monotonic()
        first()
        with ThreadPoolExecutor(min(_FILES_AT_ONCE, len(parts))) as pool:
            for written in [pool.submit(_write_one, state, taken) for state, taken in parts]:
                written.result()
        self.seconds = time.monotonic() - started

    def _pin(self, states: Sequence[TrainState]) -> None:
        for state in states:
            size = snapshot_bytes(state_tensors(state.model, state.optimizer)) + _MORE_BYTES
            # While CUDA pins memory nothing else reaches the card. Most of that would be the making
            # of its pages, so they are made first.
            memory = torch.empty(size, dtype=torch.uint8).zero_()
            _require_success(_cudart().cudaHostRegister(memory.data_ptr(), size, 0))
            self._memory[state.id] = memory


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _require_success(status: int) -> None:
    if int(status):
        raise TrainingError(
            f"memory for checkpoints cannot be pinned (CUDA error {int(status)}); give the process "
            "more memory, or set resources.train.models_per_bank lower"
        )


def _write_one(state: TrainState, taken: Future[Snapshot]) -> None:
    state.folder.write_progress(taken.result())
