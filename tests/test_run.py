"""Opening a run: what is found and announced, and names that follow from shards."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError, ShardNotFoundError
from multimem_ray.run import Run, load_run
from multimem_ray.setup import inspect, open_run
from multimem_ray.storage import Storage
from multimem_ray.store.names import partition_of, shard_id
from tests.small import small_config, small_run, write_shards


def test_fields_and_label_are_found(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    assert dict(run.fields) == {"audio": "flac", "image": "png", "text": "txt"}
    assert run.label == "json.label"
    assert len(shards.scored) == 2


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    run, shards = inspect(small_config(Path("shards"), Path("out")))
    assert run.output == str(tmp_path / "out")
    assert shards.scored[0].url.startswith(str(tmp_path))


def test_a_run_travels_light(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    _ = run.decoder, run.design
    again: Run = pickle.loads(pickle.dumps(run))
    assert again == run
    assert again.fingerprint == run.fingerprint
    assert len(pickle.dumps(run)) < 5000


def test_run_json_tells_the_run_again(tmp_path: Path) -> None:
    small_run(tmp_path)
    run, _ = open_run(small_config(tmp_path / "shards", tmp_path / "out"))
    again = Run.from_json(load_run(run.output, Storage()))
    assert again.fingerprint == run.fingerprint
    assert again.training_fingerprint == run.training_fingerprint


def test_more_models_are_the_same_training_other_scores(tmp_path: Path) -> None:
    two, _ = small_run(tmp_path)
    four, _ = small_run(tmp_path, "design.models=4")
    assert two.training_fingerprint == four.training_fingerprint
    assert two.fingerprint != four.fingerprint
    open_run(two.config)
    open_run(four.config)
    fold, _ = small_run(tmp_path, "design.kind=leave_subset_out", "design.models=3")
    folds, _ = small_run(tmp_path, "design.kind=leave_subset_out", "design.models=4")
    assert fold.training_fingerprint != folds.training_fingerprint


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
    with pytest.raises(ConfigError, match="no readable sample"):
        inspect(small_config(tmp_path / "junk", tmp_path / "out"))


def test_settings_of_an_unknown_modality_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"modalities\.imagee|'imagee'"):
        small_run(tmp_path, "modalities.imagee={size: 3}")
    with pytest.raises(ConfigError, match="sise"):
        small_run(tmp_path, "modalities.image={sise: 3}")


def test_names_of_shards_are_readable_unique_and_safe() -> None:
    names = {shard_id(url) for url in ("/a/x.tar", "/b/x.tar", "s3://c/x.tar", "/a/x y?.tar")}
    assert len(names) == 4
    assert all(name.startswith("x") and "/" not in name and " " not in name for name in names)
    assert {partition_of(f"/a/{i}.tar", 4) for i in range(99)} == {
        f"partition={i:03d}" for i in range(4)
    }
