"""The counter on which work elsewhere is counted."""

from __future__ import annotations

import time
from typing import Any

from multimem_ray.distributed.counter import ProgressActor


def test_counts_and_notes_by_task(ray_session: Any) -> None:
    del ray_session
    counter = ProgressActor.create()
    counter.advance("train", 2, loss=3.0)
    counter.advance("train", loss=2.0)
    counter.advance("other")
    assert counter.look("train") == (3, {"loss": 2.0})
    assert counter.look("nothing") == (0, {})


def test_a_lost_counter_ends_nothing(ray_session: Any) -> None:
    counter = ProgressActor.create()
    counter.advance("train", 4)
    assert counter.look("train")[0] == 4
    ray_session.kill(counter._actor)
    time.sleep(0.1)
    counter.advance("train")
    assert counter.look("train") == (4, {})


def test_whoever_counts_is_asked_to_stop(ray_session: Any) -> None:
    counter = ProgressActor.create()
    assert not counter.is_stopping()
    counter.stop()
    end = time.monotonic() + 20
    while not counter.is_stopping():
        assert time.monotonic() < end
        time.sleep(0.02)
