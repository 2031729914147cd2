"""Every reader gives something, or an error of ours: found cases, and what a property finds."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multimem_ray.errors import MultiMemError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_known_files(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for number in range(len(target.seeds()) + 20):
        with suppress(MultiMemError):
            target.read(mutated(target.seeds(), number), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]

    @settings(max_examples=1500, deadline=5000, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**40))
    def reads(number: int) -> None:
        with suppress(MultiMemError):
            target.read(mutated(target.seeds(), number), tmp_path)

    reads()


@pytest.mark.slow
def test_the_command_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "20000", "--first", "1000000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_mutation_is_a_function_of_its_number() -> None:
    seeds = TARGETS["shard"].seeds()
    assert [mutated(seeds, n) for n in range(40)] == [mutated(seeds, n) for n in range(40)]
