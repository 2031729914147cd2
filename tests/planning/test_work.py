"""What there is to do is counted from a few shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.planning.work import survey
from tests.planning.test_plan import planned
from tests.small import small_run, write_shards


def test_counts_what_there_is(tmp_path: Path) -> None:
    work = planned(tmp_path, "design.models=4", "held_out.fraction=0.25").work
    assert work.shards == 2
    assert work.samples == pytest.approx(40, abs=2)
    assert work.held_out == round(work.samples * 0.25)
    assert work.trainable == pytest.approx(work.samples * 0.75, abs=1)
    assert work.models == 4
    assert work.parameters > 1000
    assert work.memory.state >= 16 * work.parameters
    assert work.bank_bytes == 4 * work.memory.state + work.layout.threads * work.memory.step


def test_pool_bounds_training_only(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 8)
    whole = planned(tmp_path).work
    part = planned(tmp_path, "design.pool_shards=2", "design.pool=0.5").work
    assert (part.shards, part.pool_shards) == (8, 2)
    assert part.samples == whole.samples
    assert part.trainable == pytest.approx(whole.trainable / 8, abs=1)


def test_held_out_shards_are_counted_apart(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 4)
    last = max((tmp_path / "shards").glob("*.tar"))
    run, shards = small_run(tmp_path, f"held_out.shards={last}")
    work = survey(run, shards, 2, 0)
    assert work.shards == 3
    assert work.samples == pytest.approx(30, abs=2)
    assert work.held_out == pytest.approx(10, abs=2)
    assert work.trainable == work.samples


def test_a_modality_that_few_held_out_samples_have_is_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, "held_out.fraction=0.1")
    assert plan.work.present == {"audio": 1.0, "image": 0.8, "text": 1.0}
    assert dict(plan.lines())["modalities"] == "image in 80% of the samples that were looked at"
    told = [hint for hint in plan.hints if "held-out samples have" in hint]
    assert any(hint.startswith("about 3.2 held-out samples have image") for hint in told)
    assert all("raise held_out.fraction" in hint for hint in told)
