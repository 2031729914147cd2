"""The board on which work elsewhere is counted."""

from __future__ import annotations

import time
from typing import Any

from multimem_ray.distributed.counter import ProgressActor


def test_counts_and_notes_by_task(ray_session: Any) -> None:
    del ray_session
    board = ProgressActor.create()
    board.advance("train", 2, loss=3.0)
    board.advance("train", loss=2.0)
    board.advance("other")
    assert board.look("train") == (3, {"loss": 2.0})
    assert board.look("nothing") == (0, {})


def test_a_lost_board_ends_nothing(ray_session: Any) -> None:
    board = ProgressActor.create()
    board.advance("train", 4)
    assert board.look("train")[0] == 4
    ray_session.kill(board._actor)
    time.sleep(0.1)
    board.advance("train")
    assert board.look("train") == (4, {})
