"""Files on a disk or in S3, behind one small interface.

Nothing else touches whole files. Writing is atomic: a reader sees the old content or the new
one, whatever kills the writer. On a disk that is a temporary name in the same folder, flushed
and renamed; on S3 it is one PUT, or a multipart upload, which appears when it is completed.

``s3://bucket/key`` goes through s3fs; ``file://`` and plain paths are local; every other scheme
is refused, ``pipe:`` above all, because it would run a command.
"""

from __future__ import annotations

import errno
import glob
import io
import logging
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from multimem_ray.config import StorageConfig
from multimem_ray.errors import StorageError

BUFFER = 1 << 20  # bytes of a local read; of a copied piece
REMOTE_BLOCK = 8 << 20  # bytes of one ranged GET or of one uploaded part

_DELETIONS = 8  # requests at once where a folder goes

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp$")
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NO_BUCKET = "NoSuchBucket"
_GONE = ("NoSuchKey", "404")
_UNKNOWN = ("NotImplemented", "501")
_MAGIC = re.compile(r"[*?[]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_HOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*)")
_LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/))?")


@dataclass(frozen=True)
class FileInfo:
    """A file and what identifies its content.

    Attributes:
        url: Local path or ``s3://`` URL.
        size: Bytes.
        version: ETag on S3, ``mtime_ns-size`` on a disk; changes with the content.
    """

    url: str
    size: int
    version: str


Files: TypeAlias = list[FileInfo]
Names: TypeAlias = list[str]
Items: TypeAlias = list[dict[str, Any]]


