"""The benchmark measures every part, on the demo's shards or on those it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import bench
from multimem_ray.demo.dataset import FIELDS, make_demo_shards
from multimem_ray.errors import ShardNotFoundError


def test_every_part_has_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "DEMO_SAMPLES", 6)
    rates = {rate.part: rate for rate in bench.measure([], tmp_path)}
    for name in FIELDS:
        assert rates[f"decode {name}"].unit == "samples/s"
        assert rates[f"view of {name}"].unit == "views/s"
    assert rates["read a shard"].unit == "MB/s"
    assert all(rate.value > 0 for rate in rates.values())


def test_shards_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = make_demo_shards(tmp_path, samples=4, shards=1)
    bench.main([str(shards[0])])
    shown = capsys.readouterr().out
    assert "decode video" in shown
    assert "make the demo" not in shown


def test_no_shards_is_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(ShardNotFoundError, match="nowhere"):
        bench.main([str(tmp_path / "nowhere.tar")])
