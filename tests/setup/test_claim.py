"""An output belongs to one configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from multimem_ray.errors import ResumeError
from multimem_ray.run import Run, load_run
from multimem_ray.setup import open_run, with_models
from multimem_ray.storage import Storage
from tests.small import small_config, small_run


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
    three, _ = small_run(tmp_path, "design.kind=three_folds", "design.models=3")
    six, _ = small_run(tmp_path, "design.kind=three_folds", "design.models=6")
    assert three.training_fingerprint == six.training_fingerprint
    fold, _ = small_run(tmp_path, "design.kind=leave_subset_out", "design.models=3")
    folds, _ = small_run(tmp_path, "design.kind=leave_subset_out", "design.models=4")
    assert fold.training_fingerprint != folds.training_fingerprint


def test_an_output_of_auto_goes_on_with_the_models_that_it_has(tmp_path: Path) -> None:
    auto = ("design.models=auto", "design.reliability=0.9")
    small_run(tmp_path)
    config = small_config(tmp_path / "shards", tmp_path / "out", *auto)
    run, shards = open_run(config)
    assert run.config.design.models == 4
    grown = with_models(run, shards, 10)
    assert grown.fingerprint != run.fingerprint
    assert open_run(config)[0].fingerprint == grown.fingerprint
    other = small_config(tmp_path / "shards", tmp_path / "out", *auto, "design.max_models=6")
    assert open_run(other)[0].config.design.models == 10, "what is there stays"
    given = small_config(tmp_path / "shards", tmp_path / "out", "design.models=10")
    assert open_run(given)[0].fingerprint == grown.fingerprint
    fewer = small_config(tmp_path / "shards", tmp_path / "out", "design.models=4")
    with pytest.raises(ResumeError, match=r"design\.models: 10 → 4"):
        open_run(fewer)
    seed = small_config(tmp_path / "shards", tmp_path / "out", *auto, "design.seed=1")
    with pytest.raises(ResumeError, match=r"configuration: design\.seed: 0 → 1\."):
        open_run(seed)


def test_an_output_with_views_of_before_is_refused_and_can_be_read(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    open_run(run.config)
    place = Path(run.output, "run.json")
    content = json.loads(place.read_text())
    assert content.pop("views") == 2
    before = replace(run, views=1)
    content |= {"fingerprint": before.fingerprint, "versions": {"multimem-ray": "0.2.0"}}
    place.write_text(json.dumps(content))
    again = Run.from_json(load_run(run.output, Storage()))
    assert again.fingerprint == before.fingerprint != run.fingerprint
    assert again.training_fingerprint == before.training_fingerprint != run.training_fingerprint
    with pytest.raises(ResumeError, match=r"views are made \(version 1 then, 2 now\).*0\.2\.0 can"):
        open_run(run.config)
    assert json.loads(place.read_text()) == content
