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
from torch import Tensor

from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.scoring import chunks
from multimem_ray.scoring import shard as shard_module
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import schema_of
from multimem_ray.scoring.shard import ScoredShard, Scores, assembled, score_shard, shard_parts
from multimem_ray.setup import inspect, resolve
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import bank_of, scores_of
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
    return score_shard(Scores(run, bank, HeldOutStatistics(means)), shard)


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
        output = Scores(run, bank, HeldOutStatistics(means))
        one = score_shard(output, shard)
        parts = shard_parts(output, shard.url, decoders=4)
        four = assembled(output.schema, shard, parts, 0.0)
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


NUMERIC = [
    "multimem", "multimem_normalized", "cmc_in", "cmc_out", "cmc", "multimem_se",
    *(f"{kind}_{pair}" for kind in ("pair", "clipmem")
      for pair in ("audio_image", "audio_text", "image_text")),
    *(f"{kind}_{name}" for kind in ("attribution", "unseen")
      for name in ("audio", "image", "text")),
    "unseen_clipmem",
]  # fmt: skip


def same(a: ScoredShard, b: ScoredShard) -> bool:
    return bool(
        a.scores.drop_columns(NUMERIC).equals(b.scores.drop_columns(NUMERIC))
        and a.errors.equals(b.errors)
        and a.receipt.samples == b.receipt.samples
        and all(
            x == pytest.approx(y, abs=1e-5)
            for x, y in zip(a.scores["cmc_in"].to_pylist(), b.scores["cmc_in"].to_pylist())  # noqa: B905
        )
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, shard_module):
        monkeypatch.setattr(module, "PART_POSITIONS", 6)


@pytest.mark.usefixtures("small_parts")
def test_a_shard_goes_on_from_its_parts(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    bank = bank_of(run)
    folder = commit_log(run).parts(shards.scored[0])
    source = shards.scored[0]
    parts = shard_parts(scores_of(run, bank), source.url, folder)
    first = assembled(schema_of(run), source, parts, 0.0)
    assert folder.names() == [f"{a:09d}-{b:09d}.arrow" for a, b in ((0, 6), (6, 12), (12, 18))]
    listed = commit_log(run).known_parts()
    assert listed == {folder.url: folder.names()}

    class NoBank:
        def agreements(self, decoded: DecodedBatch, means: Tensor) -> Any:
            assert decoded.size <= 2, "known samples are not embedded again"
            return bank.agreements(decoded, means)

    output = scores_of(run, NoBank())  # type: ignore[arg-type]
    parts = shard_parts(output, source.url, folder, folder.read())
    again = assembled(schema_of(run), source, parts, 0.0)
    assert same(first, again)
    assert same(first, score_shard(scores_of(run, bank), shards.scored[0]))
    folder.remove()
    assert folder.names() == []


def test_a_sample_the_models_cannot_take_is_a_failure(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.000001")
    bank = bank_of(run)
    good = score_shard(scores_of(run, bank), shards.scored[0])

    class Picky:
        def agreements(self, decoded: DecodedBatch, means: Tensor) -> Any:
            if not decoded.present(run.modalities)[:, 1].all():
                raise ValueError("no picture")
            return bank.agreements(decoded, means)

    found = score_shard(scores_of(run, Picky()), shards.scored[0])  # type: ignore[arg-type]
    failed = {row["key"] for row in found.errors.to_pylist()}
    assert failed == {
        row["key"] for row in good.scores.to_pylist() if "image" not in row["modalities"]
    }
    assert {row["error"] for row in found.errors.to_pylist()} == {"model_error"}
    assert found.receipt.samples == 20

    class Broken:
        def agreements(self, views: Any, means: Tensor) -> Any:
            raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        score_shard(scores_of(run, Broken()), shards.scored[0])  # type: ignore[arg-type]
