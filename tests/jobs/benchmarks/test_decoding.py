"""Decoding is compared with the bare decoders of every modality."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmarks import decoding
from jobs.benchmarks.decoding import BARE, RATE
from jobs.benchmarks.thresholds import load_thresholds
from multimem_ray.demo.dataset import FIELDS, make_demo_shards
from multimem_ray.errors import ShardNotFoundError


def test_every_modality_stands_beside_its_bare_decoders(tmp_path: Path) -> None:
    make_demo_shards(tmp_path, samples=5, shards=1)
    options = decoding.Options((str(tmp_path / "*.tar"),), samples=5, repeats=2)
    rows = decoding.measure(options, tmp_path).rows
    assert min(rows["read a shard"]["MB/s"]) > 0
    for name in FIELDS:
        assert min(rows[f"{name}: ours"][RATE] + rows[f"{name}: a view"][RATE]) > 0
        for bare in BARE[name]:
            assert len(rows[f"{name}: {bare}"]["our rate by it"]) == 2
    assert load_thresholds()["decoding"].keys() <= rows.keys()


def test_no_shards_is_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(ShardNotFoundError, match="nowhere"):
        decoding.measure(decoding.Options((str(tmp_path / "nowhere.tar"),)), tmp_path)
