"""Joining or starting Ray, quietly, and the settings its data pipelines run under."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from multimem_ray.distributed.private import on_loopback
from multimem_ray.errors import ClusterError, ConfigError
from multimem_ray.interrupts import kept_handlers

if TYPE_CHECKING:
    from ray.data import DataContext

logger = logging.getLogger(__name__)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train asks its workers how they are this often; the default adds seconds to every start.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Checkpoints are ours; a process that watches for notices of preemption has nothing to do.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
# Ray's own log files keep everything; the terminal belongs to the run. Errors of Ray arrive as
# exceptions.
_QUIET_DRIVER = {"RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_OBJECT_STORE_BYTES = 1 << 30
_STARTS = 3
_ANSWER_S = 10.0
_LEAST = (2, 60)


@contextlib.contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Ray for the length of a run: the one there is, the configured cluster, or one of our own.

    ``address`` (``resources.ray_address``) names a cluster; inside a submitted job Ray itself knows
    its cluster; otherwise a private Ray is started on this machine and ended with the run.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    _require_version(ray.__version__)
    for name, value in (_QUIET | _QUIET_DRIVER).items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if is_private(address):
        start_local(object_store_memory=_OBJECT_STORE_BYTES)
    else:
        _join(address or os.environ["RAY_ADDRESS"])
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    """Join the cluster at an address.

    Raises:
        ClusterError: Nobody answers there, or whoever does is no Ray of this version.
    """
    import ray

    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        # Ray would try for minutes, and say so in native lines.
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
        except OSError as error:
            raise ClusterError(
                f"{address}: no Ray answers there ({error.strerror or error}); start the cluster, "
                "or correct RAY_ADDRESS or resources.ray_address (neither: a private Ray)"
            ) from error
    try:
        with _native_output_kept_back(), kept_handlers():
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": _QUIET},
            )
    except Exception as error:
        ray.shutdown()
        raise ClusterError(f"{address}: cannot be joined: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
    paths = getattr(error, "__notes__", [])
    return " ".join([text, *(f"(Ray's own words: {path})" for path in paths)])


def _require_version(version: str) -> None:
    """Raise ConfigError for a Ray that is known not to work; later ones are taken on trust."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if len(numbers) == 2 and tuple(numbers) < _LEAST:
        raise ConfigError(
            f"Ray {version} is installed, and multimem_ray needs {_LEAST[0]}.{_LEAST[1]} or later "
            "(Ray Train of earlier ones does not resume a bank): "
            "pip install -U 'ray[data,default,train]'"
        )


def is_private(address: str | None) -> bool:
    """Whether a run has a Ray of its own on this machine, which no node joins.

    Args:
        address: ``resources.ray_address``.
    """
    return address is None and "RAY_ADDRESS" not in os.environ


def on_ray() -> bool:
    """Whether this process takes part in a Ray; asking does not load it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def was_restarted() -> bool:
    """Whether this process is an actor of which an earlier process died."""
    if not on_ray():
        return False
    import ray

    return actor_id() is not None and ray.get_runtime_context().was_current_actor_reconstructed


def actor_id() -> str | None:
    """Which actor this process is, the same after a restart; None: it is none."""
    if not on_ray():
        return None
    import ray

    name: str | None = ray.get_runtime_context().get_actor_id()
    return name


def start_local(**settings: Any) -> None:
    """Start a private Ray on this machine; the caller ends it with ``ray.shutdown``.

    Ray gives its processes 30 seconds to start, which a busy machine can exceed: so it gets
    three chances.

    Raises:
        ClusterError: It does not start; names the way out.
    """
    import ray

    for chance in range(_STARTS):
        try:
            with _native_output_kept_back(), kept_handlers(), on_loopback():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    **settings,
                )
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error) or chance + 1 == _STARTS:
                raise ClusterError(_why_not(error)) from error
            logger.warning("Ray did not start in time; trying again")
        else:
            return


def _why_not(error: Exception) -> str:
    """Why a private Ray did not start, in one line with the way out."""
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    cause, way = _first_line(error), ""
    if "AF_UNIX" in cause:
        way = f"; the temporary folder {temporary} is too deep: set RAY_TMPDIR=/tmp"
    elif isinstance(error, PermissionError) or "Permission denied" in cause:
        way = f"; it writes to {temporary}: set RAY_TMPDIR to a folder that can be written"
    elif "shm" in cause or "object store" in cause.lower() or "No space left" in cause:
        way = f"; it needs {_OBJECT_STORE_BYTES >> 20} MiB in /dev/shm and room in {temporary}"
    return f"Ray does not start on this machine: {cause}{way}; or work without it: --local"


@contextlib.contextmanager
def _native_output_kept_back() -> Iterator[None]:
    """Keep what Ray's native code writes to standard error; in a file, if the block fails.

    It announces there that it was told to be quiet.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception as error:
            kept.seek(0)
            native = kept.read()
            if native:
                descriptor, path = tempfile.mkstemp(prefix="multimem-ray-", suffix=".log")
                with os.fdopen(descriptor, "wb") as log:
                    log.write(native)
                error.add_note(path)
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def data_context(*, preserve_order: bool = False) -> Iterator[DataContext]:
    """Settings for the datasets that are made inside the block."""
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = preserve_order
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Of an error that Ray Data wraps in its own, no more than the text would come back.
    context.raise_original_map_exception = True
    with DataContext.current(context), warnings.catch_warnings():
        # Ray Data has no other way yet to bound the restarts of an actor.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield context


def use_ray_data_here() -> None:
    """Run an empty pipeline from this process, on this node.

    Ray Data keeps actors of its own on the node it is first used from, for as long as the cluster
    lives. If that were a worker, its autoscaler would never take it for idle.
    """
    import ray.data

    with data_context():
        for _ in ray.data.from_items([0]).iter_rows():
            pass
