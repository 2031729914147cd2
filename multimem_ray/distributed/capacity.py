"""Room on a cluster, which may grow: what fits there now, and asking for what does not.

Ray tells of the nodes that are there. What an autoscaler could bring it does not tell, so that a
cluster which starts empty must be asked: placement groups are a demand that its autoscaler sees,
that starts no process, and that ends with the driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from multimem_ray.distributed.executor import Bundle, fits
from multimem_ray.errors import ClusterError, ConfigError
from multimem_ray.progress import Progress

MOST_ASKED = 64
_PATIENCE_S = 3600.0
# Nodes of one demand come within seconds of each other.
_SETTLED_S = 30.0
_LOOK_S = 0.5


def capacity(bundle: Bundle) -> int:
    """How many such bundles the nodes that are there have place for, if nothing else is."""
    return sum(fits(node, bundle) for node in live_nodes())


def wait_for_capacity(
    bundle: Bundle, key: str, progress: Progress, *, private: bool, ask: int = 1, least: int = 1
) -> bool:
    """Wait until there is room for ``least`` bundles; says so if that takes its time.

    Args:
        key: The configuration's key that asks for the bundle.
        private: Whether this machine alone runs Ray, so that no node can come.
        ask: Bundles to ask for while at it; see :data:`MOST_ASKED`.

    Returns:
        Whether anything had to be waited for.

    Raises:
        ConfigError: This machine alone runs Ray, and has not what is asked for.
        ClusterError: No such node came within an hour.
    """
    if capacity(bundle) >= least:
        return False
    wanted = _words(bundle)
    if private:
        raise ConfigError(
            f"{key} asks for {wanted}{f' {least} times' if least > 1 else ''}, which this machine "
            "does not have; lower it, or name a cluster in resources.ray_address"
        )
    progress.say(f"waiting for nodes: none has {wanted} ({key}) yet")
    with _asked(bundle, max(ask, least)) as groups:
        _wait(groups, bundle, key, least, progress)
        if ask > least:
            _settle(bundle, ask)
    progress.say(f"the cluster has room for {capacity(bundle)} now, {wanted} each")
    return True


def _wait(
    groups: list[PlacementGroup], bundle: Bundle, key: str, least: int, progress: Progress
) -> None:
    started = said = time.monotonic()
    while capacity(bundle) < least:
        time.sleep(_LOOK_S)
        now = time.monotonic()
        if now - started > _PATIENCE_S:
            raise ClusterError(
                f"no node with {_words(bundle)} ({key}) came within {_PATIENCE_S / 60:.0f} minutes,"
                f" asked for {len(groups)}; see `ray status`, give the cluster a node type that "
                f"has it, or lower {key}; what is done is kept"
            )
        if now - said >= progress.every_s:
            said = now
            progress.say(f"still waiting for {_words(bundle)} ({key}), {now - started:.0f} s")


def _settle(bundle: Bundle, ask: int) -> None:
    """Wait until all that was asked for is there, or nothing more comes."""
    last, since = capacity(bundle), time.monotonic()
    while last < ask and time.monotonic() - since < _SETTLED_S:
        time.sleep(_LOOK_S)
        now = capacity(bundle)
        if now != last:
            last, since = now, time.monotonic()


@contextmanager
def _asked(bundle: Bundle, count: int) -> Iterator[list[PlacementGroup]]:
    """Placement groups, one bundle each, for as long as the block runs."""
    groups = [placement_group([dict(bundle)]) for _ in range(min(count, MOST_ASKED))]
    try:
        yield groups
    finally:
        for group in groups:
            remove_placement_group(group)


def live_nodes() -> list[dict[str, Any]]:
    """Resources of the nodes that live."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _words(bundle: Bundle) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
