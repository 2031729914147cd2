"""Work that is handed to Ray, and its errors."""

from __future__ import annotations

from typing import Any

import pytest

from multimem_ray.distributed.executor import Row
from multimem_ray.distributed.on_ray import RayExecutor, own_error
from multimem_ray.errors import HeldOutError, StorageError


def test_tasks_keep_their_order_and_errors_are_ours(ray_session: Any) -> None:
    del ray_session
    executor = RayExecutor()

    def double(row: Row) -> Row:
        if row["n"] == 100:
            raise HeldOutError("no sample is held out")
        return {"n": 2 * row["n"]}

    with executor.session():
        assert [row["n"] for row in executor.tasks(double, [{"n": n} for n in range(9)])] == [
            2 * n for n in range(9)
        ]
        with pytest.raises(HeldOutError, match="no sample"):
            list(executor.tasks(double, [{"n": 100}], retries=0))
        assert sum(int(node.get("CPU", 0)) for node in executor.nodes()) == 2
        assert executor.call(lambda: 7, 0.0) == 7


def test_our_error_is_found_below_those_of_ray() -> None:
    inner, outer = StorageError("s3://b/x: timed out"), RuntimeError("of Ray Data")
    outer.__cause__ = inner
    assert own_error(outer) is inner
    wrapped: Any = RuntimeError("a task failed")
    wrapped.cause = inner
    assert own_error(wrapped) is inner
    assert own_error(RuntimeError("somebody else's")) is None
