"""Opening a run: what is found and announced, and names that follow from shards."""

from __future__ import annotations

import pickle
from pathlib import Path

from multimem_ray.run import Run
from multimem_ray.store.names import partition_of, shard_id
from tests.small import small_run


def test_a_run_travels_light(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    _ = run.decoder, run.design
    again: Run = pickle.loads(pickle.dumps(run))
    assert again == run
    assert again.fingerprint == run.fingerprint
    assert len(pickle.dumps(run)) < 5000


def test_names_of_shards_are_readable_unique_and_safe() -> None:
    names = {shard_id(url) for url in ("/a/x.tar", "/b/x.tar", "s3://c/x.tar", "/a/x y?.tar")}
    assert len(names) == 4
    assert all(name.startswith("x") and "/" not in name and " " not in name for name in names)
    assert {partition_of(f"/a/{i}.tar", 4) for i in range(99)} == {
        f"partition={i:03d}" for i in range(4)
    }
