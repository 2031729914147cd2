"""The constants of a verdict, estimated from all rows and from the held-out set."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import false_discovery_control

from multimem_ray.errors import StorageError
from multimem_ray.results.estimate import estimate
from multimem_ray.results.population import stored_population
from multimem_ray.results.summary import summarize
from multimem_ray.results.verdict import Verdict
from multimem_ray.storage import Storage
from multimem_ray.verdict.attack import Population
from multimem_ray.verdict.moderation import VariancePrior
from tests.results.fake_run import FakeRun, fake_run
from tests.results.test_verdict import read, table_of


def population(run: FakeRun, models: int, samples: int = 400) -> Population:
    """Held-out samples that scatter as those of the run do, with memberships by chance."""
    rng = np.random.default_rng(1)
    bits = rng.random((samples, models // 2)) < 0.5
    cmc = rng.normal(0.6, 0.1, (samples, 1)) + rng.normal(0, 0.03, (samples, models))
    member = np.stack([bits, ~bits], axis=2).reshape(samples, -1)
    held_out = Population(cmc, member, paired=True, target=False)
    save_file(held_out.arrays(), Path(run.output) / "held_out" / "means.safetensors")
    return held_out


def test_two_models_take_their_error_from_the_held_out_set(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=2)
    held_out = population(run, 2)
    d = held_out.cmc[:, 0] - held_out.cmc[:, 1]
    rms = np.sqrt(np.square(d).mean())
    got = read(table_of(run), "multimem", "multimem_error", "multimem_low", "multimem_q")
    np.testing.assert_allclose(got["multimem_error"], rms, rtol=1e-9)
    assert got["multimem_error"][0] == pytest.approx(0.03 * math.sqrt(2), rel=0.1)
    assert np.isfinite(got["multimem_q"]).all()


def test_chance_is_measured_on_the_held_out_set(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    population(run, 4)
    noise = summarize(run.output, Storage())["noise"]
    assert noise["measured"]
    assert 0.005 < noise["by_chance"] < 0.06


def test_chance_is_measured_for_three_folds_as_well(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="three_folds", models=6)
    rng = np.random.default_rng(2)
    member = (rng.integers(3, size=(600, 2, 1)) != np.arange(3)).reshape(600, 6)
    cmc = rng.normal(0.6, 0.1, (600, 1)) + rng.normal(0, 0.03, (600, 6))
    held_out = Population(cmc, member, paired=False, target=False)
    save_file(held_out.arrays(), Path(run.output) / "held_out" / "means.safetensors")
    summary = summarize(run.output, Storage())
    assert summary["noise"]["measured"]
    assert summary["noise"]["by_chance"] == pytest.approx(0.025, abs=0.02)
    assert summary["reliability"]["ranks"]["multimem"]["value"] > 0.3
    assert [row["models"] for row in summary["reliability"]["growth"]] == [3, 6, 12]
    assert summary["verdict"]["ranks_by"] == "multimem_shrunk"


def test_q_values_go_by_the_error_of_samples_that_nobody_trained_on(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=8)
    rng = np.random.default_rng(3)
    plain = read(table_of(run), "multimem", "multimem_error", "multimem_q")
    bits = rng.random((200, 4)) < 0.5
    cmc = rng.normal(0.6, 0.1, (200, 1)) + rng.normal(0, 0.09, (200, 8))
    member = np.stack([bits, ~bits], axis=2).reshape(200, -1)
    held_out = Population(cmc, member, paired=True, target=False)
    save_file(held_out.arrays(), Path(run.output) / "held_out" / "means.safetensors")
    table = table_of(run)
    assert table.verdict.null == pytest.approx(2 * 0.09**2 / 4, rel=0.1)
    again = Verdict.from_json(json.loads(json.dumps(table.verdict.as_json())))
    assert again.as_json() == table.verdict.as_json()
    careful = read(table, "multimem", "multimem_error", "multimem_q")
    np.testing.assert_allclose(careful["multimem_error"], plain["multimem_error"], rtol=1e-9)
    prior, df = table.verdict.prior, table.verdict.df
    wide = VariancePrior(table.verdict.null, prior.df)
    error = np.sqrt(wide.moderated(np.square(run.column("multimem_pair_se")), df))
    expected = false_discovery_control(wide.p_values(run.column("multimem"), error, df))
    np.testing.assert_allclose(np.sort(careful["multimem_q"]), np.sort(expected), 0.1, 1e-4)
    assert (careful["multimem_q"] <= 0.05).sum() < (plain["multimem_q"] <= 0.05).sum()


def test_a_held_out_set_of_fewer_models_measures_nothing(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=8)
    population(run, 4)
    verdict = estimate(table_of(run))
    assert verdict.df == 3
    assert verdict.by_chance is None


def test_a_damaged_held_out_set_names_its_file(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    place = Path(run.output) / "held_out" / "means.safetensors"
    place.write_bytes(b"garbage")
    with pytest.raises(StorageError, match=r"means\.safetensors: damaged"):
        stored_population(run.output, Storage())
