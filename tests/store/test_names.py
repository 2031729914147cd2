"""Names on disk: what one function writes, another reads."""

from __future__ import annotations

from multimem_ray.storage import FileInfo
from multimem_ray.store.markers import parse_marker
from multimem_ray.store.names import marker_name, part_name, part_range, shard_id, source_version


def test_a_part_is_told_by_its_name() -> None:
    assert part_name(0, 2048, ".arrow") == "000000000-000002048.arrow"
    assert part_range("000000000-000002048.arrow", ".arrow") == (0, 2048)
    assert part_range("000000000-000002048.arrow", ".safetensors") is None
    assert part_range("attempt.json", ".arrow") is None


def test_a_marker_is_told_by_its_name() -> None:
    name = shard_id("/data/a.b c.tar")
    assert name.startswith("a.b_c-")
    source = source_version(FileInfo("/data/a.b c.tar", 100, "v1"))
    commit = parse_marker("x/" + marker_name(name, "f" * 16, source, 8, 1, 2))
    assert commit is not None
    assert (commit.shard_id, commit.source, commit.samples) == (name, source, 11)


def test_a_source_changes_with_size_and_version() -> None:
    versions = {source_version(FileInfo("a", s, v)) for s, v in ((1, "x"), (2, "x"), (1, "y"))}
    assert len(versions) == 3
