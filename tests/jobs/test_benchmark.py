"""The benchmark measures every part and every side, on the demo's shards or on those given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs import benchmark, decoding, flatness, parts, sides
from multimem_ray.demo.dataset import FIELDS, make_demo_shards
from multimem_ray.errors import ShardNotFoundError
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.setup import inspect, load


def test_every_part_has_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "REPEATS", 1)
    shards = make_demo_shards(tmp_path, samples=6, shards=1)
    rates = {rate.part: rate for rate in parts.measure([str(shards[0])])}
    for name in FIELDS:
        assert rates[f"decode {name}"].unit == "samples/s"
        assert rates[f"view of {name}"].unit == "views/s"
    assert rates["read a shard"].unit == "MB/s"
    assert all(rate.value > 0 for rate in rates.values())
    assert "| decode video |" in benchmark.parts_table([vars(rate) for rate in rates.values()])


def test_decoding_is_compared_with_the_bare_decoders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_demo_shards(tmp_path, samples=5, shards=1)
    output = tmp_path / "found.json"
    options = ["--samples", "5", "--repeats", "2", "--json", str(output)]
    decoding.main([str(tmp_path / "*.tar"), *options])
    found = json.loads(output.read_text())
    assert {row["modality"] for row in found} == set(FIELDS)
    for row in found:
        assert row["samples"] == 5
        assert min(row["ours_ms"], row["bare_ms"], row["view_ms"]) > 0
        assert row["cost"] > 0
    assert "| video |" in capsys.readouterr().out


def test_without_sides_the_benchmark_ends_with_the_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "REPEATS", 1)
    monkeypatch.setattr(parts, "MOST_SAMPLES", 10)
    make_demo_shards(tmp_path, samples=4, shards=1)
    output = tmp_path / "found.json"
    benchmark.main([str(tmp_path / "*.tar"), "--sides", "", "--json", str(output)])
    assert json.loads(output.read_text()).keys() == {"machine", "options", "parts", "decoding"}
    assert "of bare" in capsys.readouterr().out


def test_no_shards_is_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(ShardNotFoundError, match="nowhere"):
        list(parts.measure([str(tmp_path / "nowhere.tar")]))


def prepared(folder: Path, *arguments: str) -> Path:
    shards = make_demo_shards(folder / "demo", samples=8, shards=1)
    options = benchmark._options([str(shards[0]), "--models", "2", "--samples", "24", *arguments])
    return benchmark.prepare(folder, [str(shards[0])], options)


def test_shards_are_repeated_to_size_and_modalities_chosen(tmp_path: Path) -> None:
    config = prepared(tmp_path, "--modalities", "audio,text")
    run, shards = inspect(load(config, []))
    assert run.modalities == ("audio", "text")
    assert len(shards.scored) == 3
    assert all(run.model_folder(model).is_done() for model in run.design.model_ids())


def test_the_bare_side_runs_all_samples(tmp_path: Path) -> None:
    config = prepared(tmp_path, "--modalities", "image,text")
    found = sides.run_side("bare", str(config), str(tmp_path / "out"), 1)
    assert found["samples"] == 24
    assert found["samples_per_s"] > 0
    assert found["first_s"] <= found["wall_s"]


def test_scoring_is_measured_against_held_out_sets_of_several_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flatness, "REPEATS", 1)
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    output = tmp_path / "found.json"
    few = ["--no-parts", "--sides", "", "--models", "2", "--modalities", "image,text"]
    sizes = ["--held-out", "10,5000", "--json", str(output)]
    benchmark.main([str(shards[0]), *few, *sizes])
    small, large = json.loads(output.read_text())["held_out"]
    assert (small["held_out"], large["held_out"]) == (10, 5000)
    assert 0 < small["consistency_ms"] < small["chunk_ms"]
    assert large["consistency_ms"] < 5 * small["consistency_ms"], "500 times the set"
    assert "| 5,000 |" in capsys.readouterr().out


def test_made_up_means_are_those_of_all_vectors(tmp_path: Path) -> None:
    run, _ = inspect(load(prepared(tmp_path, "--modalities", "image,text"), []))
    bank = ScoringBank(run, torch.device("cpu"))
    few, many = (flatness.means_of(run, bank, size) for size in (5, 10_000))
    assert few.shape == many.shape == (2, 2, bank.dim)
    assert many.norm(dim=-1).max() < 0.1 * few.norm(dim=-1).min()


def test_the_memory_of_two_sizes_is_compared() -> None:
    peaks = {
        100: {"python": 200_000_000, "ray::MapWorker": 10**9},
        2000: {"python": 210_000_000, "ray::MapWorker": 10**9, "gcs_server": 5 * 10**7},
    }
    table = flatness.memory_table(peaks)
    assert "| ray::MapWorker | 1,000 MB | 1,000 MB | 1.00 |" in table
    assert "| python (the driver is one) | 200 MB | 210 MB | 1.05 |" in table
    assert "| gcs_server | – | 50 MB | – |" in table


@pytest.mark.slow
def test_memory_is_watched_in_runs_of_two_sizes(tmp_path: Path) -> None:
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    result = tmp_path / "found.json"
    few = ["--no-parts", "--sides", "", "--models", "2", "--modalities", "image,text"]
    benchmark.main([str(shards[0]), *few, "--memory", "32,64", "--json", str(result)])
    peaks = json.loads(result.read_text())["memory"]
    assert peaks.keys() == {"32", "64"}
    assert all(any(title.startswith("ray::") for title in own) for own in peaks.values())


@pytest.mark.slow
def test_one_command_runs_every_side(tmp_path: Path) -> None:
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    result = tmp_path / "found.json"
    few = ["--models", "2", "--samples", "32", "--repeats", "1", "--modalities", "image,text"]
    benchmark.main([str(shards[0]), *few, "--no-parts", "--json", str(result)])
    found = json.loads(result.read_text())
    assert [run["side"] for run in found["sides"]] == list(sides.SIDES)
    assert all(run["samples"] == 32 for run in found["sides"])
    assert found["machine"]["cores"] >= 1


def test_the_table_compares_runs_of_the_same_turn() -> None:
    runs = [
        {
            "side": side,
            "samples_per_s": rate,
            "cpu_ms_per_sample": 1000 / rate,
            "first_s": 1.0,
            "peak_uss": 10**9,
        }
        for rate in (100.0, 50.0)
        for side, rate in (("bare", rate), ("ours", 0.9 * rate))
    ]
    assert "| ours | 68 | 0.90 | 16.67 ms | 1.11 | 1.0 s | 1.0 GB |" in benchmark.sides_table(runs)
