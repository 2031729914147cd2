"""``python -m tests.chaos --runs 100``: so many disturbed runs, and what was wrong with any.

A run is known by its number: ``--first 17 --runs 1`` disturbs it at nearly the same moments again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from tests.chaos.runs import Chaos, fork

# What a driver loads, before it is forked; nothing of it is used here.
_LOADED = (
    "duckdb",
    "multimem_ray.cli",
    "multimem_ray.audit",
    "multimem_ray.embeddings.source",
    "multimem_ray.report",
    "multimem_ray.results.summary",
    "multimem_ray.scoring.actor",
    "multimem_ray.training.trainer",
    "multimem_ray.training.worker",
    "s3fs",
)


def main() -> int:
    """Parse the arguments and run; the number of runs with something wrong, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--disk", action="store_true", help="no S3")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "OMP_NUM_THREADS": "1",
    }
    server, endpoint = (None, None) if asked.disk else _server()
    bad, kinds, started = 0, Counter[str](), time.monotonic()
    try:
        for name in _LOADED:
            importlib.import_module(name)
        chaos = Chaos(folder, folder / "shards", endpoint)
        made = fork(lambda: _make(folder / "shards"), folder / "made.log")
        if made.wait():
            raise RuntimeError(made.said())
        chaos.measure()
        _say(f"an undisturbed run takes {chaos.seconds:.1f} s; in {folder}")
        for seed in range(asked.first, asked.first + asked.runs):
            done, wrong = chaos.run(seed)
            kinds.update(done)
            bad += bool(wrong)
            _say(f"{seed}: {', '.join(done)}: {'WRONG' if wrong else 'well'}")
            for line in wrong:
                _say(f"  {line}")
            if not wrong and not asked.keep:
                shutil.rmtree(folder / f"run-{seed}")
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)
    told = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
    seconds = time.monotonic() - started
    _say(f"{asked.runs - bad} of {asked.runs} runs are as they must be, {seconds:.0f} s: {told}")
    if not bad and not asked.keep:
        shutil.rmtree(folder)
    return min(bad, 1)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _make(folder: Path) -> None:
    from tests.small import write_shards

    write_shards(folder, samples=24, shards=3)


def _server() -> tuple[subprocess.Popen[bytes], str]:
    """An S3 server in a process of its own, with the bucket of the runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(f"{endpoint}/chaos", method="PUT")
    for _ in range(600):
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return server, endpoint
    server.kill()
    raise RuntimeError("the S3 server does not start")


if __name__ == "__main__":
    sys.exit(main())
