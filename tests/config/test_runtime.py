"""Resources: GPUs of a bank's workers, and where nothing needs to be said."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from multimem_ray.config import ResourcesConfig, ScoringConfig, TrainResources


def test_each_worker_of_a_bank_has_a_gpu_of_its_own() -> None:
    assert TrainResources(gpus=2, workers_per_bank=2).workers_per_bank == 2
    assert TrainResources(gpus=0, workers_per_bank=2).gpus == 0
    assert TrainResources(gpus=0.5).gpus == 0.5
    with pytest.raises(ValidationError, match="each needs a GPU of its own"):
        TrainResources(gpus=1, workers_per_bank=2)


def test_the_cache_lies_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert ResourcesConfig().cache_dir == str(tmp_path / "multimem_ray_cache")


@pytest.mark.parametrize("field", ["key", "json.", "txt"])
def test_scores_are_partitioned_by_label_group_or_json(field: str) -> None:
    with pytest.raises(ValidationError, match="partition_by"):
        ScoringConfig(partition_by=field)
