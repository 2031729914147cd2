"""Views of strength 0 are the clean input, through training and scoring, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from torch import Tensor

from multimem_ray.demo.dataset import make_sample
from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.writer import ShardWriter
from tests.small import scored, trained

# Every part of every view, at its strongest.
WILD = {
    "audio": {"sample_rate": 11025, "seconds": 0.4, "shift": 2, "gain_db": 30, "snr_db": [-5, 0]}
    | {"mask_time": 0.5, "mask_frequency": 0.5},
    "image": {"crop_scale": 0.1, "brightness": 1, "contrast": 1, "saturation": 1, "flip": 1},
    "video": {"frames": 4, "oversize": 2, "crop_time": 0.1},
    "text": {"dropout": 0.9},
}
GEOMETRY = {
    "audio": {"sample_rate": 11025, "seconds": 0.4, "shift": 2},
    "video": {"frames": 4, "oversize": 2},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("strength")
    with ShardWriter(str(folder)) as writer:
        for index in range(40):
            made = make_sample(3, index)
            text = made.pop("txt").decode()
            about = json.loads(made["json"]) | {"captions": [text, f"another {text}", "a third"]}
            writer.write(f"s{index:03d}", made | {"json": json.dumps(about).encode()})
    return sorted(folder.glob("*.tar"))


def audited(shards: list[Path], output: Path, modalities: dict[str, object]) -> pa.Table:
    """Scores of an audit of a single epoch, in which each visit to a sample is another view."""
    raw = {
        "output": str(output),
        "data": {"shards": [str(shard) for shard in shards]},
        "held_out": {"fraction": 0.3},
        "design": {"models": 2},
        "model": {"preset": "tiny"},
        "modalities": modalities,
        "training": {"epochs": 1, "batch_size": 8},
        "scoring": {"views": 4},
        "resources": {"cache_dir": str(output.parent / "cache")},
    }
    run, _ = inspect(resolve(raw))
    assert run.modalities == ("audio", "image", "text", "video")
    trained(run)
    return scored(run)


def clean_views(self: Decoder, name: str, batch: DecodedBatch, part: slice = slice(None)) -> Tensor:
    """As many times what a modality gives without any draws."""
    clean = self._by_name[name].views(batch.arrays[name].rows(part), None)
    return clean.expand(-1, batch.views, *[-1] * (clean.ndim - 2))


def test_strength_zero_gives_exactly_the_clean_scores(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = {name: settings | {"strength": 0} for name, settings in WILD.items()}
    zero = audited(shards, tmp_path / "still", still)
    moved = audited(shards, tmp_path / "wild", WILD)
    monkeypatch.setattr(Decoder, "views_of", clean_views)
    clean = audited(shards, tmp_path / "clean", GEOMETRY)
    assert clean.num_rows > 20
    assert zero.equals(clean)
    difference = moved["multimem"].to_numpy() - clean["multimem"].to_numpy()
    assert np.abs(difference).min() > 0, "the test must see that the views were on"
