"""What reads foreign or own bytes: some good files, some found to do harm, and the reader.

A reader gives something or raises an error of ours; anything else is a defect.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from multimem_ray.config import LimitsConfig
from multimem_ray.design.group_table import read_groups
from multimem_ray.design.key_list import read_key_file, read_keys
from multimem_ray.embeddings.files import Place, array_file, key_blocks
from multimem_ray.errors import SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.decoder import decode_one
from multimem_ray.models.checkpoint import Midway, ModelFolder, Progress
from multimem_ray.run import load_run, recorded_config
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.held_out_stats import Embedded, EmbeddedParts, HeldOutStatistics
from multimem_ray.scoring.poison import CrashLog
from multimem_ray.setup import resolve
from multimem_ray.setup.yaml_text import parse
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage
from multimem_ray.store.markers import details, parse_marker
from multimem_ray.store.names import marker_name
from multimem_ray.store.parts import Part, TableParts
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


def _model(name: str, read: Callable[[ModelFolder], object]) -> Callable[[bytes, Path], object]:
    def read_file(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(ModelFolder(Storage(), str(folder), "f"))

    return read_file


def _resumed(folder: ModelFolder) -> object:
    model = torch.nn.Linear(2, 2)
    folder.steps()
    return folder.load_progress(model, torch.optim.AdamW(model.parameters()))


def _checkpoints() -> list[bytes]:
    seeds = []
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    midway = Midway(3, 2, "k", torch.tensor([1, 2]), torch.ones(2), torch.zeros(2) > 0)
    with tempfile.TemporaryDirectory() as name:
        folder = ModelFolder(Storage(), name, "f")
        for progress in (Progress(1, 2, (1024.0, 3)), Progress(1, 2, None, None, midway)):
            folder.save_progress(model, optimizer, progress)
            seeds.append(Path(name, "checkpoint.safetensors").read_bytes())
    return seeds


def _marker(data: bytes, folder: Path) -> object:
    path = folder / marker_name("a-1", "run", "source", 2, 0, 1)
    path.write_bytes(data)
    commit = parse_marker(str(path))
    assert commit is not None
    return details(Storage(), commit, shard=str, files=dict, rows=int)


_FAILURE = Failure("a.tar", "k", 1, "decode", "undecodable", "cut")


def _parts(data: bytes, folder: Path) -> object:
    (folder / "000000000-000000002.arrow").write_bytes(data)
    return TableParts(Storage(), str(folder)).read(["000000000-000000002.arrow"])


def _part_seeds() -> list[bytes]:
    table = pa.table({"key": ["a"], "multimem": [0.5]})
    return [TableParts(Storage(), "x").encoded(Part(0, 2, table, 0, [_FAILURE]))]


def _embedded(data: bytes, folder: Path) -> object:
    return EmbeddedParts(Storage(), str(folder)).decoded(data)


def _embedded_seeds() -> list[bytes]:
    part = Part(0, 1, Embedded.nothing(2, 2, 4), 0, [_FAILURE])
    return [EmbeddedParts(Storage(), "x").encoded(part)]


def _means(data: bytes, folder: Path) -> object:
    del folder
    return HeldOutStatistics.from_bytes(data)


def _mean_seeds() -> list[bytes]:
    means = torch.ones(2, 2, 4, dtype=torch.float64)
    return [HeldOutStatistics(means).to_bytes()]


def _attempt(data: bytes, folder: Path) -> object:
    (folder / "attempt.json").write_bytes(data)
    return CrashLog.load(TableParts(Storage(), str(folder))).size(3, 8)


def _attempts() -> list[bytes]:
    notes = CrashLog(2, "decode", 3, 4, 1, [(3, 9)], {5: "score"})
    return [json.dumps(asdict(notes)).encode()]


TARGETS = {
    "marker": Target(
        cache(lambda: [json.dumps({"shard": "a", "rows": 2, "files": {"a": "0"}}).encode()]),
        _marker,
    ),
    "part": Target(cache(_part_seeds), _parts),
    "held-out part": Target(cache(_embedded_seeds), _embedded),
    "means": Target(cache(_mean_seeds), _means),
    "attempt": Target(cache(_attempts), _attempt),
    "checkpoint": Target(cache(_checkpoints), _model("checkpoint.safetensors", _resumed)),
    "history": Target(
        cache(lambda: [b'{"epoch": 0, "step": 2}\n{"epoch": 1, "step": 4}\n']),
        _model("history.jsonl", lambda folder: (folder.history(), folder.steps())),
    ),
    "done": Target(cache(lambda: [b"f", b"g"]), _model("DONE", lambda folder: folder.is_done())),
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
