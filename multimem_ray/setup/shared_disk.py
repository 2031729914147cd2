"""Local paths on a cluster: what one node wrote or found must be there for the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from multimem_ray.distributed.executor import Executor
from multimem_ray.errors import ConfigError
from multimem_ray.run import Run, Shards


def require_shared(run: Run, shards: Shards, executor: Executor) -> None:
    """Look from another node whether it sees the output and the shards, if there is another node.

    Nodes that join later are not asked.

    Raises:
        ConfigError: It does not; names the key and the path.
    """
    local = [("output", run.path("run.json"))]
    local += [("data.shards", shard.url) for shard in shards.scored[:1]]
    sizes = {
        path: Path(path).stat().st_size
        for _, path in local
        if not run.storage.is_remote(path) and Path(path).is_file()
    }
    if not sizes:
        return
    seen = executor.elsewhere(partial(_sizes, list(sizes)))
    if seen is None:
        return
    for key, path in local:
        if path in sizes and seen[path] != sizes[path]:
            raise ConfigError(
                f"{key}: {path} lies on this node's own disk, and another node of the cluster does "
                "not see it; use a disk that all nodes share, or s3://bucket/folder"
            )


def _sizes(paths: Sequence[str]) -> Mapping[str, int | None]:
    """The size of each file here; None if there is no such file."""
    return {path: Path(path).stat().st_size if Path(path).is_file() else None for path in paths}
