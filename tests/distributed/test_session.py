"""Starting Ray: quiet when it works, everything shown when it does not, three chances."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray

from multimem_ray.distributed import session


def test_native_chatter_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: os.write(2, b"native chatter\n"))
    session.start_local()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_was_said_is_shown_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: Any) -> None:
        os.write(2, b"the reason\n")
        raise RuntimeError("no port")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(RuntimeError, match="no port"):
        session.start_local()
    assert "the reason" in capfd.readouterr().err


def test_a_slow_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def slow(**settings: Any) -> None:
        tries.append(settings)
        if len(tries) < 3:
            raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    session.start_local(num_cpus=1)
    assert len(tries) == 3
    assert all(settings["num_cpus"] == 1 for settings in tries)
