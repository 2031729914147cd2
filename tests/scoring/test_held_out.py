"""The held-out set: the same means, whoever embeds which part, and whoever dies."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.metric import MeanAccumulator
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring import held_out, poison
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out import HeldOutOfShards, HeldOutSamples
from multimem_ray.scoring.held_out_plan import (
    CLAIMS,
    Chosen,
    is_summarized,
    load_plan,
    parts_folder,
    plan_held_out,
)
from multimem_ray.scoring.poison import CrashLog
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.status import run_status
from multimem_ray.storage import Storage
from multimem_ray.store.names import shard_id
from tests.scoring.bank_of import KilledError, bank_of
from tests.scoring.expected import means as expected_of
from tests.small import small_run

RUN_JSON = {"shards": 2, "missing": [], "label": None}


def planned(folder: Path, *sets: str) -> tuple[Run, Shards]:
    run, shards = small_run(folder, "held_out.fraction=0.3", *sets)
    assert plan_held_out(run, shards, Progress(), ShardSource(run))
    return run, shards


def test_parts_sum_up_to_the_means_of_all(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    for item in load_plan(run):
        assert not is_summarized(run)
        HeldOutOfShards(run, bank).embed(item)
    found = HeldOutOfShards(run, bank).statistics().means
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
    held = HeldOutOfShards(run, bank, careful=True)
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
    identity, embed = held_out._ChosenReader.identity, HeldOutSamples.rows
    poison = plan[0].keys[1]

    def deadly_decode(self: Any, sample: Any) -> Any:
        if sample.key == poison:
            raise KilledError
        return identity(self, sample)

    def deadly_embed(self: Any, batch: Any) -> Any:
        if poison in batch.who.keys:
            raise KilledError
        return embed(self, batch)

    if stage == "decode":
        monkeypatch.setattr(held_out._ChosenReader, "identity", deadly_decode)
    else:
        monkeypatch.setattr(HeldOutSamples, "rows", deadly_embed)
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
    torch.testing.assert_close(HeldOutOfShards(run, bank).statistics().means, expected)
    assert not (tmp_path / "out" / "held_out" / "parts").exists()


def means_without(run: Run, bank: ScoringBank, left_out: set[str]) -> Tensor:
    """The means of a run whose plan lacks these samples."""
    held = HeldOutOfShards(run, bank)
    sums = [MeanAccumulator(run.modalities, bank.dim) for _ in run.design.model_ids()]
    for item in load_plan(run):
        kept = Chosen(item.shard, tuple(key for key in item.keys if key not in left_out))
        part = held.part(kept, careful=False).rows
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
    embed = HeldOutSamples.rows

    def deadly(self: Any, batch: Any) -> Any:
        if batch.who.keys[0] == alone.keys[0]:
            raise KilledError
        return embed(self, batch)

    def work() -> None:
        held = HeldOutOfShards(run, bank, careful=True)
        held.embed(alone)
        held.embed(second)

    monkeypatch.setattr(HeldOutSamples, "rows", deadly)
    assert until_done(work) == 2
    facts = facts_of(run)
    assert [one["key"] for one in facts["killed"]] == list(alone.keys)
    assert facts["samples"] == len(second.keys)


def test_deaths_by_chance_leave_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=2")
    bank, calls, embed = bank_of(run), itertools.count(), HeldOutSamples.rows
    expected = means_without(run, bank, set())

    def unlucky(self: Any, batch: Any) -> Any:
        if next(calls) % 3 == 1:
            raise KilledError
        return embed(self, batch)

    monkeypatch.setattr(HeldOutSamples, "rows", unlucky)
    assert until_done(lambda: embed_all(run, bank)) > 0
    torch.testing.assert_close(HeldOutOfShards(run, bank).statistics().means, expected)
    assert facts_of(run)["killed"] == []


def test_a_shard_of_h_that_kills_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=2")
    bank, plan, embed = bank_of(run), load_plan(run), HeldOutSamples.rows
    deadly = set(plan[1].keys)
    monkeypatch.setattr(poison, "DEATHS_OF_A_SHARD", 4)

    def deadly_embed(self: Any, batch: Any) -> Any:
        if deadly & set(batch.who.keys):
            raise KilledError
        return embed(self, batch)

    monkeypatch.setattr(HeldOutSamples, "rows", deadly_embed)
    assert until_done(lambda: embed_all(run, bank)) <= 6
    facts = facts_of(run)
    assert {one["key"] for one in facts["killed"]} == deadly
    assert facts["samples"] == len(plan[0].keys)


def test_samples_that_cannot_be_used_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path, "scoring.batch_size=4")
    bank, plan = bank_of(run), load_plan(run)
    decode, embed = Decoder.decode, HeldOutSamples.rows
    broken, refused = plan[0].keys[0], plan[1].keys[1]

    def failing(self: Any, sample: Any) -> Any:
        if sample.key == broken:
            raise SampleError("today", "undecodable", "decode")
        return decode(self, sample)

    def picky(self: Any, batch: Any) -> Any:
        if refused in batch.who.keys:
            raise ValueError("not this one")
        return embed(self, batch)

    monkeypatch.setattr(Decoder, "decode", failing)
    monkeypatch.setattr(HeldOutSamples, "rows", picky)
    for item in plan:
        HeldOutOfShards(run, bank).embed(item)
    facts, chosen = facts_of(run), sum(len(item.keys) for item in plan)
    assert (facts["samples"], facts["undecodable"], facts["killed"]) == (chosen - 2, 2, [])
    found = HeldOutOfShards(run, bank).statistics().means
    monkeypatch.undo()
    torch.testing.assert_close(found, means_without(run, bank, {broken, refused}))


def test_what_no_sample_of_a_batch_can_pass_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path)

    def broken(self: Any, batch: Any) -> Any:
        raise ValueError("always")

    monkeypatch.setattr(HeldOutSamples, "rows", broken)
    with pytest.raises(ValueError, match="always"):
        HeldOutOfShards(run, bank_of(run)).embed(load_plan(run)[0])


def claim(run: Run, item: Chosen, actor: str = "another") -> None:
    """What an actor leaves that has begun with a shard."""
    folder = Path(parts_folder(run), CLAIMS, actor)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / shard_id(item.shard)).touch()


def test_what_nobody_has_begun_is_done_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single actor that is given a shard to score before the held-out samples does not sleep."""
    run, _ = planned(tmp_path)
    bank = bank_of(run)

    def asleep(seconds: float) -> None:
        raise AssertionError("it waits for nobody")

    monkeypatch.setattr(time, "sleep", asleep)
    # Its own claim, from before it was started again, is none of another one.
    claim(run, load_plan(run)[0], "the-same")
    held = HeldOutOfShards(run, bank, actor="the-same")
    assert held.statistics().means.shape == (2, 3, 16)
    for item in load_plan(run):
        held.embed(item)
    assert not (tmp_path / "out" / "held_out" / "parts").exists()


