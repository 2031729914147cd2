"""What there is, how it fits together, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.setup import inspect, resolve
from tests.embeddings.kept import (
    N,
    assert_literal,
    config_of,
    keys_of,
    rows_of,
    score,
    table,
    vectors,
    write,
    written,
)


def test_members_are_said_for_each_model(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    paths = written(tmp_path, found)
    seen = tmp_path / "seen.txt"
    seen.write_text("\n".join(keys_of(N)[:90]))
    models = [
        {"files": paths[0], "members": str(seen)},
        {"files": paths[1], "members": "none"},
    ]
    run, _ = score(config_of(tmp_path / "out", models, design={}))
    rows = rows_of(run.output)
    # Held out is only what no model trained on.
    assert set(keys_of(N)[:90]) <= rows.keys()
    assert rows[keys_of(N)[0]]["member"] == [True, False]
    assert rows[keys_of(N)[0]]["multimem"] is not None
    unseen = [key for key in keys_of(N)[90:] if key in rows]
    assert 0 < len(unseen) < 110
    assert all(rows[key]["multimem"] is None for key in unseen)


def test_group_label_and_held_out_columns(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    groups = [f"tape-{number // 4}" for number in range(N)]
    flags = [number // 4 % 5 == 0 for number in range(N)]
    classes = ["dog" if number % 2 else "cat" for number in range(N)]
    paths = written(tmp_path, found, tape=groups, aside=flags, kind=classes)
    config = config_of(
        tmp_path / "out", paths, embeddings={"held_out": "aside"}, data={"label": "kind"},
        design={"kind": "complementary_halves", "group": "tape"},
    )  # fmt: skip
    run, _ = score(config)
    rows = rows_of(run.output)
    assert sorted(rows) == [k for k, out in zip(keys_of(N), flags, strict=True) if not out]
    members = run.design.members(groups)
    for at, key in enumerate(keys_of(N)):
        if key in rows:
            assert rows[key]["group"] == groups[at]
            assert rows[key]["label"] == classes[at]
            assert rows[key]["member"] == members[at].tolist()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"embeddings": {"models": ["{a}"]}}, "at least two models"),
        ({"embeddings": {"models": ["{a}", "{b}"]}, "shards": "x.tar"}, "one of the two"),
        ({"embeddings": {"models": ["{a}", "{b}"], "key": "kei"}}, "no column 'kei'.*'key'"),
        (
            {"embeddings": {"models": ["{a}", "{b}"]}, "fields": {"image": "imag", "text": "text"}},
            r"data\.fields\.image: .* no column 'imag'.*'image'",
        ),
        ({"embeddings": {"models": ["{a}", "{b}"], "views": 7}}, "not 7 views"),
        ({"embeddings": {"models": ["{a}", "/nowhere"]}}, "no Parquet file in /nowhere"),
        ({"embeddings": {"models": ["{a}", "{b}"]}, "label": "kind"}, "data.label: .*'kind'"),
        ({"embeddings": "/nowhere"}, "holds no complete embeddings.*multimem embed"),
        ({"embeddings": {"models": ["{a}", "{b}"], "vievs": 2}}, r"vievs'; did you mean 'views'"),
        ({"embeddings": {"models": ["{a}", {"arrays": {"image": "x.npy"}}]}}, "arrays need keys"),
    ],
)
def test_what_does_not_fit_is_told_with_the_way_out(
    tmp_path: Path, found: list[dict[str, Any]], raw: dict[str, Any], message: str
) -> None:
    a, b = written(tmp_path, found)
    filled = json.loads(json.dumps(raw).replace("{a}", a).replace("{b}", b))
    design = {"kind": "complementary_halves"}
    with pytest.raises(ConfigError, match=message):
        inspect(resolve({"output": str(tmp_path / "out"), "data": filled, "design": design}))


def test_vectors_of_a_model_must_be_of_one_space(tmp_path: Path) -> None:
    made = {"image": vectors(8, 4, 0)["image"], "text": vectors(8, 6, 0)["text"]}
    path = write(tmp_path / "a.parquet", table(keys_of(8), made))
    with pytest.raises(ConfigError, match="one space"):
        inspect(config_of(tmp_path / "out", [path, path]))


def test_scores_can_be_partitioned_by_label(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    paths = written(tmp_path, found, kind=[f"kind {number % 3}" for number in range(N)])
    by = {"scoring": {"partition_by": "label"}, "data": {"label": "kind"}}
    run, _ = score(config_of(tmp_path / "out", paths, **by))
    assert_literal(run, found, keys_of(N))
    folders = {path.name for path in Path(run.output, "scores").iterdir()}
    assert folders == {f"partition_label=kind%20{number}" for number in range(3)}
    with pytest.raises(ConfigError, match=r"partition_by.*json\.kind.*data\.label"):
        inspect(config_of(tmp_path / "out2", paths, scoring={"partition_by": "json.kind"}))
