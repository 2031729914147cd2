"""Work ahead of whoever consumes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from multimem_ray.prefetch import ahead, in_order


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n % 3 == 0 else 0)
        return n * n

    assert list(in_order(slow_first, range(20), threads)) == [n * n for n in range(20)]


def test_several_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    list(in_order(lambda _: both.wait(), range(4), 2))


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    found = in_order(str, items(), 3)
    assert next(found) == "0"
    assert taken == [0, 1, 2, 3]
    found.close()
    assert taken == [0, 1, 2, 3]


def broken(n: int) -> int:
    if n == 3:
        raise ValueError("number 3")
    return n


def test_an_error_is_raised_in_its_place() -> None:
    found = in_order(broken, range(9), 4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="number 3"):
        next(found)
    found = ahead(map(broken, range(9)), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="number 3"):
        next(found)
