"""What the GPU and the threads of this process do meanwhile, seen from a thread beside them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import torch

_GPU_EVERY_MS, _STACKS_EVERY_S = 200, 0.02
_WAITING = {"wait", "_wait_for_tstate_lock", "select", "poll", "_worker", "get", "join"}
_SMI = "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={_GPU_EVERY_MS}"


class DeviceWatch:
    """Shares of the time in a block: the GPU busy, and where threads were that did not wait.

    Where ``nvidia-smi`` is missing, nothing is told of the GPU.
    """

    def __init__(self) -> None:
        self._looks, self._places = 0, Counter[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="device-watch")
        self._smi: subprocess.Popen[str] | None = None
        self._busy: list[float] = []

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            if (smi := shutil.which("nvidia-smi")) is not None:
                self._smi = subprocess.Popen([smi, *_SMI], stdout=subprocess.PIPE, text=True)  # noqa: S603
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._smi is not None:
            self._smi.terminate()
            lines = self._smi.communicate()[0].split()
            self._busy = [float(line) for line in lines if line.isdigit()]

    def figures(self) -> dict[str, float]:
        """``GPU busy`` (share of the time with a kernel under way) and peak memory, GB."""
        found = {}
        if self._busy:
            found["GPU busy"] = sum(self._busy) / len(self._busy) / 100
        if torch.cuda.is_available():
            found["GPU memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
        return found

    def places(self, most: int = 5) -> dict[str, float]:
        """Thread and line → share of the looks at which it was there; those seen most."""
        return {place: count / self._looks for place, count in self._places.most_common(most)}

    def _look(self) -> None:
        while not self._over.wait(_STACKS_EVERY_S):
            self._looks += 1
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != self._thread.ident and frame.f_code.co_name not in _WAITING:
                    name = names.get(ident, "native").rstrip("0123456789-_")
                    self._places[f"{name}: {_place(frame)}"] += 1


def _place(frame: FrameType) -> str:
    """The innermost line, and the innermost one of this project that led there."""
    lines, inner = [], f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name})"
    own: FrameType | None = frame
    while own is not None:
        if "multimem_ray" in own.f_code.co_filename:
            name = Path(own.f_code.co_filename).name
            lines.append(f"{own.f_code.co_name} ({name}:{own.f_lineno})")
            break
        own = own.f_back
    return " < ".join([inner, *lines]) if lines and own is not frame else (lines or [inner])[0]
