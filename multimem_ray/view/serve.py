"""Opens a run for its page, and serves it on this machine until it is stopped."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from multimem_ray.errors import ConfigError
from multimem_ray.interrupts import kept_handlers
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import load_run
from multimem_ray.storage import Storage
from multimem_ray.view.guard import new_token
from multimem_ray.view.rows import Rows
from multimem_ray.view.selection import Selection
from multimem_ray.view.server import View, application
from multimem_ray.view.shards import Shards

LOOPBACK = "127.0.0.1"
PICKED = ("selections", "view", "remove", "00000.parquet")


@contextmanager
def open_view(
    output: str, storage: Storage, *, data: str | None = None, selection: str | None = None
) -> Iterator[View]:
    """What the page of a run shows.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        storage: How to reach it, and its shards.
        data: Where the shards lie now, as ``data.shards``, if not where they lay.
        selection: The file for what is picked; by default in the run.

    Raises:
        ConfigError: Nothing is scored yet, or ``selection`` is no list of samples.
        StorageError: There is no run, or a file of it cannot be read.
        ShardNotFoundError: ``data`` names no shard.
    """
    run, table = load_run(output, storage), ScoreTable(output, storage)
    if not table.score_files:
        raise ConfigError(f"{output}: nothing is scored yet; run `multimem audit` first")
    if selection is not None and not selection.endswith(".parquet"):
        raise ConfigError(f"--selection {selection}: write a name that ends in .parquet")
    picked = Selection(selection or storage.join(output, *PICKED), storage, table.shard_parts)
    shards = Shards(run, storage, data, table.shard_parts)
    with Rows(table) as rows:
        rows.pick(picked.samples, picked=True)
        yield View(table, rows, shards, picked, run)


def serve(view: View, port: int, ready: Callable[[str], None]) -> None:
    """Serve on loopback until Ctrl-C, the usual way to end it, or until the process is stopped.

    Args:
        port: 0 takes a free one.
        ready: Called with the address, once it is served.

    Raises:
        ConfigError: The port is taken.
    """
    token = new_token()
    try:
        listening = socket.create_server((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port {port}: cannot be listened on ({error}); name another") from None
    address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/?token={token}"

    async def told(_app: web.Application) -> None:
        ready(address)

    app = application(view, token)
    app.on_startup.append(told)
    with listening, kept_handlers():
        # Nothing is under way that would have to be kept, so there is nothing to say.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        web.run_app(
            app,
            sock=listening,
            access_log=None,
            print=None,
            handle_signals=False,
            loop=asyncio.new_event_loop(),
        )
