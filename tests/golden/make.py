"""How ``golden.tar.xz`` was made: by the code of version 0.1.0, and by none after it.

Everything lies on S3, since absolute places are part of names and fingerprints: ``s3://golden/in``
and one output for each case. ``begun`` has checkpoints of the first of two epochs; all others are
whole audits on Ray, and ``halves`` was embedded, too.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from tests.golden.cases import BUCKET
from tests.small import members

TAR = Path(__file__).with_name("golden.tar.xz")


def write_inputs(folder: Path) -> None:
    """Three shards of 16 samples: some lack a picture, one picture is broken, one shard is cut."""
    with ShardWriter(str(folder), max_samples=16) as writer:
        for number in range(48):
            content = members(number, image=number % 5 != 4)
            if number == 7:
                content["png"] = b"\x89PNG\r\n\x1a\n broken"
            writer.write(f"s{number:04d}", content)
    last = max(folder.glob("*.tar"))
    last.write_bytes(last.read_bytes()[: -14 * 1024])


def pack(storage: Storage) -> None:
    """Everything in the bucket but the reports, as one file."""
    with tarfile.open(TAR, "w:xz") as archive:
        for info in storage.list(f"s3://{BUCKET}"):
            if not info.url.endswith("report.html"):
                content = storage.read_bytes(info.url)
                entry = tarfile.TarInfo(info.url.removeprefix(f"s3://{BUCKET}/"))
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def unpack(storage: Storage, *, leave: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Fill the bucket; returns the content of all files, also of those that are left out."""
    with tarfile.open(TAR, "r:xz") as archive:
        members = {entry.name: archive.extractfile(entry) for entry in archive}
        files = {name: stream.read() for name, stream in members.items() if stream}
    for name, content in files.items():
        if not name.startswith(leave):
            storage.write_atomic(f"s3://{BUCKET}/{name}", content)
    return files
