"""Files made to do harm: a row in errors/ or a bounded result, in little time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from multimem_ray.demo.dataset import make_sample
from multimem_ray.modalities.audio import Audio
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.store.commits import commit_log
from tests.modalities.hostile import CASES, SETTINGS, endless_flac
from tests.small import scored, trained

FIELDS = {"audio": "flac", "image": "jpg", "text": "txt", "video": "mp4"}
REFUSED = {
    "png 50,000 x 50,000": "too_large",
    "gif 65,535 x 65,535": "too_large",
    "wav without values": "empty",
    "wav of NaN": "undecodable",
    "wav at 1 Hz": "too_large",
    "flac of 10 hours": "too_large",
    "mp4 of 2^26 frames of 1 byte": "undecodable",
    "mp4 of one long group": "too_large",
    "mp4 of sound alone": "undecodable",
    "caption of 1 MB": "too_large",
}
USED = ("animated png", "gif under another name", "wav of 6 channels", "wav at 7 Hz")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, float, float]]:
    """Of every case: what came of it, CPU seconds, and MB that it took."""
    command = [sys.executable, "-m", "tests.modalities.hostile"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, f"died after {lines[-1:]}: {done.stderr[-500:]}"
    return {case: (outcome, spent, grown) for case, outcome, _, spent, grown in lines}


def test_none_ends_the_process(outcomes: dict[str, tuple[str, float, float]]) -> None:
    assert outcomes.keys() == CASES.keys()
    found = {outcome for outcome, *_ in outcomes.values()}
    assert found == {"fine", "too_large", "undecodable", "empty"}
    assert {case: outcomes[case][0] for case in REFUSED} == REFUSED
    assert all(outcomes[case][0] == "fine" for case in USED)


def test_none_takes_long_or_much(outcomes: dict[str, tuple[str, float, float]]) -> None:
    slow = {case: spent for case, (_, spent, _) in outcomes.items() if spent > 2}
    large = {case: grown for case, (_, _, grown) in outcomes.items() if grown > 300}
    assert not slow
    assert not large


def test_a_flac_without_end_is_read_in_the_middle_only() -> None:
    silent = Audio().decode(endless_flac())
    assert silent.shape == (9600,)
    assert not silent.any()


def test_a_shard_of_nothing_else_is_scored(tmp_path: Path) -> None:
    samples = list(_members())
    with ShardWriter(str(tmp_path / "in")) as writer:
        for index, members in enumerate(samples):
            writer.write(f"s{index:03d}", members)
    config = resolve(
        {
            "output": str(tmp_path / "out"),
            "data": {"shards": str(tmp_path / "in"), "fields": FIELDS},
            "held_out": {"fraction": 0.3},
            "design": {"models": 2},
            "training": {"epochs": 1, "batch_size": 8},
            "scoring": {"views": 2},
            "modalities": SETTINGS,
        }
    )
    run, _ = inspect(config)
    trained(run)
    assert np.isfinite(scored(run)["multimem"].to_numpy()).all()
    (commit,) = commit_log(run).load()
    assert commit.samples == len(samples)
    errors = (tmp_path / "out" / "errors").rglob("*.parquet")
    kinds = Counter(row["error"] for path in errors for row in pq.read_table(path).to_pylist())
    assert set(kinds) <= {"too_large", "undecodable", "empty"}
    assert kinds["too_large"] >= 4


def _members() -> Iterator[dict[str, bytes]]:
    """Good samples, and each hostile file in the place of a good sample's member."""
    for index in range(16):
        yield make_sample(0, index)
    for index, (name, make) in enumerate(CASES.values()):
        yield make_sample(1, index) | {FIELDS[name]: make()}