class Storage:
    """Reads and writes whole files; cheap to build and to send to another process.

    Every method raises :class:`StorageError` for what the storage refuses, naming the file.

    Args:
        config: Endpoint, time-outs and retries of S3.
    """

    def __init__(self, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig.model_validate({})
        if self.config.endpoint_url:
            require_no_credentials(self.config.endpoint_url, "storage.endpoint_url")

    def join(self, base: str, *parts: str) -> str:
        """``base/part/part``, for paths and URLs alike."""
        return "/".join([base.rstrip("/") or base, *(part.strip("/") for part in parts)])

    def name(self, url: str) -> str:
        """The last part of a path or URL."""
        return url.rstrip("/").rpartition("/")[2]

    def is_remote(self, url: str) -> bool:
        """Whether ``url`` lies in S3."""
        return local_path(url) is None

    def read_bytes(self, url: str) -> bytes:
        """The whole content."""
        path = local_path(url)
        with translated(url):
            if path is None:
                return cast("bytes", self._s3().cat_file(url))
            return path.read_bytes()

    def write_atomic(self, url: str, data: bytes) -> None:
        """Create or replace a file; folders above it are made."""
        if local_path(url) is None:
            with translated(url):
                self._s3().pipe_file(url, data)
            return
        with translated(url), self.create(url) as stream:
            stream.write(data)

    def write_if(self, url: str, data: bytes, version: str | None) -> bool:
        """Create or replace a file unless somebody else did meanwhile; whether it was done.

        A store that knows no conditions takes the last of two writers at the very same time.

        Args:
            version: The one that is to be replaced (see :class:`FileInfo`); None: there is none.
        """
        path = local_path(url)
        with translated(url):
            if path is None:
                return self._write_remote_if(url, data, version)
            with _temporary_beside(path) as temporary:
                temporary.write_bytes(data)
                if version is None:
                    return _link(temporary, path)
                if not path.exists() or _local_info(url, path.stat()).version != version:
                    return False
                temporary.replace(path)
            _sync_folder(path.parent)
            return True

    def version(self, url: str) -> str | None:
        """What tells the content of a file from another one; None if there is no such file."""
        return self.info(url).version if self.exists(url) else None

    @contextmanager
    def create(self, url: str) -> Iterator[BinaryIO]:
        """A stream whose content appears under ``url`` when the block ends without an error.

        Errors of writing to the stream are the stream's own: see :func:`translated`.
        """
        path = local_path(url)
        with self._create_remote(url) if path is None else _create_local(url, path) as stream:
            yield stream

    def exists(self, url: str) -> bool:
        """Whether there is a file (not a folder) at ``url``; False only where that is certain.

        Raises:
            StorageError: It cannot be told: access denied, a time-out, a store that fails.
        """
        path = local_path(url)
        with translated(url):
            try:
                if path is not None:
                    return stat.S_ISREG(path.stat().st_mode)
                # A HEAD alone: s3fs would list as well, and take a refusal for an absence.
                self._object("head_object", url)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def info(self, url: str) -> FileInfo:
        """Size and version; :class:`StorageError` if there is no such file."""
        path = local_path(url)
        with translated(url):
            if path is None:
                found = self._s3().info(url)
                if found["type"] != "file":
                    raise IsADirectoryError(errno.EISDIR, "is a folder, not a file")
                return _remote_info(found)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder, not a file")
            return _local_info(url, path.stat())

    def list(self, prefix: str, *, recursive: bool = True) -> Files:
        """Every file below a folder, sorted by URL; empty if there is no such folder.

        Files that are being written (temporary names) are left out. S3 answers with one paged
        listing.

        Args:
            prefix: Folder.
            recursive: Also what lies in folders below it.
        """
        path = local_path(prefix)
        with translated(prefix):
            found = (
                self._list_remote(prefix, recursive)
                if path is None
                else _walk(prefix, path, recursive)
            )
            return sorted(found, key=lambda info: info.url)

    def folders(self, url: str) -> Names:
        """Names of the folders right below a folder, sorted; empty if there is no such folder."""
        path = local_path(url)
        with translated(url), suppress(FileNotFoundError, NotADirectoryError):
            if path is not None:
                return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
            found = self._listed(url)
            return sorted(self.name(item["name"]) for item in found if item["type"] == "directory")
        return []

    def glob(self, pattern: str) -> Files:
        """Files that match ``*``, ``?``, ``[...]`` and ``**``, sorted by URL."""
        path = local_path(pattern)
        with translated(pattern):
            if path is None:
                infos = self._glob_remote(pattern)
            else:
                names = glob.glob(str(path), recursive=True, include_hidden=False)  # noqa: PTH207
                infos = [_local_info(n, Path(n).stat()) for n in names if Path(n).is_file()]
        kept = (info for info in infos if not _TEMPORARY.search(info.url))
        return sorted(kept, key=lambda info: info.url)

    def open(self, url: str) -> BinaryIO:
        """A stream for reading from the front; S3 is read ahead in the background."""
        path = local_path(url)
        with translated(url):
            if path is None:
                return cast("BinaryIO", io.BufferedReader(_RemoteStream(self._s3(), url), BUFFER))
            return path.open("rb", buffering=BUFFER)

    def remove(self, url: str, recursive: bool = False) -> None:
        """Delete a file, or a folder with all in it; absent is fine, and a name is no pattern."""
        path = local_path(url)
        with translated(url), suppress(FileNotFoundError):
            if path is None:
                self._remove_remote(url, recursive)
            elif recursive and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def discard(self, url: str, recursive: bool = False) -> None:
        """Delete what nobody needs any more; where that fails, it stays and is warned of."""
        try:
            self.remove(url, recursive)
        except StorageError as error:
            logger.warning("left behind, and harmless: %s", error)

    def clear_temporary(self, url: str, *, recursive: bool = True) -> None:
        """Delete what killed writers left below a folder on a disk; S3 has nothing of the kind."""
        path = local_path(url)
        if path is None:
            return
        for left in path.rglob(".*.tmp") if recursive else path.glob(".*.tmp"):
            if _TEMPORARY.search(left.name):
                self.discard(str(left))

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        """A path of the file for a library that needs one: itself if local, else a copy."""
        path = local_path(url)
        if path is not None:
            self.info(url)
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="multimem-") as folder:
            copy = Path(folder) / self.name(url)
            with translated(url):
                self._s3().get_file(url, str(copy))
            yield copy

    def _s3(self) -> Any:
        """The file system; fsspec keeps one per process and configuration."""
        import s3fs

        timeout, checksums = self.config.timeout_s, self.config.checksums
        attempts = {"total_max_attempts": self.config.retries + 1, "mode": "standard"}
        system = s3fs.S3FileSystem(
            anon=self.config.anonymous,
            endpoint_url=self.config.endpoint_url,
            requester_pays=self.config.requester_pays,
            use_listings_cache=False,
            default_block_size=REMOTE_BLOCK,
            config_kwargs={
                "connect_timeout": timeout,
                "read_timeout": timeout,
                "retries": attempts,
                "request_checksum_calculation": checksums,
                "response_checksum_validation": checksums,
                "s3": {"addressing_style": self.config.addressing},
            },
        )
        # A broken body is retried by s3fs, everything else by botocore.
        system.retries = self.config.retries + 1
        return system

    def _object(self, method: str, url: str, **arguments: Any) -> Any:
        """One request about one object; its name is taken as it is."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return self._s3().call_s3(method, Bucket=bucket, Key=key, **arguments)

    def _remove_remote(self, url: str, recursive: bool) -> None:
        # One request for each: stores other than AWS refuse deletions in bulk, or want more of it.
        below = [info.url for info in self._list_remote(url, True)] if recursive else []
        with ThreadPoolExecutor(_DELETIONS) as pool:
            deque(pool.map(self._delete, [*below, url]), maxlen=0)

    def _delete(self, url: str) -> None:
        with suppress(FileNotFoundError):
            self._object("delete_object", url)

    def _write_remote_if(self, url: str, data: bytes, version: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": f'"{version}"'}
        try:
            self._object("put_object", url, Body=data, **condition)
        except OSError as error:
            code = _error_code(error)
            if code in _UNKNOWN and self.version(url) == version:
                self._object("put_object", url, Body=data)
            elif code not in {*_LOST, *_UNKNOWN} and not (version and code in _GONE):
                raise
        # Told by what is there: an answer that was lost and asked for again says "lost" as well,
        # and a store may take conditions and not heed them.
        return self.exists(url) and self.read_bytes(url) == data

    def _list_remote(self, prefix: str, recursive: bool) -> Iterator[FileInfo]:
        folder = prefix.rstrip("/")
        if recursive:
            found = list(self._s3().find(folder, detail=True).values())
        else:
            found = self._listed(folder)
        for item in found:
            info = _remote_info(item)
            below = info.url.startswith(folder + "/") and not info.url.endswith("/")
            if below and item["type"] == "file" and not _TEMPORARY.search(info.url):
                yield info

    def _glob_remote(self, pattern: str) -> Files:
        """What s3fs's own would find; that leaves out what may not be listed, without a word."""
        from fsspec.utils import glob_translate

        fixed = _MAGIC.split(pattern, maxsplit=1)[0]
        root, rest = fixed.rpartition("/")[0], pattern[fixed.rindex("/") + 1 :]
        levels = {} if "**" in rest else {"maxdepth": rest.count("/") + 1, "on_error": "raise"}
        matches = re.compile(glob_translate(pattern)).match
        try:
            found = self._s3().find(root, detail=True, **levels).values()
        except FileNotFoundError as error:
            _require_bucket(root, error)
            return []
        infos = [_remote_info(item) for item in found if item["type"] == "file"]
        return [info for info in infos if matches(info.url)]

    def _listed(self, folder: str) -> Items:
        """What lies right in a folder; nothing if it is absent, but its bucket must be there."""
        try:
            return cast("Items", self._s3().ls(folder, detail=True))
        except FileNotFoundError as error:
            _require_bucket(folder, error)
            return []

    @contextmanager
    def _create_remote(self, url: str) -> Iterator[BinaryIO]:
        with translated(url):
            stream = self._s3().open(url, "wb", block_size=REMOTE_BLOCK, autocommit=False)
        try:
            yield stream
        except BaseException:
            with suppress(Exception):
                stream.close()
                stream.discard()
            raise
        with translated(url):
            stream.close()
            stream.commit()


