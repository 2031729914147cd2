"""What README.md and docs/ tell a reader to type: it parses, and what is quick is run.

Every command of a shell block is given to the parser that would read it. Those of the README that
neither train nor need a cluster are run beside a small audit, as are its SQL and Python; YAML is
validated by the configuration's models.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import polars
import pytest
import typer
import yaml
from typer.testing import CliRunner

import multimem_ray as mm
from multimem_ray.cli import app
from multimem_ray.config import Config
from multimem_ray.models.presets import preset_names
from multimem_ray.setup import apply_overrides
from tests.docs.blocks import ROOT, Block, blocks, commands
from tests.mitigation.small_audit import small_audit

README = ROOT / "README.md"
TRAINS = {"audit", "train", "score", "embed", "evaluate", "mitigate", "demo"}
SERVES = {"view"}  # until it is stopped
BASE = {"output": "runs/first", "data": {"shards": "shards/*.tar"}}
LINES = [(block, words) for block in blocks("sh") for words in commands(block)]
QUICK = [
    words
    for block in blocks("sh", README, ROOT / "docs/quickstart.md")
    for words in commands(block)
    if words[0] == "multimem" and words[1] not in TRAINS | SERVES and "--probe" not in words
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README supposes it: shards, ``run.yaml``, and the audit ``runs/first``."""
    folder = tmp_path_factory.mktemp("readme")
    small_audit(folder, "runs/first")
    text = yaml.safe_dump({**BASE, "data": {"shards": str(folder / "shards/*.tar")}})
    (folder / "run.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(("block", "words"), LINES, ids=[" ".join(w)[:60] for _, w in LINES])
def test_a_command_is_understood_by_what_would_run_it(
    block: Block, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    match words:
        case ["multimem", *arguments]:
            understood(arguments)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), block
        case ["python", script, *arguments]:
            job_understood(script, arguments, monkeypatch)
        case ["ray", "job", "submit", *arguments]:
            from ray.dashboard.modules.job.cli import submit

            context = submit.make_context("submit", list(arguments))
            _, script, *rest = context.params["entrypoint"]
            job_understood(script, rest, monkeypatch)
        case _:
            pytest.fail(f"{block}: nothing here knows the command {words[0]}")


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_a_quick_command_of_the_readme_runs(
    words: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    ours = [moved(word, place, tmp_path) for word in words[1:]]
    if words[1] == "reshard":
        assert CliRunner().invoke(app, ["select", "runs/first", "--percent", "5"]).exit_code == 0
    result = CliRunner().invoke(app, ours)
    assert result.exit_code == 0, result.output
    assert result.output.strip()


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_configuration_is_valid(block: Block) -> None:
    valid(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", blocks("sql"), ids=str)
def test_a_query_gives_rows(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    rows = duckdb.sql(block.text).fetchall()
    assert rows == sorted(rows, key=lambda row: row[1] is not None and row[1], reverse=True)
    assert len(rows) == 20


@pytest.mark.parametrize("block", [b for b in blocks("python") if "--8<--" not in b.text], ids=str)
def test_python_runs(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)

    def load_config(raw: Mapping[str, Any]) -> Config:
        """The audit that is there already, for one of the same output that would train long."""
        valid(raw)
        assert raw["output"] == "runs/first"
        return Config.model_validate(json.loads(Path("runs/first/run.json").read_text())["config"])

    monkeypatch.setattr(mm, "load_config", load_config)
    exec(compile(block.text, str(block), "exec"), {"polars": polars})


def moved(word: str, place: Path, out: Path) -> str:
    """A word of a command with our shards, and what it writes elsewhere in a folder of the test."""
    if word.startswith("/data/shards/"):
        return str(place / "shards/*.tar")
    return re.sub(r"^/(tmp|data)/", f"{out}/", word)


def understood(arguments: list[str]) -> None:
    """The command exists, takes these options, and its --set make a valid configuration."""
    command, name = typer.main.get_command(app), ""
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"multimem has no command {name}"
        command = command.commands[name]
    context = command.make_context(name, list(arguments))
    if sets := context.params.get("set_"):
        valid(apply_overrides({}, sets))


def job_understood(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script exists and takes these arguments; those of a stage are those of its command."""
    path = ROOT / script
    assert path.exists(), f"{script} is not there"
    command = typer.main.get_command(app)
    if path.stem in getattr(command, "commands", {}):
        understood([path.stem, *arguments])
        return

    class Parsed(Exception):
        pass

    real = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, args: Any = None, *rest: Any) -> NoReturn:
        real(self, args, *rest)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


def valid(raw: Mapping[str, Any]) -> None:
    """Whether the models of the configuration take it, completed by what it leaves out."""
    completed = apply_overrides(BASE, [])
    for name, section in apply_overrides(raw, []).items():
        both = isinstance(section, dict) and isinstance(completed.get(name), dict)
        completed[name] = completed[name] | section if both else section
    if completed["data"].get("embeddings"):
        del completed["data"]["shards"]
    config = Config.model_validate(completed)
    assert config.model.preset in {None, *preset_names()}
