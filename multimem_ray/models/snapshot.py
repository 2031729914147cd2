"""Tensors as they were at one moment, to be written later: a safetensors file in memory.

A training goes on while its checkpoint is written, so what is written is a copy. It lies in one
buffer, in the order and places of the file, so that writing it needs no copy more and hardly any
Python: safetensors' own serializer holds the interpreter's lock for as long as it copies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from multimem_ray.storage import Storage, translated

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PIECE = 16 << 20


@dataclass(frozen=True)
class Snapshot:
    """A file of tensors that is not written yet.

    Args:
        header: What stands before the tensors.
        body: (B,) uint8, the tensors one behind the other.
        copied: On a GPU, happens when the body is complete.
        sources: What is copied: it must live until then.
    """

    header: bytes
    body: Tensor
    copied: torch.cuda.Event | None = None
    sources: tuple[Tensor, ...] = ()

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], memory: Tensor | None
    ) -> Snapshot:
        """Copy tensors; from a GPU on the current stream, without waiting for it.

        Args:
            memory: (≥ B,) uint8, where the copy shall lie; what is too small is not used.
        """
        header, places = _layout(tensors, metadata)
        size = max((end for _, end in places.values()), default=0)
        if memory is None or len(memory) < size:
            memory = torch.empty(size, dtype=torch.uint8)
        for name, (begin, end) in places.items():
            value = tensors[name].detach()
            place = memory[begin:end].view(value.dtype).view(value.shape)
            place.copy_(value, non_blocking=True)
        copied = None
        if any(value.is_cuda for value in tensors.values()):
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record()
        return cls(header, memory[:size], copied, tuple(tensors.values()))

    def write(self, storage: Storage, url: str) -> None:
        """Create or replace the file, whole or not at all; waits for the copy.

        Raises:
            StorageError: The storage refuses it.
        """
        if self.copied is not None:
            self.copied.synchronize()
        body = memoryview(self.body.numpy().data)
        with translated(url), storage.create(url) as stream:
            stream.write(self.header)
            # In pieces: a store's client keeps what it was handed last.
            for at in range(0, len(body), _PIECE):
                stream.write(body[at : at + _PIECE])


def snapshot_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the body of a snapshot."""
    return sum(value.nbytes for value in tensors.values())


def _layout(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The header of the file, and where each tensor begins and ends behind it.

    Format: https://github.com/huggingface/safetensors#format
    """
    # Wide types first, so that each tensor is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    places, at = {}, 0
    for name in order:
        value = tensors[name]
        places[name] = at, at + value.nbytes
        entries[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": list(places[name]),
        }
        at += value.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places
