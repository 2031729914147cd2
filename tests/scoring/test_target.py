"""A target of another architecture, from training to score: against the sums done by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from multimem_ray import metric
from multimem_ray.audit import report
from multimem_ray.errors import ResumeError
from multimem_ray.progress import Progress
from multimem_ray.results.terminal import print_summary
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out import HeldOutOfShards
from multimem_ray.scoring.held_out_plan import load_plan, plan_held_out
from multimem_ray.scoring.shard import Scores, score_shard
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import open_run
from multimem_ray.shards.reader import read_shard
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import batch_of
from tests.small import small_config, small_run, trained

CPU = torch.device("cpu")

SEEN = [f"s{number:04d}" for number in range(0, 40, 2)]


@pytest.fixture
def audited(tmp_path: Path) -> tuple[Run, Shards]:
    """Four references of 16 dimensions, and a target of 24 that saw every other sample."""
    wide = ("model.dim=24", "model.towers.image.width=6")
    large, shards = small_run(tmp_path / "large", *wide)
    trained(large)
    listed = tmp_path / "seen.txt"
    listed.write_text("\n".join(SEEN))
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "shards").symlink_to(tmp_path / "large" / "shards")
    folder = large.model_folder("000").url
    target = f"design.target={{checkpoint: {folder}, members: {listed}}}"
    run, shards = small_run(tmp_path / "audit", target, "design.models=4", "held_out.fraction=0.5")
    for number, model_id in enumerate(run.design.model_ids()[:4]):
        from multimem_ray.models.build import build_model

        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})
    return run, shards


def scores(run: Run, shards: Shards) -> tuple[pa.Table, HeldOutOfShards]:
    plan_held_out(run, shards, Progress(), ShardSource(run))
    bank = ScoringBank(run, CPU)
    held = HeldOutOfShards(run, bank)
    for item in load_plan(run):
        held.embed(item)
    output = Scores(run, bank, held.statistics())
    found = [score_shard(output, shard).scores for shard in shards.scored]
    return pa.concat_tables(found), held


def test_a_target_is_scored_less_its_gap(audited: tuple[Run, Shards]) -> None:
    run, shards = audited
    table, held = scores(run, shards)
    statistics = held.statistics()
    assert statistics.means.shape == (5, 3, 24)  # the references' are zero in the last eight
    assert not statistics.means[:4, :, 16:].any()
    assert statistics.levels is not None

    # By hand: consistency of every held-out sample under each model, the rest of H beside it.
    bank = ScoringBank(run, CPU)
    plan = {key for item in load_plan(run) for key in item.keys}
    assert not plan & set(SEEN)
    samples = [s for shard in shards.scored for s in read_shard(shard.url, run.storage)]
    chosen = [s for s in samples if getattr(s, "key", None) in plan]
    batch = batch_of(run, {s.key: run.decoder.decode(s) for s in chosen})  # type: ignore[arg-type]
    present, level = batch.present(run.modalities), []
    for embedded in bank.embed(batch):
        accumulator = metric.MeanAccumulator(run.modalities, 24)
        accumulator.add(embedded, present)
        others = accumulator.leave_one_out(embedded, present)
        level.append(metric.cmc(metric.agreement(embedded, present, others), present))
    difference = level[4] - torch.stack(level[:4]).mean(dim=0)
    facts = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert facts["target"]["gap"] == pytest.approx(float(difference.mean()), abs=1e-6)
    se = float(difference.std()) / len(difference) ** 0.5
    assert facts["target"]["gap_se"] == pytest.approx(se, abs=1e-6)

    rows = table.to_pylist()
    assert {row["key"] for row in rows if row["multimem"] is not None} <= set(SEEN)
    assert any(row["multimem"] is not None for row in rows)
    for row in rows:
        cmc, member = np.array(row["cmc"]), np.array(row["member"])
        assert row["cmc_out"] == pytest.approx(cmc[:4][~member[:4]].mean(), abs=1e-6)
        if not member[4]:
            assert row["multimem"] is row["cmc_in"] is row["gap"] is None
            continue
        assert row["cmc_in"] == pytest.approx(cmc[4], abs=1e-6)
        literal = row["cmc_in"] - row["cmc_out"]
        assert row["multimem"] == pytest.approx(literal - row["gap"], abs=1e-6)
        parts = sum(row[f"attribution_{m}"] for m in row["modalities"])
        assert parts == pytest.approx(row["multimem"], abs=1e-9)
        assert (row["n_in"], row["n_out"]) == (1, 2)
        assert row["multimem_se"] > row["gap_se"] > 0


def test_a_checkpoint_with_other_content_is_another_run(audited: tuple[Run, Shards]) -> None:
    run, _ = audited
    config = run.config
    open_run(config)
    again, _ = open_run(config)
    assert again.fingerprint == run.fingerprint
    target = config.design.target
    assert target is not None
    weights = Path(target.checkpoint.removeprefix("local:")) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ResumeError, match="a checkpoint has other content now"):
        open_run(config)


def test_the_inputs_of_a_target_are_those_of_the_run(tmp_path: Path) -> None:
    large, _ = small_run(tmp_path, "modalities.image.size=20")
    trained(large)
    folder = large.model_folder("000").url
    sets = (f"design.target={{checkpoint: 'local:{folder}', members: recorded}}",)
    config = small_config(tmp_path / "shards", tmp_path / "again", *sets)
    # What the user writes wins, and small_config writes 16; what it does not is the target's.
    assert config.modalities["image"]["size"] == 16
    assert config.model.modalities == list(large.modalities)


def test_summary_and_report_say_what_was_subtracted(audited: tuple[Run, Shards]) -> None:
    run, shards = audited
    open_run(run.config)
    _, held = scores(run, shards)
    log, output = commit_log(run), Scores(run, ScoringBank(run, CPU), held.statistics())
    for shard in shards.scored:
        found = score_shard(output, shard)
        log.commit(shard, found.receipt, found.scores, found.errors)
    summary = report(run.config, Progress())
    facts = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert summary["target"]["gap"] == facts["target"]["gap"]
    assert summary["design"]["models"] == 4
    assert [row["model"] for row in summary["models"]] == run.design.model_ids()
    assert summary["reliability"]["multimem"] is None
    assert summary["reliability"]["reason"] == "there is one target: its training was not repeated"
    console = Console(file=io.StringIO(), width=200)
    print_summary(summary, run.output, console)
    assert "held-out samples that neither saw; subtracted" in console.file.getvalue()  # type: ignore[attr-defined]
    page = (Path(run.output) / "report.html").read_text(encoding="utf-8")
    assert "more consistent than the references" in page
    assert "the target against 4 reference models" in page
    assert "were not seen by the target" in page
