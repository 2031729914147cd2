"""What is found in the shards, and what is refused before anything starts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from multimem_ray.audit import announce
from multimem_ray.errors import ConfigError, ShardNotFoundError
from multimem_ray.progress import Progress
from multimem_ray.setup import inspect
from multimem_ray.shards.writer import ShardWriter
from tests.small import members, small_config, small_run, write_shards


def test_fields_and_label_are_found(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    assert dict(run.fields) == {"audio": "flac", "image": "png", "text": "txt"}
    assert run.label == "json.label"
    assert len(shards.scored) == 2


def test_held_out_shards_are_not_scored(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    first = min(shards.glob("*.tar"))
    run, found = small_run(tmp_path, f"held_out.shards={first}")
    assert [s.url for s in found.held_out] == [str(first)]
    assert [s.url for s in found.scored] == [str(max(shards.glob("*.tar")))]
    assert run.held_out_rule.is_held_out(["anything"], str(first)).all()
    with pytest.raises(ConfigError, match="all shards are held out"):
        small_run(tmp_path, f"held_out.shards={shards}")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ShardNotFoundError, match="none"):
        inspect(small_config(tmp_path / "none", tmp_path / "out"))
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(
        ConfigError, match=r"no readable sample.*a\.tar: no tar header at the start"
    ):
        inspect(small_config(tmp_path / "junk", tmp_path / "out"))


def test_settings_of_an_unknown_modality_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modalities\.imagee|'imagee'"):
        small_run(tmp_path, "modalities.imagee={size: 3}")
    with pytest.raises(ConfigError, match="sise"):
        small_run(tmp_path, "modalities.image={sise: 3}")


def test_members_that_nothing_reads_are_named(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "shards"), max_samples=40) as writer:
        for number in range(20):
            extra = {"npy": b"x"} if number % 2 else {}
            writer.write(f"s{number}", {**members(number), **extra, "1.txt": b"one more"})
    run, shards = small_run(tmp_path)
    assert "in 20 samples: 1.txt (20), npy (10); a key ends" in shards.warnings[0]
    told = Console(file=io.StringIO(), width=300)
    announce(run.config, Progress(told))
    assert "nothing reads, in 20 samples: 1.txt (20), npy (10); a key ends" in told.file.getvalue()  # type: ignore[attr-defined]
    told = Console(file=io.StringIO(), width=300)
    announce(small_run(tmp_path / "other")[0].config, Progress(told))
    assert "nothing reads" not in told.file.getvalue()  # type: ignore[attr-defined]
