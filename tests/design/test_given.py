"""Models trained elsewhere: what each of them saw, by list, by word and by its own record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError, DesignError
from multimem_ray.run import Run
from multimem_ray.setup import resolve
from tests.small import scored, small_run, trained


def given(tmp_path: Path, *models: tuple[str, str], name: str = "again") -> tuple[Run, object]:
    listed = ", ".join(f"{{checkpoint: {c}, members: {m}}}" for c, m in models)
    (tmp_path / name).mkdir(exist_ok=True)
    if not (tmp_path / name / "shards").exists():
        (tmp_path / name / "shards").symlink_to(tmp_path / "first" / "shards")
    sets = ("design.kind=given", f"design.given=[{listed}]", "design.models=2")
    return small_run(tmp_path / name, *sets)


def test_recorded_rules_and_lists_reproduce_the_scores_of_the_run(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path / "first")
    trained(run)
    expected = scored(run)
    folders = [run.model_folder(m).url for m in run.design.model_ids()]
    keys = [f"s{number:04d}" for number in range(40)]
    members = run.design.members(keys) & ~run.held_out_rule.is_held_out(keys, "")[:, None]
    text, parquet = tmp_path / "f.txt", tmp_path / "g.parquet"
    text.write_text("\n".join(k for k, m in zip(keys, members[:, 0], strict=True) if m) + "\n\n")
    pq.write_table(
        pa.table({"key": [k for k, m in zip(keys, members[:, 1], strict=True) if m]}), parquet
    )
    for name, said in (("recorded", ("recorded", "recorded")), ("lists", (text, parquet))):
        again, _ = given(tmp_path, *zip(folders, map(str, said), strict=True), name=name)
        assert all(again.is_trained(m) for m in again.design.model_ids())
        np.testing.assert_array_equal(again.design.members(keys), members)
        # The same samples are held out: of those that nobody saw.
        np.testing.assert_array_equal(
            again.held_out_rule.is_held_out(keys, "x"), run.held_out_rule.is_held_out(keys, "x")
        )
        rescored = scored(again)
        for column in ("key", "multimem", "cmc_in", "attribution_text", "member"):
            assert rescored[column].to_pylist() == expected[column].to_pylist(), column


def test_all_and_none(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path / "first")
    trained(run)
    folders = [run.model_folder(m).url for m in run.design.model_ids()]
    again, _ = given(tmp_path, (folders[0], "all"), (folders[1], "none"))
    np.testing.assert_array_equal(again.design.members(["a", "b"]), [[True, False]] * 2)
    assert not again.held_out_rule.is_held_out([f"k{i}" for i in range(200)], "x").any()


def test_what_a_model_saw_must_be_known(tmp_path: Path) -> None:
    small_run(tmp_path / "first")
    with pytest.raises(DesignError, match=r"does not say what it trained on.*file of keys"):
        given(tmp_path, ("/nowhere", "recorded"), ("/nowhere", "all"))
    with pytest.raises(DesignError, match=r"members '/no/list\.txt' is none of all, none"):
        given(tmp_path, ("/nowhere", "/no/list.txt"), ("/nowhere", "all"))
    (tmp_path / "list.txt").write_text("nobody\n")
    with pytest.raises(ConfigError, match=r"given\.0\.members: .*none of its 1 samples stands"):
        given(tmp_path, ("/nowhere", str(tmp_path / "list.txt")), ("/nowhere", "all"))
    raw = {"output": "o", "data": {"shards": "s"}, "design": {"kind": "given"}}
    with pytest.raises(ConfigError, match="at least two models"):
        resolve(raw)
