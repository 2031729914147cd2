"""Whether a removal certificate is true of the files that are there now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from multimem_ray.arrow_files import READ_ERRORS, read_parquet
from multimem_ray.errors import ConfigError
from multimem_ray.export.certificate import FOLDER, NAME, digest, file_hash
from multimem_ray.own_files import read_own
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage


@dataclass
class Checked:
    """What a check says.

    Attributes:
        url: The certificate.
        faults: What is not as certified.
        notes: What could not be checked.
        hashes: Hashes that were computed again.
        removed: Samples that were looked for in the new shards.
    """

    url: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hashes: int = 0
    removed: int = 0

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        told = {"certificate": self.url, "true": not self.faults, "faults": self.faults}
        return {**told, "notes": self.notes, "hashes": self.hashes, "removed": self.removed}

    def lines(self) -> list[str]:
        """For people."""
        if self.faults:
            return [*self.faults, *self.notes, f"{len(self.faults)} faults"]
        gone = f"none of {self.removed:,} removed samples stands in the new shards"
        return [*self.notes, f"as certified: {self.hashes} hashes, and {gone}"]


def check(resharded: str, storage: Storage, out: str | None = None) -> Checked:
    """Compute the hashes of a certificate again, and look for removed samples in the new shards.

    Args:
        resharded: The folder that ``multimem reshard`` wrote.
        storage: Where everything lies.
        out: Folder of the certificate, if it is elsewhere.

    Raises:
        ConfigError: There is no certificate.
        StorageError: It cannot be read.
    """
    folder = out or storage.join(resharded, FOLDER)
    url = storage.join(folder, NAME)
    if not storage.exists(url):
        raise ConfigError(f"{url}: no certificate; `multimem certificate {resharded}` writes one")
    again = "write it again with `multimem certificate`"
    content = read_own(storage, url, again, shards=list, removed_samples=dict, sha256=str)
    told = Checked(url)
    if digest(content) != content["sha256"]:
        told.faults.append(f"{url}: was changed after it was written")
    told.hashes += 1
    gone = _removed(folder, content, storage, told)
    for shard in content["shards"]:
        before, after = shard["before"], shard["after"]
        if storage.exists(before["url"]):
            _compare(before, storage, told)
        else:
            told.notes.append(f"{before['url']}: not there any more, so not compared")
        if after is None:
            continue
        if not storage.exists(after["url"]):
            told.faults.append(f"{after['url']}: gone")
            continue
        _compare(after, storage, told)
        keys = gone.get(before["url"], set())
        there = read_shard(after["url"], storage)
        back = sorted(i.key for i in there if isinstance(i, Sample) and i.key in keys)
        told.faults += [f"{after['url']}: removed sample '{key}' is in it" for key in back[:20]]
    return told


def _removed(
    folder: str, content: dict[str, Any], storage: Storage, told: Checked
) -> dict[str, set[str]]:
    """Keys of removed samples by the shard that they stood in."""
    listed = content["removed_samples"]
    url = storage.join(folder, str(listed.get("file")))
    if not storage.exists(url):
        told.faults.append(f"{url}: gone")
        return {}
    data = storage.read_bytes(url)
    told.hashes += 1
    if hashlib.sha256(data).hexdigest() != listed.get("sha256"):
        told.faults.append(f"{url}: was changed after it was written")
    keys: dict[str, set[str]] = {}
    try:
        rows = read_parquet(data, url, ["shard", "key"]).to_pylist()
    except READ_ERRORS as error:
        told.faults.append(f"{url}: cannot be read ({error})")
        return {}
    for row in rows:
        keys.setdefault(row["shard"], set()).add(row["key"])
    told.removed = len(rows)
    return keys


def _compare(file: dict[str, Any], storage: Storage, told: Checked) -> None:
    told.hashes += 1
    if file_hash(file["url"], storage) != file["sha256"]:
        told.faults.append(f"{file['url']}: another file than was certified")
