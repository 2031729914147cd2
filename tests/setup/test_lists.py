"""Lists that have little or nothing to do with the shards are told by a plan, and by a run."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.audit import announce, plan
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from tests.small import QUIET, small_config, small_run, write_shards

OTHERS = [f"other{number}" for number in range(400)]


def few(folder: Path) -> str:
    (folder / "few.txt").write_text("\n".join(["s0001", "s0002", *OTHERS]))
    return str(folder / "few.txt")


def given(members: str) -> str:
    one = f"{{checkpoint: local:/no/such, members: {members}}}"
    return f"design.given=[{one}, {{checkpoint: local:/no/other, members: none}}]"


def test_few_samples_of_a_given_model_are_told(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "design.kind=given", "design.models=2", given(few(tmp_path)))
    assert len(shards.warnings) == 1
    assert f"design.given.0.members: {tmp_path}/few.txt: few of its 402" in shards.warnings[0]
    assert "has 'other0', 'other1', 'other2', the shards have 's0000'" in shards.warnings[0]
    told = Console(file=io.StringIO(), width=2000)
    announce(run.config, Progress(told))
    assert "warning: design.given.0.members" in told.file.getvalue()  # type: ignore[attr-defined]


def test_a_list_of_groups_is_compared_with_groups(tmp_path: Path) -> None:
    (tmp_path / "groups.txt").write_text("tape-3\ntape-4\n")
    by = ("design.kind=given", "design.models=2", "design.group=json.source")
    _, shards = small_run(tmp_path, *by, given(str(tmp_path / "groups.txt")))
    assert not shards.warnings
    (tmp_path / "groups.txt").write_text("s0001\n")
    with pytest.raises(ConfigError, match="'s0001', the shards have 'tape-0'"):
        small_run(tmp_path, *by, given(str(tmp_path / "groups.txt")))


def test_a_plan_tells_of_a_table_of_groups(tmp_path: Path) -> None:
    table = pa.table({"key": ["s0001", *OTHERS], "group": ["a"] * 401})
    pq.write_table(table, tmp_path / "groups.parquet")
    shards = write_shards(tmp_path / "shards")
    config = small_config(
        shards, tmp_path / "out", f"design.group={tmp_path}/groups.parquet", "design.models=2"
    )
    hints = plan(config, QUIET).hints
    assert any("groups.parquet: few of its 401 samples" in hint for hint in hints)
    pq.write_table(table.slice(1), tmp_path / "groups.parquet")
    with pytest.raises(ConfigError, match="none of its 400 samples stands in these shards"):
        plan(config, QUIET)


def test_truth_of_other_shards_is_refused_before_training(tmp_path: Path) -> None:
    rows = {"shard": ["x.tar"], "key": ["s0001"], "planted": [True]}
    pq.write_table(pa.table(rows), tmp_path / "planted.parquet")
    with pytest.raises(ConfigError, match=r"data\.planted: .*none of its 1 samples stands"):
        small_run(tmp_path, f"data.planted={tmp_path}/planted.parquet")


def test_a_list_to_be_mitigated_is_compared_before_training(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s0001.png\n")
    by = (f"mitigation.references={tmp_path}/none", f"mitigation.samples={tmp_path}/list.txt")
    with pytest.raises(ConfigError, match=r"mitigation\.samples.*these are file names"):
        small_run(tmp_path, "mitigation.kind=in_training", "mitigation.by=list", *by)
