"""A fifth modality, in one file outside the package: from shards to the report."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import audit
from multimem_ray.demo.dataset import make_sample
from multimem_ray.demo.scene import COLOURS, GROUNDS, SHAPES
from multimem_ray.errors import DecodeError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Modality
from multimem_ray.progress import Progress
from multimem_ray.setup import resolve
from multimem_ray.shards.writer import ShardWriter

MODULE = "jobs.examples.sensor"
SAMPLES = 48
BROKEN = {"scene-000007": b"\x93NUMPY\x01\x00v", "scene-000020": b""}


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> Iterator[None]:
    """The modality is known for these tests alone."""
    before = dict(registry._KNOWN)
    registry.load_plugins([MODULE])
    yield
    registry._KNOWN.clear()
    registry._KNOWN.update(before)
    sys.modules.pop(MODULE)


def sensor(**settings: object) -> Modality:
    return registry.create("sensor", settings)


def npy(values: Any, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def series(about: dict[str, Any], seed: int) -> np.ndarray:
    """What three sensors record of a scene: its attributes are their frequencies."""
    scene, rng = about["scene"], np.random.default_rng(seed)
    time = np.arange(200 + seed % 50) / 100
    tones = [
        GROUNDS.index(scene["ground"]),
        SHAPES.index(scene["shape"]),
        COLOURS.index(scene["colour"]),
    ]
    clean = np.stack([9.81 + np.sin(2 * np.pi * (2 + tone) * time) for tone in tones])
    return (clean + 0.1 * rng.standard_normal(clean.shape)).astype(np.float64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensors")
    with ShardWriter(str(folder), max_samples=SAMPLES // 2) as writer:
        for index in range(SAMPLES):
            made = make_sample(0, index)
            key = f"scene-{index:06d}"
            whole = npy(series(json.loads(made["json"]), index))
            kept = {name: made[name] for name in ("jpg", "txt", "json")}
            writer.write(key, kept | {"npy": BROKEN.get(key, whole)})
    return folder


def test_a_fifth_modality_from_shards_to_report(
    shards: Path, tmp_path: Path, ray_session: Any
) -> None:
    config = resolve(
        {
            "output": str(tmp_path / "out"),
            "data": {"shards": str(shards), "plugins": [MODULE]},
            "held_out": {"fraction": 0.25},
            "design": {"models": 2},
            "training": {"epochs": 2, "batch_size": 8},
            "scoring": {"views": 2, "partitions": 2},
            "modalities": {"sensor": {"length": 128}},
            "resources": {"cache_dir": str(tmp_path / "cache")},
            "report": {"top": 8},
        }
    )
    summary = audit(config, Progress(Console(file=io.StringIO())))
    output = Path(config.output)
    assert json.loads((output / "run.json").read_text())["fields"]["sensor"] == "npy"
    rows = [r for p in output.glob("scores/*/*.parquet") for r in pq.read_table(p).to_pylist()]
    errors = [r for p in output.glob("errors/*/*.parquet") for r in pq.read_table(p).to_pylist()]
    held_out = json.loads((output / "held_out" / "held_out.json").read_text())
    assert {row["key"] for row in errors} == set(BROKEN)
    assert all("sensor: " in row["detail"] and row["stage"] == "decode" for row in errors)
    assert len(rows) + len(errors) + held_out["keys_seen"] == SAMPLES
    for row in rows:
        assert row["modalities"] == ["image", "sensor", "text"]
        pairs = [row[f"pair_{a}_{b}"] for a, b in combinations(row["modalities"], 2)]
        shares = [row[f"attribution_{name}"] for name in row["modalities"]]
        assert np.isfinite([*pairs, *shares]).all()
        assert sum(shares) == pytest.approx(row["multimem"], abs=1e-5)
    assert np.std([row["pair_sensor_text"] for row in rows]) > 0
    assert "sensor" in {row["modality"] for row in summary["attribution"]}
    page = (output / "report.html").read_text()
    drawn = re.findall(r'<img class="picture"[^>]*alt="the sample\'s sensor"', page)
    assert len(drawn) >= 8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no array", "magic"),
        (npy(np.zeros((3, 9)))[:-5], "cannot be decoded"),
        (npy(np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True), "not of real numbers"),
        (npy(np.zeros((3, 5), dtype=complex)), "complex128"),
        (npy(np.array(["a", "b", "c"])), "<U1"),
        (npy(np.zeros(3, dtype=[("x", float)])), "not of real numbers"),
        (npy(np.zeros((3, 4), dtype="m8[s]")), "not of real numbers"),
        (npy(np.zeros((2, 9))), r"shape \(2, 9\), expected \(3, values\): see modalities.sensor"),
        (npy(np.zeros(9)), r"shape \(9,\)"),
        (npy(np.float64(3)), r"shape \(\)"),
        (npy(np.zeros((3, 0))), "no value"),
        (npy(np.full((3, 4), np.nan)), "not finite"),
        (npy(np.full((3, 4), 1e300)), "not finite"),
        (npy(np.zeros((3, 4))).replace(b"(3, 4)", b"(3, -4)"), "sensor"),
        ("a word of the JSON", "expected the bytes of a file"),
    ],
)
def test_what_is_no_series_says_why(data: object, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        sensor().decode(data)


def test_a_header_that_promises_too_much_is_not_believed() -> None:
    bomb = npy(np.zeros((3, 4))).replace(b"(3, 4), }           ", b"(3, 900000000000), }")
    with pytest.raises(DecodeError, match=r"above the limit modalities\.sensor\.max_values") as got:
        sensor().decode(bomb)
    assert got.value.kind == "too_large"
    long = npy(np.zeros((3, 4))).replace(b"(3, 4), }           ", b"(3, 900000), }      ")
    with pytest.raises(DecodeError, match="sensor"):
        sensor().decode(long)


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i1", ">i4", "u2", "u8", "g"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_number(dtype: str, order: str) -> None:
    values = np.arange(12).reshape(3, 4)
    decoded = sensor().decode(npy(np.asarray(values, dtype=dtype, order=order)))  # type: ignore[call-overload]
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, values)


def test_views_shift_and_scale_and_strength_zero_is_clean() -> None:
    decoded = sensor().decode(npy(np.random.default_rng(0).normal(size=(3, 300))))
    moved = sensor(length=100)
    clean = moved.view(decoded, None)
    np.testing.assert_array_equal(clean, decoded[:, 100:200])
    views = {moved.view(decoded, np.random.default_rng(i)).tobytes() for i in range(20)}
    assert len(views) == 20
    still = sensor(length=100, strength=0.0)
    np.testing.assert_array_equal(still.view(decoded, np.random.default_rng(0)), clean)
    short = sensor(length=400).view(decoded, None)
    np.testing.assert_array_equal(short[:, 50:350], decoded)
    assert not short[:, :50].any()
