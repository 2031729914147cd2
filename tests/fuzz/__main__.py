"""``python -m tests.fuzz --inputs 100000``: so many inputs over all targets, and what they found.

Each target runs in a process of its own, which ends itself when an input takes more than five
seconds. An input is known by its target and number: ``--target shard --first 1234 --inputs 1`` runs
one of them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from multimem_ray.errors import MultiMemError
from tests.fuzz.mutations import mutated

SECONDS = 5.0
MEGABYTES = 1500


def fuzzed(name: str, first: int, count: int, note: Path) -> dict[str, Any]:
    """Outcomes of inputs by their kind, and an example of each that is a defect."""
    from tests.fuzz.targets import TARGETS

    target, kinds, defects = TARGETS[name], Counter[str](), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            note.write_text(str(number))
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                target.read(mutated(target.seeds(), number), Path(folder))
                kinds["read"] += 1
            except MultiMemError:
                kinds["refused"] += 1
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                kinds["defect"] += 1
                said = f"{type(error).__name__}: {error}"[:200]
                defects.setdefault(type(error).__name__, f"input {number}: {said}")
            faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"kinds": kinds, "defects": defects, "peak_mb": peak}


def apart(name: str, first: int, count: int) -> dict[str, Any]:
    """The same in a process of its own; a death is a defect, and the inputs behind it follow."""
    result: dict[str, Any] = {"kinds": Counter(), "defects": {}, "peak_mb": 0}
    end = first + count
    while first < end:
        with tempfile.NamedTemporaryFile("r") as note:
            command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--note", note.name]
            command += ["--first", str(first), "--inputs", str(end - first)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                part = json.loads(done.stdout.splitlines()[-1])
                first = end
            else:
                died = int(note.read() or first)
                said = f"input {died}: the process ended with {done.returncode}: "
                part = {"kinds": {"read or refused": died - first, "defect": 1}, "peak_mb": 0}
                part["defects"] = {f"death {done.returncode}": said + done.stderr[-500:]}
                first = died + 1
        result["kinds"].update(part["kinds"])
        result["defects"] = part["defects"] | result["defects"]
        result["peak_mb"] = max(result["peak_mb"], part["peak_mb"])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--target", help="this one alone")
    parser.add_argument("--note", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.note:
        result = fuzzed(given.target, given.first, given.inputs, Path(given.note))
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    from tests.fuzz.targets import TARGETS

    names = [given.target] if given.target else list(TARGETS)
    each, bad, total, started = -(-given.inputs // len(names)), 0, 0, time.monotonic()
    for name in names:
        result = apart(name, given.first, each)
        too_much = result["peak_mb"] > MEGABYTES
        bad += result["kinds"]["defect"] + too_much
        total += each
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(result["kinds"].items()))
        sys.stdout.write(f"{name}: {counts}; peak {result['peak_mb']} MB\n")
        sys.stdout.writelines(f"    {defect}\n" for defect in result["defects"].values())
    seconds = time.monotonic() - started
    sys.stdout.write(f"{total} inputs in {seconds:.0f} s, {bad} defects\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
