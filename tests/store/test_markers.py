"""Markers: the name of a file tells what was committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.storage import Storage
from multimem_ray.store.markers import load_commits, parse_marker
from multimem_ray.store.names import marker_name


def test_scores_by_hash_are_one_file_and_by_a_field_several() -> None:
    plain = parse_marker("x/" + marker_name("a.b-1", "run", "source", 8, 1, 2))
    assert plain is not None
    assert (plain.shard_id, plain.samples, plain.files, plain.stem) == ("a.b-1", 11, 1, "a.b-1")
    by_field = parse_marker("x/" + marker_name("a.b-1", "run", "source", 8, 1, 2, "d1", 3))
    assert by_field is not None
    assert (by_field.files, by_field.stem) == (3, "a.b-1.run.source.d1")
    empty = parse_marker(marker_name("a", "run", "source", 0, 1, 2))
    assert empty is not None
    assert empty.files == 0


@pytest.mark.parametrize(
    "name", ["README", "a.json", "a.r.s.1-2.json", "a.r.s.1-2-x.json", "a.r.s.1-2-3.parquet"]
)
def test_other_files_are_no_markers(name: str) -> None:
    assert parse_marker(f"commits/{name}") is None


def test_other_files_in_the_folder_are_no_markers(tmp_path: Path) -> None:
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / marker_name("a", "r", "s", 1, 2, 3)).touch()
    (tmp_path / "commits" / "notes.txt").write_text("x")
    (tmp_path / "commits" / "a.b.c.1-2.json").write_text("{}")
    assert len(load_commits(Storage(), str(tmp_path))) == 1
