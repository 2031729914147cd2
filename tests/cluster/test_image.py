"""What can be told of the container image without building it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import ray

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "cluster/Dockerfile").read_text("utf-8")


def test_ray_and_python_are_those_of_the_lock() -> None:
    assert f"ARG RAY_VERSION={ray.__version__}" in DOCKERFILE
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert re.search(rf"^ray(\[.*\])?=={re.escape(ray.__version__)}$", lock, re.MULTILINE)
    assert "py311" in DOCKERFILE


def test_everything_that_is_copied_exists() -> None:
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY"):
            *sources, _ = [part for part in line.split()[1:] if not part.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists(), source


def test_the_image_has_the_name_that_the_cluster_files_use() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    image = f"REGISTRY/multimem-ray:{version}"
    for name in ("aws.yaml", "gcp.yaml", "raycluster.yaml", "rayjob.yaml", "Dockerfile"):
        text = (ROOT / "cluster" / name).read_text("utf-8")
        assert set(re.findall(r"REGISTRY/\S+", text)) == {image}, name
