"""Work ahead of whoever consumes it, in a thread or in several."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], size: int) -> Generator[T]:
    """Produce items in a thread of their own, up to ``size`` ahead of whoever consumes them."""
    ready: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put(_Raised(error))

    thread = threading.Thread(target=produce, daemon=True, name="ahead")
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


def in_order(do: Callable[[S], T], items: Iterable[S], threads: int) -> Generator[T]:
    """``do`` of every item, in their order, by several threads; one item more waits for a thread.

    Items are taken in the thread of whoever consumes.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[T]]()
        try:
            for item in items:
                waiting.append(pool.submit(do, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _Raised:
    error: BaseException
