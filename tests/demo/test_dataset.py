"""The demo's shards: what is in them, that they decode, and that the seed decides every byte."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import webdataset
from PIL import Image

from multimem_ray.demo.dataset import FIELDS, LABEL, make_demo_shards, make_sample
from multimem_ray.demo.scene import CHOICES
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import find_fields
from multimem_ray.sample import Sample
from multimem_ray.shards.plant import plant
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_demo_shards(tmp_path_factory.mktemp("demo"), samples=30, shards=4, seed=3)


def read(paths: list[Path]) -> list[dict[str, bytes]]:
    return list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))


def test_every_sample_is_written_once_with_all_its_members(shards: list[Path]) -> None:
    samples = read(shards)
    assert [path.name for path in shards] == [f"demo-{n:06d}.tar" for n in range(4)]
    assert [sample["__key__"] for sample in samples] == [f"scene-{n:06d}" for n in range(30)]
    for sample in samples:
        assert {name for name in sample if not name.startswith("__")} == {*FIELDS.values(), "json"}


def test_samples_are_spread_evenly(shards: list[Path]) -> None:
    assert [len(read([path])) for path in shards] == [7, 8, 7, 8]


def test_media_decode_to_something_that_is_not_blank(shards: list[Path]) -> None:
    for sample in read(shards):
        image = Image.open(io.BytesIO(sample["jpg"]))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (96, 96))
        assert np.asarray(image).std() > 5
        wave, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert (rate, wave.shape) == (8000, (8000,))
        assert 0.2 < np.abs(wave).max() < 1
        with av.open(io.BytesIO(sample["mp4"])) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.asarray(frames).shape == (8, 64, 64, 3)
        assert np.asarray(frames).std() > 5
        assert np.abs(frames[0].astype(int) - frames[5]).max() > 20, "nothing moves"
        assert 8 <= len(sample["txt"].decode().split()) <= 32


def test_captions_are_all_different(shards: list[Path]) -> None:
    captions = [sample["txt"] for sample in read(shards)]
    assert len(set(captions)) == len(captions)


def test_json_names_class_and_scene(shards: list[Path]) -> None:
    for sample in read(shards):
        about = json.loads(sample["json"])
        assert about["class_label"] == about["scene"]["ground"]
        assert set(about["seen"]) == set(FIELDS)
        for view in (about["scene"], *about["seen"].values()):
            assert all(view[name] in values for name, values in CHOICES.items())


def test_same_seed_gives_the_same_bytes(shards: list[Path], tmp_path: Path) -> None:
    again = make_demo_shards(tmp_path / "new" / "folder", samples=30, shards=4, seed=3)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in shards]
    with tarfile.open(again[0]) as archive:
        assert {member.mtime for member in archive} == {0}


def test_a_sample_depends_on_seed_and_index_alone(shards: list[Path], tmp_path: Path) -> None:
    few = read(make_demo_shards(tmp_path, samples=5, shards=1, seed=3))
    for mine, theirs in zip(few, read(shards), strict=False):
        names = ("__key__", *FIELDS.values(), "json")
        assert [mine[name] for name in names] == [theirs[name] for name in names]


def test_video_bytes_do_not_depend_on_what_memory_held_before() -> None:
    """Encoders may read what they never wrote: this one did, with x264's macroblock tree."""
    rng = np.random.default_rng(0)
    first = make_sample(3, 4)["mp4"]
    junk: list[bytes] = []
    for _ in range(20):
        junk.append(rng.bytes(int(rng.integers(100, 60_000))))
        del junk[: int(rng.integers(2))]
        assert make_sample(3, 4)["mp4"] == first


@pytest.mark.parametrize("other", [(3, 1), (4, 0)])
def test_another_index_or_seed_is_another_sample(other: tuple[int, int]) -> None:
    one, two = make_sample(3, 0), make_sample(*other)
    assert all(one[extension] != two[extension] for extension in one)


def test_noise_decides_how_often_modalities_disagree() -> None:
    def disagreements(noise: float) -> float:
        wrong = []
        for index in range(25):
            about = json.loads(make_sample(0, index, noise)["json"])
            for view in about["seen"].values():
                wrong += [view[name] != about["scene"][name] for name in CHOICES]
        return float(np.mean(wrong))

    # 700 readings; wrong with noise * mean((k - 1) / k) over the attributes' k values = 0.81
    assert disagreements(0.0) == 0
    assert disagreements(0.5) == pytest.approx(0.40, abs=0.08)


def test_progress_counts_to_the_number_of_samples(tmp_path: Path) -> None:
    seen: list[int] = []
    make_demo_shards(tmp_path, samples=6, shards=2, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"samples": 3, "shards": 4}, "shards"), ({"shards": 0}, "shards"), ({"noise": 1.5}, "noise")],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, wrong: dict[str, float], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        make_demo_shards(tmp_path, **wrong)


def test_an_audit_finds_four_modalities_and_can_decode_them(shards: list[Path]) -> None:
    samples = list(read_shard(str(shards[0]), Storage()))
    assert all(isinstance(sample, Sample) for sample in samples)
    fields = find_fields([sample for sample in samples if isinstance(sample, Sample)])
    assert fields == FIELDS
    decoder = Decoder(fields)
    for sample in samples:
        assert isinstance(sample, Sample)
        assert sample.field(LABEL) in CHOICES["ground"]
        assert set(decoder.decode(sample)) == set(FIELDS)


def test_misalignment_can_be_planted(shards: list[Path], tmp_path: Path) -> None:
    report = plant(
        str(shards[0].parent), str(tmp_path), fraction=0.2, fields=FIELDS, label=LABEL, seed=1
    )
    assert (report.samples, report.planted, report.failures) == (30, 6, [])
