"""YAML as people mean it, and paths with what the environment puts into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.setup import load
from multimem_ray.setup.yaml_text import expanded, parse, parse_value

MINIMAL = "output: out\ndata: {shards: x}\n"
MINIMAL_AS_MAPPING = parse(MINIMAL)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1e3", 1000.0),
        ("5e-4", 5e-4),
        ("1_000", 1000),
        ("-3", -3),
        (".5", 0.5),
        ("0x10", 16),
        ("'010'", "010"),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    got = parse(f"a: {text}")["a"]
    assert got == value
    assert type(got) is type(value)


def test_names_are_text() -> None:
    assert parse("no: 1\n7: 2\n") == {"no": 1, "7": 2}
    with pytest.raises(ConfigError, match="line 1, column 1: a name must be text"):
        parse("{a: 1}: 2")


def test_what_two_readers_read_differently_is_refused() -> None:
    with pytest.raises(ConfigError, match="line 2, column 4: 010 is eight or ten"):
        parse("b: 1\na: 010\n")
    with pytest.raises(ConfigError, match="line 3, column 1: 'training' stands twice"):
        parse("training: {epochs: 3}\noutput: x\ntraining: {lr: 1}\n")
    merged = parse("x: &q {a: 1, b: 1}\ny:\n  <<: *q\n  b: 2\n")
    assert merged["y"] == {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse("a: !!python/object/apply:os.system [true]")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("runs/exp #1", "runs/exp #1"),
        ("#1", "#1"),
        ("'a #1'", "a #1"),
        ("[2, 8]", [2, 8]),
        ("null", None),
        ("", None),
    ],
)
def test_overrides_hold_no_comment(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_a_comment_after_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="ends before its '#'"):
        parse_value("[2, 8] #x")


def test_paths_take_home_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("SETS", "/sets")
    monkeypatch.delenv("NOBODY", raising=False)
    path = tmp_path / "run.yaml"
    path.write_text(
        "output: ~/runs/$$x\n"
        "data: {shards: '$SETS/{0..3}.tar::~/b.tar', fields: {text: $SETS}}\n"
        "resources: {cache_dir: '${SETS}/cache'}\n"
    )
    config = load(path)
    assert config.output == "/home/ada/runs/$x"
    assert config.data.shards == "/sets/{0..3}.tar::/home/ada/b.tar"
    assert config.resources.cache_dir == "/sets/cache"
    assert config.data.fields == {"text": "$SETS"}, "no path"
    assert expanded(["~/a", 3], "k") == ["/home/ada/a", 3]
    with pytest.raises(ConfigError, match=re.escape("output: $NOBODY is not set ($NOBODY/x)")):
        load(path, ["output=$NOBODY/x"])


@pytest.mark.parametrize("section", ["training", "design", "resources", "storage", "held_out"])
def test_an_emptied_section_is_none(tmp_path: Path, section: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{MINIMAL}{section}:\n  # epochs: 3\n")
    assert load(path) == load(MINIMAL_AS_MAPPING)


def test_an_emptied_section_below_another_is_none() -> None:
    emptied = {**MINIMAL_AS_MAPPING, "resources": {"train": None, "score": {"cpus": 2}}}
    assert load(emptied).resources.score.cpus == 2


def test_two_outputs_that_differ_after_a_hash_are_two() -> None:
    outputs = {load(MINIMAL_AS_MAPPING, [f"output=runs/exp #{n}"]).output for n in (1, 2)}
    assert outputs == {"runs/exp #1", "runs/exp #2"}