class _RemoteStream(io.RawIOBase):
    """An S3 object as a raw stream whose errors are :class:`StorageError`."""

    def __init__(self, system: Any, url: str) -> None:
        self._url = url
        self._file = system.open(
            url,
            "rb",
            block_size=REMOTE_BLOCK,
            cache_type="background",
            cache_options={"maxblocks": 3},
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with translated(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def local_path(url: str) -> Path | None:
    """The path of a local file, or ``None`` for S3.

    Raises:
        StorageError: Another scheme, or no name at all.
    """
    if not url or "\0" in url:
        raise StorageError(f"{url!r} names no file; write a path or an s3:// URL")
    if url.startswith("s3://"):
        require_no_credentials(url, "the URL")
        return None
    if url.startswith("file:"):
        return Path(_LOCAL.sub("", url, count=1))
    scheme = _SCHEME.match(url)
    if scheme and (scheme[2] or scheme[1] == "pipe") and not Path(url).exists():
        raise StorageError(
            f"{url}: '{scheme[1]}:' is not supported; use a local path or s3://bucket/key"
        )
    return Path(url).expanduser()


def require_no_credentials(url: str, what: str) -> None:
    """Raise StorageError, without telling them, if a URL has a user or a password in it."""
    host = _HOST.match(url)
    if host and "@" in host[2]:
        raise StorageError(
            f"{what} {host[1]}***@{host[2].rpartition('@')[2]} has credentials in it, which would "
            "stand in files and logs; leave them out: they come from AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile"
        )


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:180]}.{uuid.uuid4().hex}.tmp")


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    """Give a whole file its name unless another one has it."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:
        # No links on this file system: the name is still given once, if not with its content.
        try:
            with path.open("xb") as stream:
                stream.write(temporary.read_bytes())
        except FileExistsError:
            return False
    _sync_folder(path.parent)
    return True


@contextmanager
def _create_local(url: str, path: Path) -> Iterator[BinaryIO]:
    temporary = _temporary_name(path)
    with translated(url):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = temporary.open("wb", buffering=BUFFER)
    try:
        with stream:
            yield stream
            with translated(url):
                stream.flush()
                os.fsync(stream.fileno())
        with translated(url):
            temporary.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _walk(
    prefix: str, path: Path, recursive: bool, above: frozenset[str] = frozenset()
) -> Iterator[FileInfo]:
    try:
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    # Folders behind links are followed, as a glob does, unless they lead back to one above.
    above |= {str(path.resolve())}
    for entry in entries:
        url = f"{prefix.rstrip('/')}/{entry.name}"
        if entry.is_dir():
            circle = entry.is_symlink() and str(Path(entry.path).resolve()) in above
            if recursive and not circle:
                yield from _walk(url, Path(entry.path), recursive, above)
        elif not _TEMPORARY.search(entry.name):
            # A file may go away between listing and looking, as a temporary one does.
            with suppress(FileNotFoundError):
                yield _local_info(url, entry.stat())


def _local_info(url: str, stat: os.stat_result) -> FileInfo:
    return FileInfo(url, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}")


def _remote_info(found: dict[str, Any]) -> FileInfo:
    etag = str(found.get("ETag") or found.get("etag") or "").strip('"')
    return FileInfo(f"s3://{found['name']}", int(found["size"] or 0), etag)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Give whatever the storage raises one type that names the file and a way out."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if _error_code(error) == _NO_BUCKET:
            raise StorageError(_no_bucket(url)) from error
        raise StorageError(f"{url}: no such file; check the path") from error
    except PermissionError as error:
        raise StorageError(f"{url}: access denied; check permissions and credentials") from error
    except RecursionError as error:
        # What botocore makes of a store that sends every request elsewhere.
        raise StorageError(f"{url}: redirected without end; check endpoint and region") from error
    except (OSError, TimeoutError) as error:
        raise StorageError(f"{url}: {error.strerror or error or type(error).__name__}") from error
    except Exception as error:
        if not _is_remote(type(error)):
            raise
        said = " ".join(str(error).split())
        raise StorageError(f"{url}: {said}; check endpoint, region and credentials") from error


def _require_bucket(url: str, error: FileNotFoundError) -> None:
    """A folder may be absent; its bucket may not."""
    if _error_code(error) == _NO_BUCKET:
        raise StorageError(_no_bucket(url)) from error


def _no_bucket(url: str) -> str:
    return f"{url}: no such bucket; create it, or check the name"


def _error_code(error: BaseException) -> str:
    """The code of an S3 store's answer; empty for another error."""
    answer = getattr(error.__cause__ or error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""


def _is_remote(kind: type[BaseException]) -> bool:
    """Whether an error comes from the S3 client; told by name, so that disks import none of it."""
    return any(base.__module__.startswith(("botocore.", "aiohttp.")) for base in kind.__mro__)
