"""The columns of a score: those of the definition, and null where it gives none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multimem_ray import metric
from multimem_ray.sample import Sample
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import Identity
from multimem_ray.scoring.shard import Scores, score_shard
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import batch_of
from tests.scoring.test_shard import scored, with_models
from tests.small import small_run


def test_what_is_known_of_samples_one_by_one() -> None:
    rows = [("a", 0, "red", "a", None), ("b", 1, None, "g", "x")]
    who = Identity.of(rows)
    assert (who.keys, who.indices, who.labels) == (["a", "b"], [0, 1], ["red", None])
    assert who.at(1) == Identity.of(rows[1:])
    assert Identity.of([]) == Identity([], [], [], [], [])


def test_scores_are_those_of_the_metric_sample_by_sample(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "design.models=4")
    bank, means = with_models(run)
    table = score_shard(Scores(run, bank, HeldOutStatistics(means)), shards.scored[0]).scores
    samples = {
        s.key: s for s in read_shard(shards.scored[0].url, run.storage) if isinstance(s, Sample)
    }
    for row in table.to_pylist()[:6]:
        batch = batch_of(run, {row["key"]: run.decoder.decode(samples[row["key"]])})
        present = batch.present(run.modalities)
        with torch.inference_mode():
            embedded = bank.embed(batch)
        cmc = [
            float(metric.cmc(metric.agreement(e, present, m), present))
            for e, m in zip(embedded, means, strict=True)
        ]
        np.testing.assert_allclose(row["cmc"], cmc, atol=1e-5)
        member = run.design.members([row["key"]])[0]
        assert row["member"] == member.tolist()
        inside, outside = np.array(cmc)[member], np.array(cmc)[~member]
        assert row["multimem"] == pytest.approx(inside.mean() - outside.mean(), abs=1e-5)
        sides = np.sqrt(inside.var(ddof=1) / 2 + outside.var(ddof=1) / 2)
        assert row["multimem_se"] == pytest.approx(sides, abs=1e-5)
        d = [
            value - other if saw else other - value
            for value, other, saw in zip(cmc[0::2], cmc[1::2], member[0::2], strict=True)
        ]
        se = np.std(d, ddof=1) / np.sqrt(2)
        assert row["multimem_pair_se"] == pytest.approx(se, abs=1e-5)
        shares = [row[f"attribution_{m}"] for m in row["modalities"]]
        assert sum(shares) == pytest.approx(row["multimem"], abs=1e-5)


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    rows = scored(run, shards.scored[0]).scores.to_pylist()
    without = [row for row in rows if "image" not in row["modalities"]]
    assert without
    for row in without:
        assert row["pair_audio_image"] is row["attribution_image"] is None
        assert row["clipmem_image_text"] is None
        assert row["pair_audio_text"] is not None
        assert row["multimem_normalized"] == pytest.approx(row["multimem"])
    assert all(row["multimem_se"] is None for row in rows), "one model on a side has no spread"
    assert not any(v != v for row in rows for v in row.values() if isinstance(v, float))


def test_label_group_and_split_are_carried(tmp_path: Path) -> None:
    sets = ("design.group=json.source", "data.label=json.label", "design.kind=candidate")
    run, shards = small_run(tmp_path, *sets, "design.candidate_fraction=0.3")
    rows = scored(run, shards.scored[0]).scores.to_pylist()
    assert {row["label"] for row in rows} == {"red", "green", "blue"}
    assert all(row["group"].startswith("tape-") for row in rows)
    assert {row["split"] for row in rows} <= {"S_S", "S_C", "S_I"}
    for row in rows:
        if row["split"] == "S_S":
            assert row["cmc_out"] is None
            assert row["multimem"] is not None
            assert (row["n_in"], row["n_out"]) == (2, 0)


@pytest.mark.parametrize("kind", ["complementary_halves", "leave_subset_out", "candidate"])
def test_outside_the_pool_there_is_only_the_out_of_sample_consistency(
    tmp_path: Path, kind: str
) -> None:
    sets = (f"design.kind={kind}", "design.models=4", "design.pool=0.4", "held_out.fraction=0.01")
    run, shards = small_run(tmp_path, *sets)
    rows = scored(run, shards.scored[0]).scores.to_pylist()
    inside = run.design.in_pool([row["key"] for row in rows])
    assert inside.any()
    assert not inside.all()
    for row, within in zip(rows, inside, strict=True):
        if within:
            assert row["n_in"] > 0
            assert row["multimem"] is not None
            continue
        assert (row["n_in"], row["n_out"]) == (0, 4)
        assert row["cmc_out"] == pytest.approx(np.mean(row["cmc"]), abs=1e-5)
        undefined = ("cmc_in", "multimem", "multimem_se", "multimem_normalized", "split")
        assert all(row[name] is None for name in undefined)
        assert row["attribution_text"] is row["clipmem_audio_text"] is None
