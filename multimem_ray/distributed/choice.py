"""Which executor does the work of a run."""

from __future__ import annotations

from multimem_ray.distributed.executor import LOCAL, Executor, ExecutorName
from multimem_ray.errors import ConfigError


def make_executor(name: ExecutorName | Executor, ray_address: str | None) -> Executor:
    """The executor of that name.

    Args:
        ray_address: ``resources.ray_address``: the cluster that Ray is joined on.

    Raises:
        ConfigError: There is none of that name.
    """
    if not isinstance(name, str):
        return name
    if name == "local":
        return LOCAL
    if name != "ray":
        raise ConfigError(f"executor = {name!r}: there are 'ray' and 'local'")
    from multimem_ray.distributed.on_ray import RayExecutor

    return RayExecutor(ray_address)
