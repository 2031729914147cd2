"""Samples that a file is like, among re-encodings of pictures that a run has."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import multimem_ray as mm
from multimem_ray.cli import app
from multimem_ray.errors import ConfigError, DecodeError
from multimem_ray.lookup.similar import similar
from multimem_ray.shards.writer import ShardWriter
from tests.results.fake_run import fake_run
from tests.small import QUIET, small_config

SAMPLES = 24


def picture(number: int) -> Image.Image:
    """A few coloured boxes, others for each number."""
    rng = np.random.default_rng(number)
    pixels = np.full((48, 48, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(5):
        x, y, w, h = (*rng.integers(0, 40, 2), *rng.integers(8, 30, 2))
        pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small audit whose samples were embedded."""
    folder = tmp_path_factory.mktemp("similar")
    with ShardWriter(str(folder / "shards"), max_samples=12) as writer:
        for number in range(SAMPLES):
            data = io.BytesIO()
            picture(number).save(data, "PNG")
            text = f"picture number {number} of {SAMPLES}"
            writer.write(f"p{number:02d}", {"png": data.getvalue(), "txt": text.encode()})
    config = small_config(
        folder / "shards",
        folder / "out",
        "model.dim=32",
        "model.towers={image: {width: 8}}",
        "modalities={image: {size: 32}}",
        "design.models=2",
    )
    mm.audit(config, QUIET, executor="local")
    mm.embed(config, QUIET, executor="local")
    return folder


def encoded(number: int, folder: Path, kind: str, **options: object) -> str:
    path = folder / f"again-{number}.{kind}"
    again = picture(number)
    if kind != "png":
        again = again.resize((64, 64), Image.Resampling.BICUBIC)
    again.convert("RGB").save(path, **options)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "options"), [("jpg", {"quality": 60}), ("webp", {"quality": 50}), ("png", {})]
)
def test_a_re_encoded_picture_finds_its_sample(
    embedded: Path, tmp_path: Path, kind: str, options: dict[str, object]
) -> None:
    first = []
    for number in range(0, SAMPLES, 3):
        file = encoded(number, tmp_path, kind, **options)
        told = similar(str(embedded / "out"), file, n=3, progress=QUIET)
        assert len(told.matches) == 3
        likes = [match["similarity"] for match in told.matches]
        assert likes == sorted(likes, reverse=True)
        assert likes[0] <= 1 + 1e-5
        first.append(told.matches[0]["key"] == f"p{number:02d}")
    assert all(first)


def test_the_answer_has_what_is_known_of_each(embedded: Path, tmp_path: Path) -> None:
    output, file = str(embedded / "out"), encoded(3, tmp_path, "jpg")
    told = similar(output, file, n=SAMPLES, progress=QUIET)
    states = {match["key"]: match["state"] for match in told.matches}
    assert len(states) == SAMPLES
    assert set(states.values()) == {"scored", "held_out"}
    plain = mm.lookup(output, ["p03"]).matches[0]
    (own,) = (match for match in told.matches if match["key"] == "p03")
    assert {k: v for k, v in own.items() if k not in {"query", "similarity"}} == {
        k: v for k, v in plain.items() if k != "query"
    }
    assert f"of {SAMPLES} samples half are less like it" in told.notes[0]
    assert similar(output, file, n=SAMPLES, progress=QUIET).matches == told.matches


def test_a_run_that_was_moved_answers_and_another_model_too(embedded: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(embedded / "out", moved)
    file = encoded(6, tmp_path, "jpg")
    told = similar(str(moved), file, model="001", n=1, progress=QUIET)
    assert told.matches[0]["key"] == "p06"
    assert "under model 001" in told.notes[0]


def test_the_command_shows_the_nearest(embedded: Path, tmp_path: Path) -> None:
    output, file = str(embedded / "out"), encoded(9, tmp_path, "jpg")
    shown = CliRunner().invoke(app, ["lookup", output, "--like", file, "-n", "2"])
    assert shown.exit_code == 0, shown.output
    assert "p09" in shown.output
    assert "less like it than" in shown.output
    told = CliRunner().invoke(app, ["lookup", output, "--like", file, "--json", "-n", "2"])
    assert json.loads(told.stdout)["matches"][0]["key"] == "p09"
    both = CliRunner().invoke(app, ["lookup", output, "p09", "--like", file])
    assert isinstance(both.exception, ConfigError)


def test_what_is_missing_is_said(embedded: Path, tmp_path: Path) -> None:
    output, file = str(embedded / "out"), encoded(0, tmp_path, "jpg")
    with pytest.raises(ConfigError, match=r"no embeddings of its samples.*multimem embed"):
        similar(fake_run(tmp_path).output, file)
    with pytest.raises(ConfigError, match="give --modality"):
        similar(output, str(tmp_path / "a.flac"))
    with pytest.raises(ConfigError, match="--modality audio: the run has image, text"):
        similar(output, file, modality="audio")
    with pytest.raises(ConfigError, match="--model 007: the run has 000, 001"):
        similar(output, file, model="007")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DecodeError):
        similar(output, str(broken), progress=QUIET)
    without = tmp_path / "without"
    shutil.copytree(embedded / "out", without, ignore=shutil.ignore_patterns("models"))
    with pytest.raises(ConfigError, match="none of its models is there"):
        similar(str(without), file, progress=QUIET)
