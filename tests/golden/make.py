"""How ``golden.tar.xz`` was made: by ``python -m tests.golden.make`` with the code of the version
that brought views version 2, and by none after it.

Version 1 of the views was that of 0.1 and 0.2, whose outputs are refused (``tests/setup/
test_claim.py``). Everything lies on S3, since absolute places are part of names and fingerprints:
``s3://golden/in`` and one output for each case. ``begun`` has checkpoints of the first of two
epochs; all others are whole audits in one process, and ``halves`` was embedded, too.
``of_0_1.tar.xz`` has what version 0.1.0 wrote of ``halves``, without models.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console

from multimem_ray.audit import audit, embed
from multimem_ray.config import Config
from multimem_ray.progress import Progress
from multimem_ray.setup import apply_overrides, open_run, resolve
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import TrainingStream
from tests.golden.cases import BUCKET, CASES
from tests.s3 import S3Server, running_server
from tests.small import members

TAR = Path(__file__).with_name("golden.tar.xz")
OF_0_1 = Path(__file__).with_name("of_0_1.tar.xz")


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


def empty_bucket(server: S3Server) -> Storage:
    """The bucket without any case's output; it may be there from another test."""
    request = urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10).close()
    for case in CASES:
        server.storage.remove(f"s3://{BUCKET}/{case}", recursive=True)
    return server.storage


def config_of(case: str, storage: Storage, cache: Path) -> Config:
    """Configuration of a case, resolved: of what it reads, something must be there."""
    raw = {**CASES[case], "storage": storage.config.model_dump(mode="json")}
    sets = [f"output=s3://{BUCKET}/{case}", f"resources.cache_dir={cache}"]
    return resolve(apply_overrides(raw, sets))


def quiet() -> Progress:
    """Progress that nobody sees."""
    return Progress(Console(file=io.StringIO(), width=200))


def make(storage: Storage, folder: Path) -> None:
    """Write the inputs, audit every case, and pack what came of it.

    Args:
        storage: With the bucket, empty.
        folder: A new one for inputs and caches.
    """
    write_inputs(folder / "in")
    for shard in sorted((folder / "in").glob("*.tar")):
        storage.write_atomic(f"s3://{BUCKET}/in/{shard.name}", shard.read_bytes())
    for case in CASES:
        config = config_of(case, storage, folder / "cache")
        if case == "begun":
            run, shards = open_run(config)
            bank = Bank(run, run.design.model_ids(), torch.device("cpu"), threads=1)
            cache = DecodedCache(folder / "begun", 10**9)
            bank.train_epoch(0, TrainingStream(run, shards.scored, cache).samples(0))
            bank.checkpoint()
            continue
        audit(config, quiet(), executor="local")
        if case == "halves":
            embed(config, quiet(), executor="local")
    pack(storage)


def pack(storage: Storage) -> None:
    """Everything in the bucket but the reports, as one file."""
    with tarfile.open(TAR, "w:xz") as archive:
        for info in storage.list(f"s3://{BUCKET}"):
            if not info.url.endswith("report.html"):
                content = storage.read_bytes(info.url)
                entry = tarfile.TarInfo(info.url.removeprefix(f"s3://{BUCKET}/"))
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def unpack(storage: Storage, *, leave: tuple[str, ...] = (), tar: Path = TAR) -> dict[str, bytes]:
    """Fill the bucket; returns the content of all files, also of those that are left out."""
    with tarfile.open(tar, "r:xz") as archive:
        members = {entry.name: archive.extractfile(entry) for entry in archive}
        files = {name: stream.read() for name, stream in members.items() if stream}
    for name, content in files.items():
        if not name.startswith(leave):
            storage.write_atomic(f"s3://{BUCKET}/{name}", content)
    return files


if __name__ == "__main__":
    with running_server() as _server, tempfile.TemporaryDirectory() as _folder:
        make(empty_bucket(_server), Path(_folder))
