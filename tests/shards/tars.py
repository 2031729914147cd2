"""Archives for the tests of the reader, made by Python's own tarfile, and their anatomy."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multimem_ray.config import DEFAULT_LIMITS, LimitsConfig
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

Members = Sequence[tuple[str, bytes]]

PLAIN: Members = [
    ("a.jpg", b"picture"),
    ("a.txt", b"x" * 512),
    ("b.jpg", b""),
    ("b.txt", b"y" * 1000),
    ("dir/c.jpg", bytes(range(256)) * 4),
    ("dir/c.json", b'{"n": 1}'),
    ("dir/c.txt", b"\0" * 600),
    ("d.txt", b"last"),
]


def archive(members: Members, form: int = tarfile.USTAR_FORMAT, encoding: str = "utf-8") -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding=encoding, errors="surrogateescape"
    ) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_header(
    name: bytes, size: bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000"
) -> bytes:
    """A header with these very bytes and a right checksum."""
    head = bytearray(512)
    head[0 : len(name)] = name
    head[100:108] = b"0000644\0"
    head[124 : 124 + len(size)] = size
    head[156:157] = kind
    head[257:265] = magic
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


END = bytes(1024)


@dataclass(frozen=True)
class Piece:
    """A member in the archive: header from ``start``, content from ``content`` to ``end``."""

    key: str
    start: int
    content: int
    end: int


def anatomy(data: bytes) -> list[Piece]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            Piece(m.name.split(".")[0], m.offset, m.offset_data, m.offset_data + m.size)
            for m in tar
        ]


def grouped(members: Members) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in members:
        folder, slash, base = name.rpartition("/")
        key, _, extension = base.partition(".")
        samples.setdefault(folder + slash + key, {})[extension] = data
    return samples


def read(path: Path, data: bytes, limits: LimitsConfig = DEFAULT_LIMITS) -> list[Sample | Failure]:
    path.write_bytes(data)
    return list(read_shard(str(path), Storage(), limits=limits))


def parted(items: Iterable[Sample | Failure]) -> tuple[list[Sample], list[Failure]]:
    samples: list[Sample] = []
    failures: list[Failure] = []
    for item in items:
        if isinstance(item, Sample):
            samples.append(item)
        else:
            failures.append(item)
    return samples, failures


def contents(samples: Iterable[Sample]) -> dict[str, dict[str, bytes]]:
    return {sample.key: dict(sample.members) for sample in samples}
