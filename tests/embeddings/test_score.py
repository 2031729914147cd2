"""Embeddings that a user kept, in whatever form: the scores of the definition, no sample lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from multimem_ray.embeddings import score as scoring
from multimem_ray.embeddings import sets, side_by_side, units
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.run import Run
from multimem_ray.setup import inspect, resolve
from tests.embeddings.kept import (
    MODALITIES,
    config_of,
    keys_of,
    literal_cmc,
    row,
    rows_of,
    score,
    table,
    vectors,
    write,
)

N = 200


@pytest.fixture
def found() -> list[dict[str, Any]]:
    """Two models with embeddings of different length."""
    return [vectors(N, 24, 0), vectors(N, 40, 1)]


def written(folder: Path, found: list[dict[str, Any]], **columns: Any) -> list[str]:
    return [
        write(folder / f"model{number}.parquet", table(keys_of(N), of_model, **columns))
        for number, of_model in enumerate(found)
    ]


def assert_literal(run: Run, found: list[dict[str, Any]], keys: list[str]) -> None:
    """Every score column that the definition gives in a line."""
    held_out = run.held_out_rule.is_held_out(keys, "")
    expected = literal_cmc(found, held_out)
    members = run.design.members(keys)
    rows = rows_of(run.output)
    assert sorted(rows) == sorted(key for key, out in zip(keys, held_out, strict=True) if not out)
    for at, key in enumerate(keys):
        if held_out[at]:
            continue
        np.testing.assert_allclose(rows[key]["cmc"], expected[:, at], atol=1e-5)
        signs = np.where(members[at], 1, -1)
        assert rows[key]["multimem"] == pytest.approx(signs @ expected[:, at], abs=1e-5)
        shares = sum(rows[key][f"attribution_{name}"] for name in MODALITIES)
        assert shares == pytest.approx(rows[key]["multimem"], abs=1e-5)
        assert rows[key]["member"] == members[at].tolist()


def test_files_that_stand_alike_are_scored_side_by_side(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    run, shards = score(config_of(tmp_path / "out", written(tmp_path, found)))
    assert len(shards.scored) == 1
    assert_literal(run, found, keys_of(N))
    held = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert held["samples"] == int(run.held_out_rule.is_held_out(keys_of(N), "").sum())


def test_files_in_another_order_are_joined(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    first = written(tmp_path, found)[0]
    order = np.random.default_rng(3).permutation(N)
    keys = [keys_of(N)[at] for at in order]
    shuffled = {name: x[order] for name, x in found[1].items()}
    for part, span in enumerate((slice(0, 70), slice(70, N))):
        made = table(keys[span], {name: x[span] for name, x in shuffled.items()})
        write(tmp_path / "second" / f"{part}.parquet", made)
    run, shards = score(config_of(tmp_path / "out", [first, str(tmp_path / "second")]))
    assert [shard.url for shard in shards.scored] == ["joined/00000-of-00001"]
    assert_literal(run, found, keys_of(N))


def test_many_buckets_and_spills_change_nothing(
    tmp_path: Path, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from multimem_ray.embeddings import join

    monkeypatch.setattr(units, "BUCKET_BYTES", 20_000)
    monkeypatch.setattr(join, "SPILL_BYTES", 15_000)
    monkeypatch.setattr(join, "_READ_ROWS", 16)
    first = written(tmp_path, found)[0]
    order = np.arange(N)[::-1]
    other = table([keys_of(N)[at] for at in order], {n: x[order] for n, x in found[1].items()})
    second = write(tmp_path / "reversed.parquet", other)
    run, shards = score(config_of(tmp_path / "out", [first, second]))
    assert len(shards.scored) == 8
    assert_literal(run, found, keys_of(N))


def test_a_large_file_is_cut_and_blocks_need_not_fit(
    tmp_path: Path, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "UNIT_ROWS", 48)
    monkeypatch.setattr(side_by_side, "_BLOCK_ROWS", (7, 7))
    monkeypatch.setattr(scoring, "TABLE_ROWS", 20)
    first = written(tmp_path, found)[0]
    # Other row groups in the second file.
    second = write(tmp_path / "other.parquet", table(keys_of(N), found[1]), row_group_size=33)
    run, shards = score(config_of(tmp_path / "out", [first, second]))
    assert len(shards.scored) == 4
    assert_literal(run, found, keys_of(N))
    indices = {row["key"]: row["index"] for row in rows_of(run.output).values()}
    assert all(index < 80 for index in indices.values())


@pytest.mark.parametrize("kind", ["U", "S", "txt", "parquet"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_arrays_with_keys_of_every_kind(tmp_path: Path, kind: str, dtype: str) -> None:
    found = [{n: x.astype(dtype) for n, x in vectors(N, 16, seed).items()} for seed in (0, 1)]
    keys = keys_of(N)
    path = tmp_path / {"U": "k.npy", "S": "k.npy", "txt": "k.txt", "parquet": "k.parquet"}[kind]
    if kind in "US":
        np.save(path, np.array(keys, dtype=kind))
    elif kind == "txt":
        path.write_text("\n".join(keys) + "\n")
    else:
        write(path, pa.table({"key": keys}))
    models = []
    for number, of_model in enumerate(found):
        arrays = {}
        for name, x in of_model.items():
            np.save(tmp_path / f"{number}-{name}.npy", x)
            arrays[name] = str(tmp_path / f"{number}-{name}.npy")
        models.append({"arrays": arrays, "keys": str(path)})
    run, _ = score(config_of(tmp_path / "out", models))
    assert_literal(run, found, keys)


def test_views_are_averaged_after_each_is_normalised(tmp_path: Path) -> None:
    both = [vectors(N, 12, seed) for seed in (0, 1)]
    lists = {name: np.concatenate([b[name] for b in both], axis=1) for name in MODALITIES}
    single = vectors(N, 12, 2)
    first = write(tmp_path / "a.parquet", table(keys_of(N), lists))
    second = write(
        tmp_path / "b.parquet",
        table(keys_of(N), {name: np.tile(x, (1, 2)) for name, x in single.items()}),
    )
    run, _ = score(config_of(tmp_path / "out", [first, second], embeddings={"views": 2}))
    held_out = run.held_out_rule.is_held_out(keys_of(N), "")
    unit = [
        sum(x / np.linalg.norm(x, axis=1, keepdims=True) for x in view.values()) for view in both
    ]
    mean = np.mean([total[held_out].mean(axis=0) for total in unit], axis=0)
    expected = np.mean([0.5 * (t**2).sum(1) - 0.5 * t @ mean for t in unit], axis=0)
    rows = rows_of(run.output)
    for at, key in enumerate(keys_of(N)):
        if not held_out[at]:
            assert rows[key]["cmc"][0] == pytest.approx(expected[at], abs=1e-5)


def test_what_cannot_be_used_is_listed_with_its_reason(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    keys = keys_of(N)
    keys[150] = keys[3]
    found[1]["image"][10, 0] = np.nan
    found[0]["text"][11] = 0
    lists = {name: [list(v) for v in x.astype(np.float64)] for name, x in found[0].items()}
    lists["audio"][12] = lists["audio"][12][:5]
    lists["audio"][13] = None
    lists["image"][14] = lists["text"][14] = None
    others = {name: [list(v) for v in x.astype(np.float64)] for name, x in found[1].items()}
    others["image"][14] = others["text"][14] = None
    models = [
        write(tmp_path / f"{number}.parquet", pa.table({"key": keys, **of_model}))
        for number, of_model in enumerate((lists, others))
    ]
    flags = np.zeros(N, bool)
    flags[100:140] = True
    held = tmp_path / "held.txt"
    held.write_text("\n".join(key for key, out in zip(keys, flags, strict=True) if out))
    run, _ = score(config_of(tmp_path / "out", models, embeddings={"held_out": str(held)}))
    errors = rows_of(run.output, "errors")
    assert {key: row["error"] for key, row in errors.items()} == {
        keys[3]: "repeated_key", keys[10]: "not_finite", keys[11]: "zero_vector",
        keys[12]: "wrong_dim", keys[13]: "missing_in_model", keys[14]: "too_few_modalities",
    }  # fmt: skip
    assert "model 001" in errors[keys[10]]["detail"]
    scored = rows_of(run.output)
    assert keys[3] in scored
    assert len(scored) + len(errors) + 40 == N


def test_a_key_that_a_model_lacks_is_listed(tmp_path: Path, found: list[dict[str, Any]]) -> None:
    first = written(tmp_path, found)[0]
    rows = np.r_[0:20, 25:N, 7]
    keys = [keys_of(N)[at] for at in rows]
    second = write(
        tmp_path / "s.parquet", table(keys, {name: x[rows] for name, x in found[1].items()})
    )
    run, _ = score(config_of(tmp_path / "out", [first, second]))
    errors = rows_of(run.output, "errors")
    kinds = {key: row["error"] for key, row in errors.items()}
    assert kinds == {
        **dict.fromkeys(keys_of(N)[20:25], "missing_in_model"),
        keys_of(N)[7]: "repeated_key",
    }
    assert "by model 001" in errors[keys_of(N)[20]]["detail"]


def test_absent_modalities_are_scored_with_the_rest(tmp_path: Path) -> None:
    found = [vectors(N, 8, seed) for seed in (0, 1)]
    models = []
    for number, of_model in enumerate(found):
        made = table(keys_of(N), of_model)
        image = made["image"].to_pylist()
        image[5] = None
        made = made.set_column(2, "image", pa.array(image, pa.list_(pa.float32(), 8)))
        models.append(write(tmp_path / f"{number}.parquet", made))
    flags = tmp_path / "held.txt"
    flags.write_text("\n".join(keys_of(N)[50:80]))
    run, _ = score(config_of(tmp_path / "out", models, embeddings={"held_out": str(flags)}))
    row = rows_of(run.output)[keys_of(N)[5]]
    assert row["modalities"] == ["audio", "text"]
    assert row["attribution_image"] is None
    two = [{n: x for n, x in of_model.items() if n != "image"} for of_model in found]
    held = np.isin(np.arange(N), np.arange(50, 80))
    np.testing.assert_allclose(row["cmc"], literal_cmc(two, held)[:, 5], atol=1e-5)


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


def test_a_unit_is_committed_once_and_a_changed_file_is_noticed(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    paths = written(tmp_path, found)
    config = config_of(tmp_path / "out", paths)
    run, shards = score(config)
    from multimem_ray.store.commits import commit_log

    done, todo = commit_log(run).split(shards.scored)
    assert (len(done), len(todo)) == (1, 0)
    write(Path(paths[1]), table(keys_of(N), vectors(N, 40, 9)))
    again, changed = inspect(config)
    done, todo = commit_log(again).split(changed.scored)
    assert (len(done), len(todo)) == (0, 1)
    assert again.fingerprint == run.fingerprint


def test_files_that_change_while_they_are_read_are_told(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    paths = written(tmp_path, found)
    run, shards = score(config_of(tmp_path / "out", paths))
    write(Path(paths[1]), table(keys_of(N)[::-1], found[1]))
    from multimem_ray.embeddings.worker import UnitScorer

    with pytest.raises(StorageError, match="its files have changed"):
        UnitScorer(run, restarted=False)(row(shards.scored[0].url, "shard"))


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


def test_pickled_keys_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array(["a", "b"], dtype=object), allow_pickle=True)
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    arrays = {name: str(tmp_path / "x.npy") for name in ("image", "text")}
    item = {"arrays": arrays, "keys": str(tmp_path / "k.npy"), "members": "all"}
    with pytest.raises(StorageError, match="never unpickled"):
        inspect(config_of(tmp_path / "out", [item, item], design={}))


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
