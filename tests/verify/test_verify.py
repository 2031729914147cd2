"""A run is clean as it was written, and each kind of damage is told with the file and a way out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from multimem_ray.audit import embed, report
from multimem_ray.cli import app
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from multimem_ray.verify.finding import Finding
from multimem_ray.verify.verify import verify
from tests.s3 import S3Server
from tests.small import QUIET, members, scored, small_run, trained


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an error in one shard, and its embeddings."""
    folder = tmp_path_factory.mktemp("audited")
    with ShardWriter(str(folder / "shards"), max_samples=20) as writer:
        for number in range(39):
            writer.write(f"s{number:04d}", members(number))
        writer.write("alone", {"txt": b"nothing beside it"})
    run, _ = small_run(folder, "training.epochs=1")
    trained(run)
    scored(run)
    report(run.config, QUIET)
    embed(run.config, QUIET, executor="local")
    return Path(run.output)


@pytest.fixture
def run(audited: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(audited, tmp_path / "run")


def found(output: Path | str, *, deep: bool = False) -> Finding:
    return verify(str(output), progress=QUIET, deep=deep)


def one(folder: Path, pattern: str) -> Path:
    return min(folder.glob(pattern))


def test_what_was_written_is_clean(run: Path) -> None:
    finding = found(run, deep=True)
    assert finding.lines()[:-1] == []
    assert finding.checked["samples"] == 40
    assert finding.checked["models"] == 2
    assert finding.checked["shards"] == 4, "two of the scores, two of the embeddings"
    assert finding.checked["files by SHA-256"] == finding.checked["files"] > 5
    assert finding.as_json()["clean"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def _foreign(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.replace_schema_metadata({"multimem_ray": "0" * 16}), path)


def _fewer(path: Path) -> None:
    pq.write_table(pq.read_table(path, partitioning=None)[1:], path)


def _twice(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.take([0, *range(table.num_rows - 1)]), path)


def _edited(**values: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


def _garbled(path: Path) -> None:
    path.write_text('{"a": ')


def _nan(path: Path) -> None:
    arrays = load_file(path)
    name = min(n for n, a in arrays.items() if a.dtype.kind == "f")
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, path)


def _stray(path: Path) -> None:
    shutil.copy(path, path.with_name("stray-0123.parquet"))


SCORES, ERRORS = "scores/*/*.parquet", "errors/*/*.parquet"
SCORE_AGAIN = "remove .*commits/.* and run `multimem score` again"
FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a lost file": (SCORES, Path.unlink, f"committed, and not there; {SCORE_AGAIN}"),
    "a cut file": (SCORES, _cut, f"cannot be read as Parquet .*; {SCORE_AGAIN}"),
    "a foreign file": (SCORES, _foreign, f"written by run 0000000000000000; {SCORE_AGAIN}"),
    "fewer rows": (SCORES, _fewer, f"rows where .* were committed; {SCORE_AGAIN}"),
    "a key twice": (SCORES, _twice, f"is scored twice; {SCORE_AGAIN}"),
    "fewer errors": (ERRORS, _fewer, f"0 rows where 1 were committed; {SCORE_AGAIN}"),
    "a lost error": (ERRORS, Path.unlink, "committed, and not there"),
    "a stray file": (SCORES, _stray, "no marker names it; remove it"),
    "a garbled marker": ("commits/*", _garbled, f"damaged .*; {SCORE_AGAIN}"),
    "a marker of other rows": ("commits/*", _edited(rows=7), "tells of another commit"),
    "a cut model": ("models/*/model.safetensors", _cut, "bytes, where its header says .*train"),
    "an unfinished model": ("models/*/DONE", Path.unlink, "not complete, .*`multimem train` again"),
    "a garbled history": ("models/*/history.jsonl", _garbled, "history.jsonl: .*multimem train"),
    "a garbled configuration": ("models/*/config.json", _garbled, "config.json: damaged"),
    "a lost held-out set": ("held_out/held_out.json", Path.unlink, "absent, .*remove held_out/"),
    "a foreign held-out set": ("held_out/held_out.json", _edited(fingerprint="x"), "of another"),
    "means of nothing": ("held_out/means*.safetensors", _nan, "NaN or infinite"),
    "a cut plan": ("held_out/keys.parquet", _cut, "keys.parquet: .*remove held_out/"),
    "another configuration": ("run.json", _edited(shard_set="0"), "its fingerprint .* is not"),
    "a garbled run.json": ("run.json", _garbled, "run.json: damaged .*restore it from a copy"),
    "a later format": ("run.json", _edited(format=99), "format 99, .*upgrade it"),
    "a garbled summary": ("summary.json", _garbled, "damaged .*`multimem report` again"),
    "lost embeddings": ("embeddings/model=*/*/*.parquet", Path.unlink, "`multimem embed` again"),
    "cut embeddings": ("embeddings/model=*/*/*.parquet", _cut, "cannot be read as embeddings"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_with_the_file_and_the_way_out(name: str, run: Path) -> None:
    pattern, damage, said = FAULTS[name]
    damage(one(run, pattern))
    finding = found(run)
    assert any(re.search(said, fault.what) for fault in finding.faults), finding.lines()
    assert all("\n" not in fault.what for fault in finding.faults)


@pytest.mark.parametrize("pattern", [SCORES, ERRORS, "embeddings/model=*/*/*.parquet"])
def test_a_bit_is_found_by_its_digest(pattern: str, run: Path) -> None:
    _flip(one(run, pattern))
    said = [fault.what for fault in found(run, deep=True).faults]
    assert any("its SHA-256 is not that of the marker" in what for what in said), said


def test_weights_that_are_no_numbers_are_found(run: Path) -> None:
    _nan(one(run, "models/*/model.safetensors"))
    assert not found(run).faults
    assert "NaN or infinite" in found(run, deep=True).faults[0].what


def test_what_is_not_scored_yet_is_no_fault(run: Path) -> None:
    one(run, "commits/*").unlink()
    finding = found(run)
    assert not finding.faults
    assert finding.notes == ["1 of 2 shards are not scored yet"]


def test_the_command(run: Path) -> None:
    clean = CliRunner().invoke(app, ["verify", str(run), "--deep", "--json"])
    assert clean.exit_code == 0
    assert json.loads(clean.stdout)["faults"] == []
    _cut(one(run, SCORES))
    faulty = CliRunner().invoke(app, ["verify", str(run)])
    assert faulty.exit_code == 1
    assert "1 faults" in faulty.stdout


def test_a_run_on_s3(run: Path, s3_server: S3Server) -> None:
    bucket, storage = s3_server.bucket(), s3_server.storage
    for path in run.rglob("*"):
        if path.is_file():
            storage.write_atomic(f"{bucket}/run/{path.relative_to(run)}", path.read_bytes())
    finding = verify(f"{bucket}/run", storage, QUIET, deep=True)
    assert not finding.faults, finding.lines()
    lost = storage.list(f"{bucket}/run/scores")[0].url
    storage.remove(lost)
    assert verify(f"{bucket}/run", storage, QUIET).faults[0].file == lost


def test_nothing_there(tmp_path: Path) -> None:
    assert "no run there" in verify(str(tmp_path), Storage(), QUIET).faults[0].what
