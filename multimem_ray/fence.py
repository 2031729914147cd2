"""Who may write into an output: the one that opened it last.

    epochs/000001.json      taken by whoever opens the run, one after the other, and never removed

A driver may be frozen (a paused machine, a cut network), taken for dead and replaced; when it wakes
it goes on where it was. So each opening takes the next number by creating a file that was not
there, which a disk and S3 grant to one only. What is written from the second on has the number in
its name, so that a frozen writer touches nothing of those after it; and a writer looks for the next
number before it makes anything count, and stops where there is one.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimem_ray.errors import ReplacedError, StorageError
from multimem_ray.storage import Storage

FOLDER = "epochs"
_SUFFIX = ".json"


@dataclass(frozen=True)
class Fence:
    """The right to write into an output.

    Args:
        storage: Where it lies.
        output: The folder.
        epoch: Which opening of it; names of the first are without a number.
    """

    storage: Storage
    output: str
    epoch: int = 1

    @property
    def suffix(self) -> str:
        """What names of files end with, before their extension; empty in the first epoch."""
        return f".e{self.epoch}" if self.epoch > 1 else ""

    def is_open(self) -> bool:
        """Whether nobody has opened the run since; one look at one name."""
        return not self.storage.exists(_url(self.storage, self.output, self.epoch + 1))

    def require(self) -> None:
        """Raise ReplacedError if somebody has opened the run since."""
        if self.is_open():
            return
        url = _url(self.storage, self.output, self.epoch + 1)
        try:
            who = json.loads(self.storage.read_bytes(url))
            told = f" (process {who['pid']} on {who['host']}, {who['at']})"
        except (StorageError, ValueError, KeyError, TypeError):
            told = ""
        raise ReplacedError(
            f"{self.output}: another process has opened this run since{told} and goes on with it; "
            "this one stops, and what it finished stays"
        )


def take(storage: Storage, output: str, about: Mapping[str, Any]) -> Fence:
    """Open an output for writing: whoever had it before stops at the next thing it would finish.

    Args:
        about: What else is told of this opening.
    """
    numbers = [
        int(stem)
        for info in storage.list(storage.join(output, FOLDER), recursive=False)
        if (stem := storage.name(info.url).removesuffix(_SUFFIX)).isdecimal()
    ]
    epoch = max(numbers, default=0) + 1
    content = {
        **about,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "id": uuid.uuid4().hex,  # so that no two say the same
    }
    data = json.dumps(content, indent=1).encode()
    while not storage.write_if(_url(storage, output, epoch), data, None):
        epoch += 1
    return Fence(storage, output, epoch)


def _url(storage: Storage, output: str, epoch: int) -> str:
    return storage.join(output, FOLDER, f"{epoch:06d}{_SUFFIX}")
