"""Benchmarks run by name, take the options that they have, and end with a status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.benchmarks import decoding, embeddings, runner
from jobs.benchmarks.figures import Figures
from jobs.benchmarks.thresholds import load_thresholds


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Options of the benchmarks that were run, which measure nothing but an impossible ratio."""
    seen: dict[str, object] = {}

    def measure(options: object, folder: Path) -> Figures:
        assert folder.is_dir()
        seen[type(options).__module__.rsplit(".", 1)[1]] = options
        figures = Figures()
        figures.add("ours", {"by CPU time": 0.001})
        return figures

    for module in (decoding, embeddings):
        monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(runner, "NAMES", ("decoding", "embeddings"))
    return seen


def test_named_or_all_with_the_options_of_each(measured: dict[str, object]) -> None:
    assert runner.run_command(["embeddings", "--quick", "--samples", "7"])
    assert measured.keys() == {"embeddings"}
    assert measured["embeddings"] == embeddings.Options(samples=7, dim=16, models=2, repeats=1)
    runner.run_command(["--repeats", "2", "--shards", "a.tar", "b.tar"])
    assert measured["decoding"] == decoding.Options(shards=("a.tar", "b.tar"), repeats=2)
    assert measured["embeddings"] == embeddings.Options(repeats=2)


def test_what_fell_short_is_said_and_written(
    measured: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    assert not runner.run_command(["embeddings", "--json", str(output)])
    content = json.loads(output.read_text())
    assert content["machine"]["cores"] >= 1
    assert content["benchmarks"]["embeddings"]["options"]["dim"] == 512
    bound = load_thresholds()["embeddings"]["ours"]["by CPU time"].bound
    assert content["short"][0].startswith(
        f"embeddings: ours, by CPU time: 0.001, expected at least {bound}"
    )
    assert "fell short: embeddings: ours" in capsys.readouterr().out
    assert runner.run_command(["embeddings", "--quick"]), "the smallest form is not judged"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nonsense"], "no benchmark nonsense"), (["embeddings", "--shards", "a"], "--shards")],
)
def test_what_there_is_not_is_an_error(
    arguments: list[str],
    said: str,
    measured: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        runner.run_command(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", runner.NAMES)
def test_every_benchmark_can_be_asked_for_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        runner.run_command([name, "--help"])
    said = capsys.readouterr().out
    assert any(option in said for option in ("--models", "--shards", "--samples"))
