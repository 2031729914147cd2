"""The command line: what a person types, and what they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from multimem_ray import cli
from multimem_ray.store.names import partition_of
from tests.results.fake_run import fake_run
from tests.small import write_shards


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit status of ``multimem WORDS``."""
    monkeypatch.setattr("sys.argv", ["multimem", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


Output = pytest.CaptureFixture[str]


def test_help_lists_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert run(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for name in ("audit", "train", "score", "report", "top", "status", "errors", "plant", "demo"):
        assert name in text


def test_config_show_is_a_config(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    sets = ("--set", "output=x", "--set", "data.shards=y", "--set", "training.epochs=3")
    assert run(monkeypatch, "config", "show", *sets) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["training"]["epochs"] == 3
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert run(monkeypatch, "config", "show", str(path)) == 0
    assert capsys.readouterr().out == text


def test_config_schema_and_presets(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert run(monkeypatch, "config", "schema") == 0
    assert "held_out" in json.loads(capsys.readouterr().out)["properties"]
    assert run(monkeypatch, "config", "presets") == 0
    assert "tiny" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["audit", "none.yaml"], 2, "none.yaml: no such config file"),
        (["audit", "--set", "output=o", "--set", "data.shard=x"], 2, "did you mean 'shards'"),
        (["audit", "--set", "output=o", "--set", "data.shards=none/*.tar"], 1, "none/*.tar"),
        (["status", "nowhere"], 1, "no run there"),
        (["top", "nowhere"], 1, "multimem audit"),
    ],
)
def test_errors_are_one_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    tmp_path: Path,
    words: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == status
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert "Traceback" not in shown


def test_a_modality_that_no_sample_has(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", 6, 1)
    sets = ["--set", f"data.shards={shards}", "--set", f"output={tmp_path / 'o'}"]
    fields = "data.fields={text: txt, video: mp4}"
    assert run(monkeypatch, "audit", *sets, "--set", fields) == 2
    assert "data.fields.video: none of the first 6 samples" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_top_errors_and_status_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    made = fake_run(tmp_path)
    assert run(monkeypatch, "top", made.output, "-n", "3", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    best = sorted(made.rows, key=lambda r: -(r["multimem"] or -9))[:3]
    assert [r["key"] for r in rows] == [r["key"] for r in best]
    assert run(monkeypatch, "top", made.output, "-n", "3", "--by", "cmc_out") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run(monkeypatch, "top", made.output, "--by", "cmc_uot") == 2
    assert "did you mean 'cmc_out'" in capsys.readouterr().err
    partition = next(Path(made.output, "scores").iterdir()).name
    assert run(monkeypatch, "top", made.output, "--json", "--partition", partition) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert {partition_of(row["shard"], 16) for row in rows} == {partition}
    assert run(monkeypatch, "top", made.output, "--partition", "partition=999") == 2
    assert "there is no partition 'partition=999'; did you mean" in capsys.readouterr().err
    assert run(monkeypatch, "errors", made.output) == 0
    shown = capsys.readouterr().out
    assert "decode/undecodable" in shown
    assert "(shard)" in shown


def test_plant_writes_a_copy_and_its_truth(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", 20, 2)
    out = tmp_path / "planted"
    assert run(monkeypatch, "plant", f"{shards}/*.tar", "--out", str(out), "--fraction", "0.2") == 0
    shown = capsys.readouterr()
    assert "4 of 20 samples planted" in shown.out
    assert "label: json.label" in shown.err
    assert (out / "planted.parquet").exists()
    assert len(list(out.glob("*.tar"))) == 2
    bad = run(monkeypatch, "plant", f"{shards}/*.tar", "--out", str(out), "--field", "text")
    assert bad == 2


def test_select_writes_lists_that_reshard_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "shards", 20, 2)
    names = sorted(str(path) for path in shards.glob("*.tar"))
    keys = [[f"s{number:04d}" for number in range(10 * i, 10 * i + 10)] for i in range(2)]
    made = fake_run(tmp_path, shard_names=names, keys=keys)
    assert run(monkeypatch, "select", made.output, "--top", "3", "--name", "worst") == 0
    shown = capsys.readouterr().out
    assert "3 samples to remove, 17 to keep" in shown
    remove = f"{made.output}/selections/worst/remove"
    assert f"--remove {remove}" in shown
    out = tmp_path / "out"
    assert run(monkeypatch, "reshard", str(shards), "--out", str(out), "--remove", remove) == 0
    assert "17 of 20 samples written to 2 shards" in capsys.readouterr().out
    assert run(monkeypatch, "reshard", str(shards), "--out", str(out), "--remove", remove) == 0
    assert "2 shards had been rewritten before" in capsys.readouterr().out


def test_select_and_reshard_refuse_what_is_ambiguous(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    made = fake_run(tmp_path)
    assert run(monkeypatch, "select", made.output, "--top", "3", "--percent", "1") == 2
    assert "exactly one of" in capsys.readouterr().err
    assert run(monkeypatch, "select", made.output, "--top", "3", "--se-margin", "2") == 2
    assert "belongs to --above" in capsys.readouterr().err
    assert run(monkeypatch, "select", made.output, "--random", "5", "--seed", "3") == 0
    about = json.loads((Path(made.output) / "selections/random/selection.json").read_text())
    assert about["asked"] == {"random": 5, "seed": 3}
    assert about["removed"] == 5
    assert run(monkeypatch, "select", made.output, "--top", "3", "--datacomp") == 2
    assert "no uid of 32" in capsys.readouterr().err
    assert run(monkeypatch, "reshard", "x.tar", "--out", str(tmp_path / "out")) == 2
    assert "either --remove or --keep" in capsys.readouterr().err


def test_what_is_no_error_of_ours_says_so_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("no\x1b[31m such\nthing")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("multimem_ray.load_config", broken)
    assert run(monkeypatch, "audit", "x.yaml") == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b" not in told
    assert "defect" in told
    (log,) = tmp_path.glob("multimem-*.log")
    assert str(log) in told
    assert "Traceback" in log.read_text()


def test_a_full_disk_behind_the_output_is_one_line() -> None:
    command = [sys.executable, "-m", "multimem_ray", "config", "schema"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: output: No space left on device\n"


def test_an_output_that_is_not_utf_8_gets_what_it_can_show() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "multimem_ray", "status", "nöwhere…"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: n\\xf6where\\u2026")
    assert "Traceback" not in ended.stderr
