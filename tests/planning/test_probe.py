"""What a sample costs here."""

from __future__ import annotations

import pytest

from multimem_ray.planning import probe


def test_a_process_takes_its_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0.5 < probe.start_seconds() < 120
