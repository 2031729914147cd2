"""The files for ``ray up`` pass Ray's own validation, and say what the guide promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
PROVIDERS = ("aws", "gcp")


def read(provider: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CLUSTER / f"{provider}.yaml").read_text("utf-8"))
    return content


@pytest.fixture(params=PROVIDERS)
def prepared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A cluster file with Ray's defaults filled in, as ``ray up`` does before validating it."""
    config: dict[str, Any] = prepare_config(read(request.param))
    return config


def test_ray_accepts_it(prepared: dict[str, Any]) -> None:
    validate_config(prepared)


def test_ray_would_refuse_a_mistake() -> None:
    config = prepare_config(read("aws") | {"max_worker": 3})
    with pytest.raises(Exception, match="max_worker"):
        validate_config(config)


def test_head_is_on_demand_and_takes_no_work(prepared: dict[str, Any]) -> None:
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert "spot" not in str(head["node_config"]).lower()


def test_workers_are_spot_and_go_when_idle(prepared: dict[str, Any]) -> None:
    types = prepared["available_node_types"]
    workers = {name: t for name, t in types.items() if name != prepared["head_node_type"]}
    assert any(t["resources"].get("GPU") for t in workers.values())
    assert any(not t["resources"].get("GPU") for t in workers.values())
    for node_type in workers.values():
        assert "spot" in str(node_type["node_config"]).lower()
        assert node_type["min_workers"] == 0
        assert 0 < node_type["max_workers"] <= prepared["max_workers"]
    assert 0 < prepared["idle_timeout_minutes"] <= 15


def test_every_node_wants_the_token(prepared: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
    assert any(path.endswith("/.ray/auth_token") for path in prepared["file_mounts"])
    started = " ".join(prepared["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in started, "reached through ssh only"


def test_no_secret_and_no_account_is_in_the_files() -> None:
    for provider in PROVIDERS:
        text = (CLUSTER / f"{provider}.yaml").read_text("utf-8")
        assert "REPLACE_ME" in text or "PROJECT" in text
        assert "AKIA" not in text
