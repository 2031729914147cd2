"""Ctrl-C and SIGTERM: a word at once, what is under way is kept, and an end within seconds.

The first signal is answered at once and raises :class:`Stopped` where the main thread is, so that
everything unwinds; inside :func:`deferred` it is only noted, for work that must reach a place where
it can be kept. What does not unwind within ``LIMIT_S`` is left, and a second signal does not wait
at all. A private Ray ends with its driver either way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

KEEPING_S = 6.0
"""Longest wait for work in other processes to be kept."""

LIMIT_S = 9.5
"""After so many seconds the process ends, whatever it waits for."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or whoever runs the process, wants it to end."""


class _Stop:
    """What is known of signals in this process."""

    number: int | None = None
    deferring = False


def handle_signals() -> None:
    """Answer both signals in this process from now on; one that is ignored stays so."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """Have the handlers of before after a block that sets its own, as starting Ray does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not set by Python, which cannot set it again
                signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only note a signal inside the block, which looks at :func:`status` and ends early.

    Raises:
        Stopped: After the block, if one came.
    """
    if _Stop.deferring or all(signal.getsignal(one) is not _answer for one in _SIGNALS):
        yield  # an interrupt goes its usual way: in a notebook, say
        return
    _Stop.deferring = True
    try:
        yield
    finally:
        _Stop.deferring = False
        if _Stop.number is not None:
            raise Stopped


def status() -> int | None:
    """The exit status after a signal, as a shell has it; None: none came."""
    return None if _Stop.number is None else 128 + _Stop.number


def _answer(number: int, frame: FrameType | None) -> None:
    del frame
    if _Stop.number is not None:
        _leave(number)
    _Stop.number = number
    # Not through a stream: the signal may have come while one was written to.
    _write("\nstopping: what is done is kept; once more, and it ends at once\n")
    end = threading.Timer(LIMIT_S, _leave, (number,))
    end.daemon = True
    end.start()
    if not _Stop.deferring:
        raise Stopped


def _leave(number: int) -> None:
    if os.isatty(2):
        _write("\x1b[?25h")  # bars hide the cursor
    os._exit(128 + number)


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
