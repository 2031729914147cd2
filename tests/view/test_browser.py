"""The page in a real browser, its policy on: it fills itself, and nothing of a sample runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.view.small_view import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a page that the command serves, with its token."""
    run = write_run(tmp_path_factory.mktemp("browser"), shards=1, rows=12)
    command = [sys.executable, "-m", "multimem_ray", "view", run.output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        watch = threading.Timer(120, server.kill)
        watch.start()
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if line.startswith("open "):
                    yield line.removeprefix("open ").strip()
                    break
        finally:
            watch.cancel()
            server.kill()


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_fills_itself_and_nothing_of_a_sample_runs(
    address: str, tmp_path: Path, width: int
) -> None:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        *(f"--window-size={width},2400", "--virtual-time-budget=20000", "--dump-dom", address),
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "12 samples" in page  # its own script runs under the policy
    assert 'src="data:image/webp' in page  # and what came into sight was fetched
    assert "ran-code" not in page
    assert page.count("&lt;script&gt;document") > 0
    assert "<script>" not in page
    assert 'src="x"' not in page
