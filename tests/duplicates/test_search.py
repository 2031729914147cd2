"""From shards or stored embeddings to the table of groups."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import multimem_ray as mm
from multimem_ray.cli import app
from multimem_ray.demo.picture import draw_image
from multimem_ray.demo.scene import draw_scene
from multimem_ray.demo.sound import play
from multimem_ray.design.group_table import read_groups
from multimem_ray.duplicates.search import duplicates
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.setup import open_run, resolve
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage

SAMPLES = 120


def cropped(jpeg: bytes) -> bytes:
    """Nine tenths of each side, as WebP."""
    target = io.BytesIO()
    picture = Image.open(io.BytesIO(jpeg))
    width, height = picture.size
    picture.crop((width // 10, 0, width, height * 9 // 10)).save(target, "WEBP", quality=60)
    return target.getvalue()


def shortened(flac: bytes) -> bytes:
    """Without its first fifteenth, at half the loudness, as Vorbis."""
    values, rate = soundfile.read(io.BytesIO(flac))
    target = io.BytesIO()
    soundfile.write(target, values[len(values) // 15 :] / 2, rate, format="OGG")
    return target.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Demo samples, every sixth of them a second time, cropped and encoded again."""
    folder, storage = tmp_path_factory.mktemp("near"), Storage()
    rng = np.random.default_rng(5)
    scenes = [draw_scene(rng) for _ in range(SAMPLES)]
    samples = [{"jpg": draw_image(s, rng), "flac": play(s, rng), "txt": b"a scene"} for s in scenes]
    with create_shard(str(folder / "a.tar"), storage) as shard:
        for index, sample in enumerate(samples):
            shard.write(f"{index:03d}", sample)
        shard.write("broken", {"jpg": b"no picture", "flac": samples[0]["flac"]})
    with create_shard(str(folder / "b.tar"), storage) as shard:
        for index in range(0, SAMPLES, 6):
            sample = samples[index]
            copy = {"webp": cropped(sample["jpg"]), "ogg": shortened(sample["flac"])}
            shard.write(f"{index:03d}", {**copy, "txt": sample["txt"]})
    return f"{folder}/*.tar"


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def test_crops_and_re_encodings_are_found_by_looks(shards: str, tmp_path: Path) -> None:
    made = duplicates(shards, str(tmp_path / "groups.parquet"), quiet())
    assert (made.compared, made.unread) == (SAMPLES + SAMPLES // 6, 1)
    table = read_groups(made.url, Storage())
    alike = [table.group(f"{n:03d}", "a.tar") for n in range(0, SAMPLES, 6)]
    assert alike == [table.group(f"{n:03d}", "b.tar") for n in range(0, SAMPLES, 6)]
    assert None not in alike
    assert (made.groups, made.samples, made.largest) == (20, 40, 2)
    again = duplicates(shards, str(tmp_path / "again.parquet"), quiet())
    assert read_groups(again.url, Storage()).digest() == table.digest()


def test_the_command_shows_what_other_thresholds_do(shards: str, tmp_path: Path) -> None:
    out = str(tmp_path / "g.parquet")
    told = CliRunner().invoke(app, ["duplicates", shards, "--out", out, "--modality", "image"])
    assert told.exit_code == 0, told.output
    assert "→ 0.95" in told.stdout
    assert "0.9875" in told.stdout
    assert f"design.group={out}" in told.stdout
    as_json = CliRunner().invoke(app, ["duplicates", shards, "--out", out, "--json"])
    found = json.loads(as_json.stdout)
    assert [e["threshold"] for e in found["effects"]] == [0.9, 0.925, 0.95, 0.9625, 0.975, 0.9875]
    assert all(
        a["pairs"] >= b["pairs"]
        for a, b in zip(found["effects"], found["effects"][1:], strict=False)
    )


def embeddings(folder: Path, shard: bool = True) -> str:
    """Two files of 200 vectors; the second repeats ten of the first nearly, five exactly."""
    rng = np.random.default_rng(2)
    values = rng.standard_normal((400, 32)).astype(np.float32)
    values[200:210] = values[:10] + 0.05
    values[210:215] = values[10]
    keys = [f"{n % 200}" if shard else f"{n}" for n in range(400)]
    for number, rows in enumerate((slice(0, 200), slice(200, 400))):
        columns = {"key": keys[rows], "image": list(values[rows])}
        if shard:
            columns["shard"] = [f"{number}.tar"] * 200
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return str(folder)


def test_stored_embeddings_are_compared_by_shard_and_key(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    made = mm.duplicates(embeddings(tmp_path / "e"), str(tmp_path / "g.parquet"), quiet())
    table = read_groups(made.url, Storage())
    assert (made.groups, made.samples, made.largest) == (11, 26, 6)
    for n in range(10):
        assert table.group(f"{n}", "0.tar") == table.group(f"{n}", "1.tar") is not None
    assert table.group("10", "0.tar") == table.group("14", "1.tar")
    (at,) = [effect for effect in made.effects if effect.threshold == 0.95]
    assert at.pairs == 10 + 6 * 5 // 2


def test_without_shards_the_key_alone_tells_and_groups_have_an_upper_size(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    files = embeddings(tmp_path / "e", shard=False)
    made = duplicates(files, str(tmp_path / "g.parquet"), quiet(), max_size=4)
    assert (made.largest, made.refused) == (4, 2)
    table = pq.read_table(made.url)
    assert table.column_names == ["key", "group"]
    assert b"multimem_ray.duplicates" in table.schema.metadata


def test_of_a_run_looks_come_first_and_its_embeddings_when_asked(
    shards: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    config = resolve({"output": str(output), "data": {"shards": shards}})
    open_run(config)
    made = duplicates(str(output), progress=quiet())
    assert made.url == str(output / "duplicates.parquet")
    assert made.modalities == ["audio", "image"]
    with pytest.raises(ConfigError, match="multimem embed"):
        duplicates(str(output), progress=quiet(), by="embeddings")
    (output / "embeddings/model=7").mkdir(parents=True)
    embeddings(output / "embeddings/model=7")
    manifest = json.dumps({"models": ["7"]}).encode()
    Storage().write_atomic(str(output / "embeddings/embeddings.json"), manifest)
    assert duplicates(str(output), progress=quiet(), by="embeddings").groups == 11
    with pytest.raises(ConfigError, match="no model 'x'; there are 7"):
        duplicates(str(output), progress=quiet(), model="x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"max_size": 1}, "at most 1"),
        ({"out": "groups.csv"}, "ends in .parquet"),
        ({"modalities": ["text"]}, "text can"),
        ({"by": "embeddings"}, "no Parquet"),
    ],
)
def test_what_cannot_be_done_is_told(
    shards: str, tmp_path: Path, options: dict[str, object], says: str
) -> None:
    given = {"out": str(tmp_path / "g.parquet"), **options}
    with pytest.raises(ConfigError, match=says):
        duplicates(shards, progress=quiet(), **given)  # type: ignore[arg-type]
    assert not (tmp_path / "g.parquet").exists()
