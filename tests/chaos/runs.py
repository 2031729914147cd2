"""Small audits that are disturbed at random, and what must be true of each when all is over.

A run is an audit of a few samples in one process, on a disk or in S3, disturbed once to three times
and then run once more in peace:

    kill     killed with -9
    stop     told to end (SIGTERM)
    freeze   stopped by the system, replaced by another that finishes or is killed, and woken
    two      begun twice at once
    full     no file may grow beyond some bytes, as on a full disk
    clock    the clock jumps by hours, back and forth; then killed
    store    a fifth of all requests to S3 fails, is late, or is cut

Whatever came of it: every sample is scored once, as in an undisturbed run to 1e-5, and
``multimem verify --deep`` finds nothing. Every driver is forked from a process that has loaded what
it takes and computed nothing, so that starting one costs no seconds.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.small import small_raw

KINDS = ("kill", "stop", "freeze", "two", "full", "clock", "store")
ENDED, REPLACED, TERMINATED = 0, 1, 143
_LONGEST_S = 240.0
_SPOILED = 0.2


@dataclass
class Child:
    """A forked process and where it writes."""

    pid: int
    log: Path
    status: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal; nothing if it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = _LONGEST_S) -> int:
        """Its exit status, negative for a signal; it is killed when it takes too long."""
        until = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                self.signal(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"still running after {seconds:.0f} s: {self.said()}")
            else:
                time.sleep(0.01)
        return self.status

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


def fork(work: Callable[[], int | None], log: Path) -> Child:
    """A process that does this and ends with what it returns; what it says goes to a file."""
    pid = os.fork()
    if pid:
        return Child(pid, log)
    status = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True)
        status = work() or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - it is told, and the process ends
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@dataclass
class Chaos:
    """Disturbed runs below one folder.

    Args:
        folder: Receives everything.
        shards: Of the audits.
        endpoint: An S3 server; None: all runs are on the disk.
    """

    folder: Path
    shards: Path
    endpoint: str | None = None
    expected: Path = field(init=False)
    seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.expected = self.folder / "expected.json"

    def measure(self) -> None:
        """Run one in peace: what the others must come to, and how long one takes."""
        place = self.folder / "undisturbed"
        started = time.monotonic()
        driver = self._driver(str(place / "out"), place, "peace")
        if driver.wait():
            raise RuntimeError(driver.said())
        self.seconds = time.monotonic() - started
        told = fork(lambda: keep(str(place / "out"), None, self.expected), place / "kept.log")
        if told.wait():
            raise RuntimeError(told.said())

    def run(self, seed: int) -> tuple[list[str], list[str]]:
        """One disturbed run.

        Returns:
            What was done to it, and what is wrong afterwards (nothing, if all is well).
        """
        rng, place = random.Random(seed), self.folder / f"run-{seed}"
        place.mkdir(parents=True)
        remote = self.endpoint is not None and rng.random() < 0.4
        output = f"s3://chaos/{self.folder.name}-{seed}/out" if remote else str(place / "out")
        # Files on this disk are none of a run in S3.
        kinds = [kind for kind in KINDS if kind != ("full" if remote else "store")]
        done, wrong = ["s3" if remote else "disk"], list[str]()
        for number in range(rng.randint(1, 3)):
            kind = rng.choice(kinds)
            done.append(kind)
            try:
                wrong += self._disturbed(kind, rng, output, place, f"{number}-{kind}")
            except TimeoutError as error:
                wrong.append(f"{kind}: {error}")
        last = self._driver(output, place, "last")
        try:
            if last.wait():
                wrong.append(f"the last, in peace: {last.said()[-2000:]}")
            endpoint = self.endpoint if remote else None
            told = fork(lambda: judge(output, endpoint, self.expected), place / "judged.log")
            if told.wait():
                wrong.append(told.said())
        except TimeoutError as error:
            wrong.append(str(error))
        return done, wrong

    def _disturbed(
        self, kind: str, rng: random.Random, output: str, place: Path, name: str
    ) -> list[str]:
        """What is wrong with how the drivers of one disturbance ended."""
        moment = rng.uniform(0.02, 1.1) * self.seconds
        if kind == "store":
            with self._faulty(rng.randrange(1 << 30), place / f"{name}-store") as endpoint:
                one = self._driver(output, place, name, endpoint=endpoint)
                return _ended(one, {ENDED, 1})
        if kind == "full":
            most = rng.choice([4_000, 20_000, 60_000])  # what it says has room
            return _ended(self._driver(output, place, name, most_bytes=most), {ENDED, 1})
        one = self._driver(output, place, name, clock=rng.random() if kind == "clock" else None)
        if kind == "two":
            time.sleep(moment / 2)
            other = self._driver(output, place, f"{name}-other")
            return [*_ended(one, {ENDED, REPLACED}), *_ended(other, {ENDED, REPLACED})]
        time.sleep(moment)
        if kind in {"kill", "clock"}:
            one.signal(signal.SIGKILL)
            return _ended(one, {ENDED, -signal.SIGKILL})
        if kind == "stop":
            one.signal(signal.SIGTERM)
            return _ended(one, {ENDED, TERMINATED}, 60.0)
        one.signal(signal.SIGSTOP)
        other = self._driver(output, place, f"{name}-other")
        wrong = []
        if rng.random() < 0.3:
            time.sleep(rng.uniform(0.02, 1.0) * self.seconds)
            other.signal(signal.SIGKILL)
            wrong += _ended(other, {ENDED, -signal.SIGKILL})
        else:
            wrong += _ended(other, {ENDED})
        one.signal(signal.SIGCONT)
        return [*wrong, *_ended(one, {ENDED, REPLACED})]

    def _driver(
        self,
        output: str,
        place: Path,
        name: str,
        *,
        endpoint: str | None = None,
        most_bytes: int | None = None,
        clock: float | None = None,
    ) -> Child:
        """``multimem audit`` in a process of its own.

        Args:
            endpoint: Of S3; default: the server itself.
            most_bytes: That a file may have.
            clock: Seed of a clock that jumps.
        """
        raw = dict(small_raw(self.shards, place / "out")) | {"output": output}
        if output.startswith("s3://"):
            raw["storage"] = {"endpoint_url": endpoint or self.endpoint, "timeout_s": 5}
        place.mkdir(parents=True, exist_ok=True)
        config = place / f"{name}.json"
        config.write_text(json.dumps(raw))  # which is YAML

        def work() -> None:
            from multimem_ray import cli

            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            if clock is not None:
                _jump(clock)
            sys.argv = ["multimem", "audit", str(config), "--local"]
            cli.main()

        return fork(work, place / f"{name}.log")

    @contextmanager
    def _faulty(self, seed: int, note: Path) -> Iterator[str]:
        """The endpoint of a store that is not well, in a process of its own."""

        def work() -> None:
            from tests.faulty_s3 import FaultyStore

            store = FaultyStore(str(self.endpoint), _SPOILED, 0.2, seed)
            note.write_text(store.endpoint)
            store.serve_forever()

        proxy = fork(work, note.with_suffix(".log"))
        try:
            while not note.exists() or not note.read_text():
                time.sleep(0.02)
            yield note.read_text()
        finally:
            proxy.signal(signal.SIGKILL)
            proxy.wait()


def _jump(seed: float) -> None:
    """From now on the clock of this process is wrong by up to a day, which changes now and then."""
    rng, real = random.Random(seed), time.time

    def wrong() -> float:
        if rng.random() < 0.2:
            state["off"] = rng.uniform(-86_400, 86_400)
        return real() + state["off"]

    state = {"off": 0.0}
    time.time = wrong


def _ended(child: Child, statuses: set[int], seconds: float = _LONGEST_S) -> list[str]:
    """What is wrong with the end of a driver."""
    status, said = child.wait(seconds), child.said()
    if status not in statuses:
        return [f"{child.log.stem} ended with {status}, not one of {statuses}: {said[-2000:]}"]
    if "Traceback" in said:
        return [f"{child.log.stem} showed a traceback: {said[-3000:]}"]
    return []


def keep(output: str, endpoint: str | None, place: Path) -> None:
    """Write the scores of a run."""
    place.write_text(json.dumps(_rows(output, endpoint)))


def judge(output: str, endpoint: str | None, expected: Path) -> int:
    """Whether a run is what it must be; prints what is wrong, returns how much."""
    from multimem_ray.storage import Storage
    from multimem_ray.verify.verify import verify
    from tests.small import QUIET

    wrong = list[str]()
    rows, known = _rows(output, endpoint), json.loads(expected.read_text())
    if sorted(key for key, _ in rows) != sorted(key for key, _ in known):
        wrong.append(f"other samples are scored: {len(rows)} for {len(known)}")
    there = dict(rows)
    for key, values in known:
        off = max(abs(a - b) for a, b in zip(there.get(key, [9.0] * 99), values, strict=False))
        if off > 1e-5:
            wrong.append(f"{key} is off by {off}")
    finding = verify(output, Storage(_settings(endpoint)), QUIET, deep=True)
    wrong += [fault.what for fault in finding.faults]
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    return min(len(wrong), 100)


def _rows(output: str, endpoint: str | None) -> list[tuple[str, list[float]]]:
    """Key and numbers of every row, as often as it stands there."""
    from multimem_ray.results.table import ScoreTable
    from multimem_ray.storage import Storage

    table = ScoreTable(output, Storage(_settings(endpoint)))
    columns = ["key", "multimem", "cmc_in", "cmc_out", "cmc"]
    return [
        (row["key"], [row["multimem"], row["cmc_in"], row["cmc_out"], *row["cmc"]])
        for batch in table.batches(columns)
        for row in batch.to_pylist()
    ]


def _settings(endpoint: str | None) -> Any:
    from multimem_ray.config import StorageConfig

    return StorageConfig(endpoint_url=endpoint)