def test_claims_of_an_earlier_driver_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = planned(tmp_path)
    for item in load_plan(run):
        claim(run, item)
    plan_held_out(run, shards, Progress(), ShardSource(run))
    monkeypatch.setattr(time, "sleep", None)
    HeldOutOfShards(run, bank_of(run)).statistics()


def test_what_others_have_begun_is_done_where_nobody_gives_a_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = planned(tmp_path)
    bank, plan = bank_of(run), load_plan(run)
    for item in plan:
        claim(run, item)
    waiting = HeldOutOfShards(run, bank, patience_s=0.3)
    folder, times, sleep = waiting.notes(plan[0]), [time.monotonic()], time.sleep

    def working(seconds: float) -> None:
        if len(times) < 8:
            CrashLog(deaths=len(times)).save(folder)
            times.append(time.monotonic())
        sleep(0.1)

    monkeypatch.setattr(time, "sleep", working)
    began: list[float] = []
    part = HeldOutOfShards.part

    def noted(self: Any, chosen: Chosen, *, careful: bool) -> Any:
        began.append(time.monotonic())
        assert careful is (chosen == plan[0]), "where there are notes"
        return part(self, chosen, careful=careful)

    monkeypatch.setattr(HeldOutOfShards, "part", noted)
    waiting.statistics()
    assert len(times) == 8
    assert min(began) > times[-1]


def test_a_modality_that_is_missing_in_h_is_named(tmp_path: Path) -> None:
    run, _ = planned(tmp_path, "held_out.max_samples=2", "design.seed=3")
    bank = bank_of(run)
    held = HeldOutOfShards(run, bank)
    bank.embed = lambda decoded: torch.full((2, 2, decoded.size, 3, 16), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(HeldOutError, match="finite"):
        held.statistics()
