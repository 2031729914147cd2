"""Views of strength 0 are the clean input, through training and scoring, to the last bit."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from multimem_ray.demo.dataset import make_sample
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.run import Run, Shards
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from tests.trial import CPU, score, trial_run

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


def run_of(shards: list[Path], output: Path, modalities: dict[str, object]) -> tuple[Run, Shards]:
    sets = [f"modalities={json.dumps(modalities)}", "held_out.fraction=0.3", "scoring.views=4"]
    return trial_run(shards, output, "tiny", *sets)


def train_on_views(run: Run, shards: Shards) -> None:
    """As the trainer does: each visit to a sample is another view."""
    bank = Bank(run, run.design.model_ids(), CPU, 1)
    prepared = [
        (run.decoder.views(s.key, s.arrays, 0, visit, "train"), members, 0.0)
        for visit, s in enumerate(islice(training_samples(run, shards.scored[0]), 30))
        for members in [run.design.members([s.group])[0].tolist()]
    ]
    bank.train_epoch(0, prepared)
    bank.finish()


def test_strength_zero_gives_exactly_the_clean_scores(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = {name: settings | {"strength": 0} for name, settings in WILD.items()}
    run, found = run_of(shards, tmp_path / "still", still)
    assert run.modalities == ("audio", "image", "text", "video")
    train_on_views(run, found)
    zero = score(run, found).scores
    run, found = run_of(shards, tmp_path / "wild", WILD)
    train_on_views(run, found)
    moved = score(run, found).scores
    run, found = run_of(shards, tmp_path / "clean", GEOMETRY)
    monkeypatch.setattr(
        Decoder, "views", lambda self, key, decoded, *_args, **_more: self.clean(decoded)
    )
    train_on_views(run, found)
    clean = score(run, found).scores
    assert clean.num_rows > 20
    assert zero.equals(clean)
    difference = moved["multimem"].to_numpy() - clean["multimem"].to_numpy()
    assert np.abs(difference).min() > 0, "the test must see that the views were on"
