"""Committed shards: marker, files, rows, and every position of a shard once."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from multimem_ray.arrow_files import READ_ERRORS, ParquetFile
from multimem_ray.embeddings.layout import About
from multimem_ray.errors import MultiMemError
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.footers import FooterCheck
from multimem_ray.store.markers import Commit, details, way_out
from multimem_ray.store.names import shard_id, source_version
from multimem_ray.verify.finding import Finding

_SUMS = ("rows", "held_out", "errors")
_FIELDS = {
    **dict.fromkeys(("shard", "version", "fingerprint"), str),
    **dict.fromkeys((*_SUMS, "size"), int),
    "files": dict,
}


@dataclass(frozen=True)
class CommitCheck:
    """Looks at one committed shard; any number of threads may.

    Args:
        output: Folder with ``commits/``, and what the markers name.
        deep: Also compare each file with the SHA-256 in the marker.
        planned: Shard to the number of its samples that are in the held-out set.
        positions: Rows say where in the shard they stand; those of stored embeddings need not.
        command: What writes the files again.
    """

    storage: Storage
    output: str
    deep: bool
    planned: Mapping[str, int]
    positions: bool = True
    command: str = "multimem score"

    def __call__(self, commit: Commit) -> Finding:
        """What is found of a shard."""
        finding = Finding()
        finding.checked["shards"] += 1
        try:
            marker = details(self.storage, commit, **_FIELDS)
            self._require(marker, commit, finding)
            files = self._files(marker, commit, finding)
            self._rows(files, commit, finding)
        except MultiMemError as error:
            finding.told(commit.url, error)
        return finding

    def _require(self, marker: Mapping[str, Any], commit: Commit, finding: Finding) -> None:
        """The content of a marker tells what its name does."""
        source = FileInfo(marker["shard"], marker["size"], marker["version"])
        told = (shard_id(source.url), marker["fingerprint"], source_version(source))
        sums = tuple(marker[name] for name in _SUMS)
        named = (commit.shard_id, commit.run, commit.source)
        if told != named or sums != (commit.rows, commit.held_out, commit.errors):
            finding.fault(commit.url, "its content tells of another commit", self._out(commit))
        planned = self.planned.get(source.url, 0)
        if planned > commit.held_out:
            finding.fault(
                commit.url,
                f"{commit.held_out} samples were left to the held-out set, which has {planned}",
                self._out(commit),
            )

    def _files(
        self, marker: Mapping[str, Any], commit: Commit, finding: Finding
    ) -> dict[str, bytes | None]:
        """Files of a commit that are there as they were written; their content if it was read."""
        files: dict[str, bytes | None] = {}
        for name, digest in marker["files"].items():
            url = self.storage.join(self.output, name)
            finding.checked["files"] += 1
            finding.vouched.add(url)
            if not self.storage.exists(url):
                finding.fault(url, "committed, and not there", self._out(commit))
                continue
            content = self.storage.read_bytes(url) if self.deep else None
            if content is not None:
                finding.checked["files by SHA-256"] += 1
                if hashlib.sha256(content).hexdigest() != digest:
                    finding.fault(url, "its SHA-256 is not that of the marker", self._out(commit))
                    continue
            files[url] = content
        return files

    def _rows(self, files: Mapping[str, bytes | None], commit: Commit, finding: Finding) -> None:
        """Footers, sums and positions."""
        at, keys = Counter[int](), Counter[tuple[str, str]]()
        for kind, rows in (("scores", commit.rows), ("errors", commit.errors)):
            own = [url for url in files if f"/{kind}/" in url[len(self.output) :]]
            check = FooterCheck([commit], {commit.shard_id: own}, {commit.shard_id: rows})
            if rows and not own and not any(f"/{kind}/" in f.file for f in finding.faults):
                finding.fault(commit.url, f"names no file of its {rows} {kind}", self._out(commit))
            for url in own:
                try:
                    for table in self._columns(url, files[url], check):
                        at.update(i for i in table["index"].to_pylist() if i is not None)
                        if kind == "scores":
                            names = (table[name].to_pylist() for name in ("shard", "key"))
                            keys.update(zip(*names, strict=True))
                except MultiMemError as error:
                    finding.told(url, error)
                except (*READ_ERRORS, KeyError) as error:
                    said = " ".join(str(error).split())[:200]
                    finding.fault(url, f"cannot be read as Parquet ({said})", self._out(commit))
        finding.checked["samples"] += commit.samples
        twice = [key for (_, key), count in keys.items() if count > 1]
        if twice:
            finding.fault(commit.url, f"'{twice[0]}' is scored twice", self._out(commit))
        if self.positions and at and max(at.values()) > 1:
            position = max(at, key=lambda i: at[i])
            finding.fault(commit.url, f"position {position} comes twice", self._out(commit))

    def _columns(
        self, url: str, content: bytes | None, check: FooterCheck
    ) -> Iterator[pa.RecordBatch]:
        stream = self.storage.open(url) if content is None else io.BytesIO(content)
        with stream, ParquetFile(stream, url) as file:
            check.require(url, file.metadata)
            yield from file.iter_batches(columns=["shard", "key", "index"], use_threads=False)

    def _out(self, commit: Commit) -> str:
        return way_out(commit).replace("multimem score", self.command)


@dataclass(frozen=True)
class EmbeddingCheck(CommitCheck):
    """Looks at one shard of stored embeddings: a file for each model."""

    def _rows(self, files: Mapping[str, bytes | None], commit: Commit, finding: Finding) -> None:
        for url, content in files.items():
            if "/model=" not in url[len(self.output) :]:
                continue
            stream = self.storage.open(url) if content is None else io.BytesIO(content)
            try:
                with stream, ParquetFile(stream, url) as file:
                    about, rows = About.of(file.schema_arrow), file.metadata.num_rows
            except (*READ_ERRORS, MultiMemError, TypeError) as error:
                said = " ".join(str(error).split())[:200]
                finding.fault(url, f"cannot be read as embeddings ({said})", self._out(commit))
                continue
            if about is None or about.fingerprint != commit.run:
                finding.fault(url, "not of this run", self._out(commit))
            elif shard_id(about.shard) != commit.shard_id or rows != commit.rows:
                finding.fault(url, f"{rows} rows of {about.shard}", self._out(commit))
        finding.checked["embedded samples"] += commit.rows
