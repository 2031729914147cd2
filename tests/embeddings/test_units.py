"""Units: what is scored and committed at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimem_ray.embeddings.units import load_units
from multimem_ray.setup import inspect
from multimem_ray.store.commits import commit_log
from tests.embeddings.kept import (
    N,
    config_of,
    keys_of,
    score,
    table,
    vectors,
    write,
    written,
)


def test_a_unit_is_committed_once_and_a_changed_file_is_noticed(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    paths = written(tmp_path, found)
    config = config_of(tmp_path / "out", paths)
    run, shards = score(config)
    done, todo = commit_log(run).split(shards.scored)
    assert (len(done), len(todo)) == (1, 0)
    write(Path(paths[1]), table(keys_of(N), vectors(N, 40, 9)))
    again, changed = inspect(config)
    done, todo = commit_log(again).split(changed.scored)
    assert (len(done), len(todo)) == (0, 1)
    assert again.fingerprint == run.fingerprint


def test_units_come_back_as_they_were_stored(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    run, shards = score(config_of(tmp_path / "out", written(tmp_path, found)))
    units = load_units(run)
    assert [unit.info for unit in units.units] == list(shards.scored)
    (unit,) = units.units
    assert (unit.rows, unit.bucket, len(unit.places)) == (N, -1, 2)
    assert units.of(unit.info.url) is unit
    assert (units.spec.widths, units.spec.views) == ([24, 40], [1, 1])
