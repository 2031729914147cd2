"""One shard through the bank: every sample accounted for, whatever the batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from multimem_ray import metric
from multimem_ray.models.contrastive import build_model
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank, make_views
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import schema_of
from multimem_ray.scoring.shard import ScoredShard, score_shard
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import FileInfo
from tests.small import members, small_run, write_shards

NUMBERS = [
    "multimem", "multimem_normalized", "cmc_in", "cmc_out", "pair_audio_image",
    "attribution_audio", "clipmem_audio_text",
]  # fmt: skip


def with_models(run: Run) -> tuple[ScoringBank, torch.Tensor]:
    """Untrained but different models, and means that are no constants."""
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})
    generator = torch.Generator().manual_seed(0)
    shape = (len(run.design.model_ids()), len(run.modalities), run.config.model.dim)
    means = torch.randn(*shape, generator=generator, dtype=torch.float64) / 5
    return ScoringBank(run, torch.device("cpu")), means


def scored(run: Run, shard: FileInfo) -> ScoredShard:
    bank, means = with_models(run)
    return score_shard(run, bank, HeldOutStatistics(means), shard)


def numbers(table: pa.Table, column: str) -> np.ndarray[Any, Any]:
    return np.array([np.nan if v is None else v for v in table[column].to_pylist()])


def test_every_sample_is_scored_or_held_out(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    for shard in shards.scored:
        found = scored(run, shard)
        assert found.receipt.rows + found.receipt.held_out == 20
        assert found.scores.schema.equals(schema_of(run))
        keys = found.scores["key"].to_pylist()
        assert keys == sorted(keys)
        assert not run.held_out_rule.is_held_out(keys, shard.url).any()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_scores_do_not_depend_on_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    run, shards = small_run(tmp_path)
    other, _ = small_run(tmp_path, f"scoring.batch_size={batch_size}")
    a, b = scored(run, shards.scored[0]).scores, scored(other, shards.scored[0]).scores
    assert a["key"] == b["key"]
    for column in NUMBERS:
        np.testing.assert_allclose(numbers(a, column), numbers(b, column), atol=1e-5)


def test_scores_are_those_of_the_metric_sample_by_sample(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "design.models=4")
    bank, means = with_models(run)
    table = score_shard(run, bank, HeldOutStatistics(means), shards.scored[0]).scores
    samples = {
        s.key: s for s in read_shard(shards.scored[0].url, run.storage) if isinstance(s, Sample)
    }
    for row in table.to_pylist()[:6]:
        views = make_views(run, [row["key"]], [run.decoder.decode(samples[row["key"]])])
        with torch.inference_mode():
            embedded = bank.embed(views)
        cmc = [
            float(metric.cmc(metric.agreement(e, views.present, m), views.present))
            for e, m in zip(embedded, means, strict=True)
        ]
        np.testing.assert_allclose(row["cmc"], cmc, atol=1e-5)
        member = run.design.members([row["key"]])[0]
        assert row["member"] == member.tolist()
        inside, outside = np.array(cmc)[member], np.array(cmc)[~member]
        assert row["multimem"] == pytest.approx(inside.mean() - outside.mean(), abs=1e-5)
        se = np.sqrt(inside.var(ddof=1) / 2 + outside.var(ddof=1) / 2)
        assert row["multimem_se"] == pytest.approx(se, abs=1e-5)
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


def spoil(folder: Path) -> None:
    """A shard with one of everything that can be wrong with a sample."""
    with ShardWriter(str(folder)) as writer:
        writer.write("good", members(0))
        writer.write("jpeg", {**members(1), "png": b"\x89PNG not a picture"})
        writer.write("empty", {**members(2), "txt": b"  \n"})
        writer.write("lonely", {"txt": b"only words", "json": b"{}"})
        writer.write("silent", {**members(3), "flac": b""})
        writer.write("badjson", {**members(4), "json": b"{nope"})
        writer.write("last", members(5))


def test_bad_samples_are_listed_and_the_rest_is_scored(tmp_path: Path) -> None:
    spoil(tmp_path / "shards")
    run, shards = small_run(tmp_path, "held_out.fraction=0.000001", "design.group=json.source")
    found = scored(run, shards.scored[0])
    assert found.scores["key"].to_pylist() == ["good", "last"]
    errors = {row["key"]: (row["stage"], row["error"]) for row in found.errors.to_pylist()}
    assert errors == {
        "jpeg": ("decode", "undecodable"),
        "empty": ("decode", "empty"),
        "lonely": ("select", "too_few_modalities"),
        "silent": ("decode", "empty"),
        "badjson": ("read", "bad_json"),
    }
    assert all(row["detail"] for row in found.errors.to_pylist())


def test_several_decoders_make_the_same_rows(tmp_path: Path) -> None:
    spoil(tmp_path / "spoiled" / "shards")
    write_shards(tmp_path / "whole" / "shards", samples=60, shards=1)
    for folder in ("spoiled", "whole"):
        run, shards = small_run(tmp_path / folder, "scoring.batch_size=5")
        bank, means = with_models(run)
        (shard,) = shards.scored
        held_out = HeldOutStatistics(means)
        one = score_shard(run, bank, held_out, shard)
        four = score_shard(run, bank, held_out, shard, decoders=4)
        assert four.scores.equals(one.scores)
        assert four.errors.equals(one.errors)
        assert four.receipt.samples == one.receipt.samples


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def garble(data: bytes) -> bytes:
    middle = len(data) // 2 // 512 * 512
    return data[:middle] + bytes(range(256)) * 4 + data[middle + 1024 :]


@pytest.mark.parametrize("damage", [cut, garble, lambda _: b"no tar " * 999, lambda _: b""])
def test_a_damaged_shard_gives_what_it_held_and_a_reason(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    write_shards(tmp_path / "shards")
    run, shards = small_run(tmp_path)
    path = Path(shards.scored[1].url)
    path.write_bytes(damage(path.read_bytes()))
    found = scored(run, shards.scored[1])
    assert found.errors.num_rows >= 1
    assert any(row["stage"] == "read" and row["key"] is None for row in found.errors.to_pylist())
    keys = found.scores["key"].to_pylist()
    assert keys == sorted(set(keys))
    assert len(keys) + found.receipt.held_out < 20


def test_a_repeated_key_is_scored_once(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(folder, 10, 1)
    path = next(folder.glob("*.tar"))
    end = path.read_bytes().rstrip(b"\0")
    data = end + bytes(-len(end) % 512)
    path.write_bytes(data + data + bytes(1024))
    run, shards = small_run(tmp_path, "held_out.fraction=0.000001")
    found = scored(run, shards.scored[0])
    assert len(found.scores["key"].unique()) == found.scores.num_rows == 10
    assert {row["error"] for row in found.errors.to_pylist()} == {"repeated_key"}
    assert found.errors.num_rows == 10


def test_a_field_of_the_json_can_be_the_text(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    config = resolve(
        {
            "output": str(tmp_path / "out"),
            "data": {
                "shards": str(tmp_path / "shards"),
                "fields": {"text": "json.caption", "image": "png"},
            },
        }
    )
    run, shards = inspect(config)
    found = scored(run, shards.scored[0])
    assert {tuple(m) for m in found.scores["modalities"].to_pylist()} == {("image", "text")}
    failed = found.errors.to_pylist()
    assert {row["error"] for row in failed} == {"too_few_modalities"}
    assert json.loads(json.dumps(failed))


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


def test_models_train_on_the_shards_of_the_pool_only(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 8)
    run, shards = small_run(tmp_path, "design.pool_shards=3", "held_out.fraction=0.01")
    pool = [s.url for s in shards.scored if run.trains_on(s.url)]
    assert len(pool) == 3
    # More shards keep those that there were: models of the smaller pool saw a part of the larger.
    wider, _ = small_run(tmp_path, "design.pool_shards=5", "held_out.fraction=0.01")
    assert {u for u in pool if wider.trains_on(u)} == set(pool)
    for shard in shards.scored[:4]:
        rows = scored(run, shard).scores.to_pylist()
        for row in rows:
            assert (row["n_in"] > 0) == (shard.url in pool)
            assert (row["multimem"] is not None) == (shard.url in pool)
            assert row["cmc_out"] is not None
    again = Run.from_json(
        {
            "config": run.config.model_dump(mode="json"),
            "fields": run.fields,
            "label": None,
            "shard_set": run.shard_set,
            "pool_below": run.pool_below,
        }
    )
    assert [again.trains_on(s.url) for s in shards.scored] == [
        run.trains_on(s.url) for s in shards.scored
    ]
