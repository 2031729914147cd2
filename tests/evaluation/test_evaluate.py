"""Evaluating the models of a run on its held-out samples."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from multimem_ray.errors import HeldOutError
from multimem_ray.evaluation.evaluate import evaluate
from multimem_ray.models.build import build_model
from multimem_ray.progress import Progress
from multimem_ray.report.outcome import evaluation_rows
from multimem_ray.results.terminal import evaluation_table
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_plan import plan_held_out
from multimem_ray.scoring.shard_source import ShardSource
from tests.small import small_run

QUIET = Progress(Console(file=io.StringIO()))


def prepared(folder: Path) -> Run:
    run, shards = small_run(folder, "evaluation.folds=2", "held_out.fraction=0.6")
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})
    plan_held_out(run, shards, QUIET, ShardSource(run))
    return run


def test_every_model_is_judged_on_the_held_out_samples(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    result = evaluate(run, QUIET)
    kept = pq.read_table(tmp_path / "out" / "held_out" / "keys.parquet").num_rows
    assert result["samples"] == kept
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
    for found in result["models"].values():
        directions = {(tuple(r["query"]), r["target"]) for r in found["retrieval"]}
        assert (("audio", "image"), "text") in directions
        assert set(found["probe"]) == {"audio", "image", "text"}
        assert set(found["zero_shot"]) == {"audio", "image"}
        assert found["zero_shot"]["image"]["chance"] == pytest.approx(1 / 3)
    assert {row["models"] for row in result["mean"]} == {2}
    console = Console(file=io.StringIO(), width=120)
    console.print(evaluation_table(result, evaluation_rows(result)))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "audio+image → text" in said
    assert "95 % interval" in said
    assert "0.333" in said, "what chance gives"
    assert result["left_out"] == []


def test_what_was_not_measured_is_told_with_the_reason(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    many, _ = small_run(tmp_path, "evaluation.folds=40", "held_out.fraction=0.6")
    assert any(
        "probe of image: 0 of 3 labels have the 40 held-out samples" in sentence
        for sentence in evaluate(many, QUIET)["left_out"]
    )
    plain = dataclasses.replace(run, label=None)
    (sentence,) = evaluate(plain, QUIET)["left_out"]
    assert "no held-out sample has a label" in sentence


def test_the_batch_size_changes_nothing(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    first = evaluate(run, QUIET)["mean"]
    other, _ = small_run(
        tmp_path, "evaluation.folds=2", "held_out.fraction=0.6", "scoring.batch_size=3"
    )
    second = evaluate(other, QUIET)["mean"]
    assert [r["mean"] for r in second] == pytest.approx([r["mean"] for r in first], abs=0.05)


def test_without_a_held_out_set_it_says_what_to_do(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    (tmp_path / "out" / "held_out" / "keys.parquet").unlink()
    with pytest.raises(HeldOutError, match="multimem score"):
        evaluate(run, QUIET)


def test_prompts_are_embedded_by_the_text_tower(tmp_path: Path) -> None:
    run = prepared(tmp_path)
    bank = ScoringBank(run, torch.device("cpu"))
    from multimem_ray.evaluation.evaluate import _class_vectors

    found = _class_vectors(run, bank, ["red", "blue"])
    assert found is not None
    assert found.shape == (2, 2, run.config.model.dim)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 2))
