"""What reads foreign or own bytes: some good files, some found to do harm, and the reader.

A reader gives something or raises an error of ours; anything else is a defect.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.config import LimitsConfig
from multimem_ray.design.group_table import read_groups
from multimem_ray.design.key_list import read_key_file, read_keys
from multimem_ray.embeddings.files import Place, array_file, key_blocks
from multimem_ray.errors import SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.decoder import decode_one
from multimem_ray.run import load_run, recorded_config
from multimem_ray.sample import Sample
from multimem_ray.setup import resolve
from multimem_ray.setup.yaml_text import parse
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage
from tests.modalities.media import (
    gradient,
    image_bytes,
    ramp,
    sound_bytes,
    tone,
    track_bytes,
    video_bytes,
)
from tests.shards.tars import PLAIN, archive, padded, raw_header

LIMITS = LimitsConfig()
_WITHIN = 1 << 30


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        seeds: Files that it knows, and files that once did harm.
        read: Reads bytes; the folder is its own, for what is read by path.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]


def _shard(data: bytes, folder: Path) -> None:
    path = folder / "x.tar"
    path.write_bytes(data)
    samples, named = 0, 0
    for item in read_shard(str(path), Storage()):
        if isinstance(item, Sample):
            samples += 1
            assert item.size <= _WITHIN
            with suppress(SampleError):
                item.metadata()
            continue
        named += 1
        assert item.detail
        assert len(item.detail) < 10_000
    # A shard never ends in silence.
    assert samples + named


def _shards() -> list[bytes]:
    forms = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    plain = [archive(PLAIN, form) for form in forms]
    long = [archive([("n" * 300 + ".txt", b"1"), ("é.txt", b"2")], form) for form in forms[1:]]
    shared = b"21 comment0000=12345\n" * 100
    odd = raw_header(b"g", b"%011o" % len(shared), b"g") + padded(shared) + plain[0]
    sparse = archive([("a.txt", b"1")], tarfile.PAX_FORMAT)
    bomb = gzip.compress(archive([("a.bin", bytes(20 << 20))]))
    return [*plain, *long, odd, sparse, gzip.compress(plain[1]), bomb]


def _nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def _json(data: bytes, folder: Path) -> object:
    del folder
    return Sample("a", "x.tar", 0, {"json": data}).metadata()


def _jsons() -> list[bytes]:
    usual = {"caption": ["a", "b"], "n": 1.5, "deep": {"x": [None, True]}, "u": "é"}
    text = json.dumps(usual).encode()
    return [text, text.decode().encode("utf-16"), _nested(63), _nested(600), b"[" * 100_000]


def _packed(data: bytes, folder: Path) -> object:
    del folder
    return Sample("a", "x.tar", 0, {"txt.gz": data}).field("txt")


def _decoder(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        del folder
        return decode_one(registry.create(name), data)

    return read


def _pictures() -> list[bytes]:
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    return [image_bytes(gradient(24, 16), kind) for kind in kinds]


def _sounds() -> list[bytes]:
    wave = tone(seconds=0.3)
    plain = [sound_bytes(wave, kind=kind) for kind in ("FLAC", "WAV", "OGG", "MP3", "AIFF")]
    return [*plain, track_bytes(wave, 8000, "adts", "aac"), track_bytes(wave, 8000, "ogg", "flac")]


def _clips() -> list[bytes]:
    clip = ramp(12, 32, 32)
    kinds = (("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264"), ("avi", "mpeg4"))
    return [video_bytes(clip, kind, codec) for kind, codec in kinds]


def _captions() -> list[bytes]:
    text = "A dog, één hond, 犬が走る\n"
    return [text.encode(code) for code in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le")]


def _file(name: str, read: Callable[[str, Storage], object]) -> Callable[[bytes, Path], object]:
    def read_file(data: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(str(path), Storage())

    return read_file


def _parquet(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _lists() -> list[bytes]:
    keys: list[object] = ["a", "b", "0001", "é"]
    numbers: list[object] = [1, 2, 3, None]
    return [
        _parquet(key=keys),
        _parquet(key=keys, shard=["x.tar", "x.tar", "y.tar", "y.tar"]),
        _parquet(key=numbers),
        _parquet(other=keys),
    ]


def _groups() -> list[bytes]:
    keys: list[object] = ["a", "b", "c"]
    return [_parquet(key=keys, group=["x", "x", "y"]), _parquet(key=keys, group=[1, None, 2])]


def _npy() -> list[bytes]:
    arrays = (np.zeros((4, 3), np.float32), np.zeros((4, 2, 3), np.float16), np.array(["a", "bc"]))
    seeds = []
    for array in arrays:
        sink = io.BytesIO()
        np.save(sink, array, allow_pickle=False)
        seeds.append(sink.getvalue())
    return seeds


def _keys_of_arrays(url: str, storage: Storage) -> object:
    return list(key_blocks(storage, Place(url, 0, 2), 2))


def _run(data: bytes, folder: Path) -> object:
    (folder / "run.json").write_bytes(data)
    content = load_run(str(folder), Storage())
    return recorded_config(content)


def _runs() -> list[bytes]:
    config = resolve({"output": "x", "data": {"shards": "x.tar"}}).model_dump(mode="json")
    return [json.dumps({"config": config, "format": 1, "versions": {}}, indent=1).encode()]


def _yaml(data: bytes, folder: Path) -> object:
    del folder
    return parse(data.decode("utf-8", "replace"))


def _yamls() -> list[bytes]:
    text = "output: runs/x\ndata:\n  shards: [a.tar, b.tar]\n  fields: {image: jpg}\n"
    return [text.encode(), b"a: &x [1, 2]\nb: *x\n", b"a: 010\nno: 1e3\n", b"- !!python/name:os\n"]


TARGETS = {
    "shard": Target(cache(_shards), _shard),
    "json": Target(cache(_jsons), _json),
    "packed member": Target(
        cache(lambda: [gzip.compress(b"a caption"), gzip.compress(bytes(17 << 20))]), _packed
    ),
    "image": Target(cache(_pictures), _decoder("image")),
    "audio": Target(cache(_sounds), _decoder("audio")),
    "video": Target(cache(_clips), _decoder("video")),
    "text": Target(cache(_captions), _decoder("text")),
    "keys, parquet": Target(cache(_lists), _file("k.parquet", read_keys)),
    "keys, text": Target(
        cache(lambda: [b"a\nb\n", b"\xef\xbb\xbfa\r\nb", b"\n\n"]),
        _file("k.txt", lambda url, storage: read_key_file(url, storage, "members")),
    ),
    "groups": Target(cache(_groups), _file("g.parquet", read_groups)),
    "array": Target(cache(_npy), _file("a.npy", lambda url, storage: array_file(storage, url))),
    "keys of arrays": Target(cache(_npy), _file("a.npy", _keys_of_arrays)),
    "run.json": Target(cache(_runs), _run),
    "configuration": Target(cache(_yamls), _yaml),
}
