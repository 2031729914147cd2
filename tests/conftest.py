"""Fixtures for all tests: one Ray, one S3 server, and the real shards where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A machine that is busy with something else is no defect.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = ["tests.s3"]

DATA = Path(__file__).resolve().parents[1] / "../shared/data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], list[Path]]:
    """``shared_data("fsdd_mnist_ait")``: the real shards of that name; skips without them."""

    def shards(name: str) -> list[Path]:
        found = sorted((DATA / name).resolve().glob("*.tar"))
        if not found:
            pytest.skip(f"the real shards {name} are not at hand")
        return found

    return shards


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Output of a small finished audit; to be read, and copied by whoever writes into it."""
    from tests.small import audited

    return audited(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """A private Ray of two cores on this machine."""
    import ray

    from multimem_ray.distributed.session import start_local

    start_local(num_cpus=2, object_store_memory=300 * 10**6)
    yield ray
    ray.shutdown()
