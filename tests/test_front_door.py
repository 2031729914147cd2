"""``import multimem_ray``: what is there, what it loads, and what a notebook does with it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multimem_ray as mm
from tests.small import small_raw, write_shards

ROOT = Path(__file__).resolve().parents[1]


def said(code: str, **environment: str) -> str:
    """What a fresh Python prints."""
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_importing_it_loads_next_to_nothing() -> None:
    heavy = "{'torch', 'ray', 'numpy', 'pyarrow', 'pydantic'} & set(sys.modules)"
    assert said(f"import sys, multimem_ray; print({heavy})") == "set()"


def test_a_configuration_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, multimem_ray as mm; "
        "mm.load_config({'output': 'x', 'data': {'shards': 'y'}}); mm.audit; "
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    assert said(code) == "set()"


def test_reading_scores_needs_no_torch() -> None:
    code = (
        "import sys; from multimem_ray.results import estimate, select, summary, table, top; "
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    assert said(code) == "set()"


def test_every_name_is_there() -> None:
    for name in mm.__all__:
        assert getattr(mm, name) is not None
    assert dir(mm) == sorted(mm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        _ = mm.audits  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["audit", "report"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str) -> None:
    module = importlib.import_module(f"multimem_ray.{name}")
    assert callable(getattr(mm, name))
    assert sys.modules[f"multimem_ray.{name}"] is module


def test_overrides_are_text_or_a_mapping() -> None:
    raw = {"output": "x", "data": {"shards": "y"}}
    one = mm.load_config(raw, ["training.epochs=3"])
    assert one == mm.load_config(raw, {"training.epochs": 3})
    assert one.training.epochs == 3
    assert raw == {"output": "x", "data": {"shards": "y"}}


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "multimem_ray", "--version"]
    finished = subprocess.run(
        words, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == f"multimem {mm.__version__}"


def test_a_notebook_goes_all_the_way(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 40)
    config = mm.load_config(small_raw(shards, tmp_path / "out"))
    summary = mm.audit(config, executor="local")
    assert summary["coverage"]["agrees"]
    assert mm.score(config, executor="local")["coverage"] == summary["coverage"]


def test_an_executor_that_is_none(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 10, 1)
    config = mm.load_config(small_raw(shards, tmp_path / "out"))
    name: Any = "spark"
    with pytest.raises(mm.ConfigError, match="executor = 'spark': there are 'ray' and 'local'"):
        mm.audit(config, executor=name)
