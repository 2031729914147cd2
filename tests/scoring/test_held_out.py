"""The held-out set: the same means, whoever embeds which part, and whoever dies."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.metric import MeanAccumulator
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring import held_out, held_out_plan, poison
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out import HeldOutMeans
from multimem_ray.scoring.held_out_plan import Chosen, is_summarized, load_plan, plan_held_out
from multimem_ray.scoring.poison import CrashLog
from multimem_ray.status import run_status
from multimem_ray.storage import Storage
from tests.scoring.bank_of import bank_of
from tests.scoring.expected import means as expected_of
from tests.small import small_run

RUN_JSON = {"shards": 2, "missing": [], "label": None}


class KilledError(BaseException):
    """Stands for a dead process."""


def planned(folder: Path, *sets: str) -> tuple[Run, Shards]:
    run, shards = small_run(folder, "held_out.fraction=0.3", *sets)
    assert plan_held_out(run, shards, Progress())
    return run, shards


def test_the_plan_is_stored_and_followed(tmp_path: Path) -> None:
    run, shards = planned(tmp_path)
    plan = load_plan(run)
    assert plan == plan_held_out(run, shards, Progress())
    for item in plan:
        assert run.held_out_rule.is_held_out(item.keys, item.shard).all()
    table = pq.read_table(run.path("held_out", "keys.parquet"))
    assert table.num_rows == sum(len(item.keys) for item in plan)
    other, _ = small_run(tmp_path, "held_out.fraction=0.25")
    assert load_plan(other) == []


def test_tasks_and_the_driver_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: object
) -> None:
    run, shards = planned(tmp_path)
    alone = load_plan(run)
    monkeypatch.setattr(held_out_plan, "ALONE_S", -1.0)
    assert held_out_plan._choose(run, shards, Progress()) == alone


def test_parts_sum_up_to_the_means_of_all(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    for item in load_plan(run):
        assert not is_summarized(run)
        HeldOutMeans(run, bank).embed(item)
    found = HeldOutMeans(run, bank).statistics().means
    counts = [len(item.keys) for item in load_plan(run)]
    each = [expected_of(run, bank, item.shard) for item in load_plan(run)]
    # Text is there in every sample, so its mean is the mean of means weighted by counts.
    expected = sum(c * m for c, m in zip(counts, each, strict=True)) / sum(counts)
    torch.testing.assert_close(found[:, 2], expected[:, 2], atol=1e-6, rtol=0)
    facts = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert facts["samples"] == facts["keys_seen"] == sum(counts)
    assert facts["modalities"]["text"] == sum(counts)
    assert set(facts["models"]) == set(run.design.model_ids())
    assert not (tmp_path / "out" / "held_out" / "parts").exists()


def facts_of(run: Run) -> dict[str, Any]:
    return dict(json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json"))))


def until_done(work: Callable[[], object], most: int = 60) -> int:
    """Repeats what dies, as Ray does; returns the number of deaths."""
    for died in range(most):
        try:
            work()
        except KilledError:
            continue
        return died
    raise AssertionError("it dies without end")


def embed_all(run: Run, bank: ScoringBank) -> None:
    """As actors do that were restarted after a death."""
    held = HeldOutMeans(run, bank, careful=True)
    for item in load_plan(run):
        held.embed(item)


@pytest.mark.parametrize(
    ("stage", "batch_size", "deaths"), [("decode", 4, 3), ("score", 4, 3), ("score", 1, 2)]
)
def test_a_sample_that_kills_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, batch_size: int, deaths: int
) -> None:
    run, _ = planned(tmp_path, f"scoring.batch_size={batch_size}")
    bank, plan = bank_of(run), load_plan(run)
    decode, embed = HeldOutMeans._decoded, HeldOutMeans._batch
    poison = plan[0].keys[1]

    def deadly_decode(self: Any, samples: Any) -> Any:
        if any(sample.key == poison for sample in samples):
            raise KilledError
        return decode(self, samples)

    def deadly_embed(self: Any, decoded: Any) -> Any:
        if any(key == poison for key, _ in decoded):
            raise KilledError
        return embed(self, decoded)

    if stage == "decode":
        monkeypatch.setattr(HeldOutMeans, "_decoded", deadly_decode)
    else:
        monkeypatch.setattr(HeldOutMeans, "_batch", deadly_embed)
    died = until_done(lambda: embed_all(run, bank))
    assert died == deaths, "one with the batch, if it holds more; two with the sample itself"
    facts, chosen = facts_of(run), sum(len(item.keys) for item in plan)
    (killed,) = facts["killed"]
    assert (killed["shard"], killed["key"], killed["stage"]) == (plan[0].shard, poison, stage)
    assert (facts["samples"], facts["undecodable"]) == (chosen - 1, 0)
    assert facts["keys_seen"] == chosen
    shown = run_status(
        run.output,
        {
            **RUN_JSON,
            "fingerprint": run.fingerprint,
            "config": run.config.model_dump(mode="json"),
            "fields": dict(run.fields),
        },
        Storage(),
    )
    assert ("left out of the held-out set", "0 could not be used, 1 killed their process") in (
        shown.lines()
    )
    expected = means_without(run, bank, {poison})
    torch.testing.assert_close(HeldOutMeans(run, bank).statistics().means, expected)
    assert not (tmp_path / "out" / "held_out" / "parts").exists()


def means_without(run: Run, bank: ScoringBank, left_out: set[str]) -> Tensor:
    """The means of a run whose plan lacks these samples."""
    held = HeldOutMeans(run, bank)
    sums = [MeanAccumulator(run.modalities, bank.dim) for _ in run.design.model_ids()]
    for item in load_plan(run):
        kept = Chosen(item.shard, tuple(key for key in item.keys if key not in left_out))
        part = held.part(kept, careful=False)
        for accumulator, mean in zip(sums, part.mean, strict=True):
            accumulator.add(mean[None], part.present)
    return torch.stack([accumulator.means() for accumulator in sums])


def test_the_only_held_out_sample_of_a_shard_may_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=4")
    bank, (first, second) = bank_of(run), load_plan(run)
    alone = Chosen(first.shard, first.keys[:1])
    monkeypatch.setattr(held_out, "load_plan", lambda run: [alone, second])
    embed = HeldOutMeans._batch

    def deadly(self: Any, decoded: Any) -> Any:
        if decoded[0][0] == alone.keys[0]:
            raise KilledError
        return embed(self, decoded)

    def work() -> None:
        held = HeldOutMeans(run, bank, careful=True)
        held.embed(alone)
        held.embed(second)

    monkeypatch.setattr(HeldOutMeans, "_batch", deadly)
    assert until_done(work) == 2
    facts = facts_of(run)
    assert [one["key"] for one in facts["killed"]] == list(alone.keys)
    assert facts["samples"] == len(second.keys)


def test_deaths_by_chance_leave_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=2")
    bank, calls, embed = bank_of(run), itertools.count(), HeldOutMeans._batch
    expected = means_without(run, bank, set())

    def unlucky(self: Any, decoded: Any) -> Any:
        if next(calls) % 3 == 1:
            raise KilledError
        return embed(self, decoded)

    monkeypatch.setattr(HeldOutMeans, "_batch", unlucky)
    assert until_done(lambda: embed_all(run, bank)) > 0
    torch.testing.assert_close(HeldOutMeans(run, bank).statistics().means, expected)
    assert facts_of(run)["killed"] == []


def test_a_shard_of_h_that_kills_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=2")
    bank, plan, embed = bank_of(run), load_plan(run), HeldOutMeans._batch
    deadly = set(plan[1].keys)
    monkeypatch.setattr(poison, "DEATHS_OF_A_SHARD", 4)

    def deadly_embed(self: Any, decoded: Any) -> Any:
        if deadly & {key for key, _ in decoded}:
            raise KilledError
        return embed(self, decoded)

    monkeypatch.setattr(HeldOutMeans, "_batch", deadly_embed)
    assert until_done(lambda: embed_all(run, bank)) <= 6
    facts = facts_of(run)
    assert {one["key"] for one in facts["killed"]} == deadly
    assert facts["samples"] == len(plan[0].keys)


def test_samples_that_cannot_be_used_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=4")
    bank, plan = bank_of(run), load_plan(run)
    decode, embed = Decoder.decode, HeldOutMeans._batch
    broken, refused = plan[0].keys[0], plan[1].keys[1]

    def failing(self: Any, sample: Any) -> Any:
        if sample.key == broken:
            raise SampleError("today", "undecodable", "decode")
        return decode(self, sample)

    def picky(self: Any, decoded: Any) -> Any:
        if any(key == refused for key, _ in decoded):
            raise ValueError("not this one")
        return embed(self, decoded)

    monkeypatch.setattr(Decoder, "decode", failing)
    monkeypatch.setattr(HeldOutMeans, "_batch", picky)
    for item in plan:
        HeldOutMeans(run, bank).embed(item)
    facts, chosen = facts_of(run), sum(len(item.keys) for item in plan)
    assert (facts["samples"], facts["undecodable"], facts["killed"]) == (chosen - 2, 2, [])
    found = HeldOutMeans(run, bank).statistics().means
    monkeypatch.undo()
    torch.testing.assert_close(found, means_without(run, bank, {broken, refused}))


def test_what_no_sample_of_a_batch_can_pass_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path)

    def broken(self: Any, decoded: Any) -> Any:
        raise ValueError("always")

    monkeypatch.setattr(HeldOutMeans, "_batch", broken)
    with pytest.raises(ValueError, match="always"):
        HeldOutMeans(run, bank_of(run)).embed(load_plan(run)[0])


def test_who_waits_helps_only_where_nobody_gives_a_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    waiting = HeldOutMeans(run, bank, patience_s=0.3)
    folder, times = waiting._notes(load_plan(run)[0]), [time.monotonic()]

    def working(self: Any, seconds: float) -> None:
        if len(times) < 8:
            CrashLog(deaths=len(times)).save(folder)
            times.append(time.monotonic())
        sleep(0.1)

    sleep = time.sleep
    monkeypatch.setattr(held_out.time, "sleep", lambda seconds: working(None, seconds))
    began: list[float] = []
    part = HeldOutMeans.part

    def noted(self: Any, chosen: Chosen, careful: bool) -> Any:
        began.append(time.monotonic())
        assert careful is (chosen == load_plan(run)[0]), "where there are notes"
        return part(self, chosen, careful)

    monkeypatch.setattr(HeldOutMeans, "part", noted)
    waiting.statistics()
    assert len(times) == 8
    assert min(began) > times[-1]


def test_whoever_waits_too_long_does_it(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    HeldOutMeans(run, bank).embed(load_plan(run)[0])
    alone = HeldOutMeans(run, bank, patience_s=0.0).statistics().means
    assert alone.shape == (2, 3, 16)
    assert plan_held_out(run, _, Progress()) == []


def test_a_modality_that_is_missing_in_h_is_named(tmp_path: Path) -> None:
    run, _ = planned(tmp_path, "held_out.max_samples=2", "design.seed=3")
    bank = bank_of(run)
    held = HeldOutMeans(run, bank, patience_s=0.0)
    bank.embed = lambda views: torch.full((2, 2, len(views.present), 3, 16), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(HeldOutError, match="finite"):
        held.statistics()
