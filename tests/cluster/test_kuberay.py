"""The KubeRay manifests fit the operator's custom resource definitions, and our configuration."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from multimem_ray.setup import resolve
from tests import conftest

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
WORKDIR = "/home/ray/multimem_ray"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}


def documents(name: str) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all((CLUSTER / name).read_text("utf-8")) if d]


def manifest(kind: str) -> dict[str, Any]:
    found = documents(f"{kind.lower()}.yaml")
    return next(document for document in found if document["kind"] == kind)


def schema_of(kind: str, version: str) -> dict[str, Any]:
    """The operator's schema of one version; skips where it is not at hand."""
    path = (conftest.DATA / "schemas" / KINDS[kind]).resolve()
    if not path.exists():
        pytest.skip("the operator's schemas are not at hand")
    definition = yaml.safe_load(path.read_text("utf-8"))
    served = {v["name"]: v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"]}
    return as_json_schema(served[version])


def as_json_schema(node: Any) -> Any:
    """A structural schema as Kubernetes applies it: closed to keys that it does not name.

    The API server prunes unknown keys in silence, so a misspelt one would just do nothing; here
    it is an error. ``int-or-string`` is Kubernetes' own word for what the comment says.
    """
    if isinstance(node, list):
        return [as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: as_json_schema(value) for key, value in node.items()}
    open_ended = node.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not open_ended:
        made.setdefault("additionalProperties", False)
    return made


def check(document: dict[str, Any]) -> None:
    version = document["apiVersion"].split("/")[1]
    schema = schema_of(document["kind"], version)
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(document, schema)


def cluster_spec(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(kind)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("kind", KINDS)
def test_fits_the_operators_schema(kind: str) -> None:
    check(manifest(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_key_is_seen(kind: str) -> None:
    broken = copy.deepcopy(manifest(kind))
    spec = broken["spec"].get("rayClusterSpec", broken["spec"])
    spec["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        check(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_guide_promises(kind: str) -> None:
    spec = cluster_spec(kind)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"gpu", "cpu"}
    for name, group in groups.items():
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        pod = group["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (name == "gpu")
        assert "spot" in str(pod["affinity"])


def test_both_have_the_same_cluster() -> None:
    """The job's own cluster differs from the standing one in the mounted configuration only."""
    job, standing = cluster_spec("RayJob"), cluster_spec("RayCluster")
    pod = job["headGroupSpec"]["template"]["spec"]
    del pod["volumes"], pod["containers"][0]["volumeMounts"]
    assert job == standing


def test_the_jobs_configuration_is_valid_and_is_what_it_runs() -> None:
    config_map = next(d for d in documents("rayjob.yaml") if d["kind"] == "ConfigMap")
    config = resolve(yaml.safe_load(config_map["data"]["run.yaml"]))
    # On a cluster that starts empty, "auto" would plan for no workers at all.
    assert config.resources.train.concurrent_banks != "auto"
    assert config.resources.score.actors != "auto"
    job = manifest("RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mount = head["containers"][0]["volumeMounts"][0]
    script = f"{WORKDIR}/jobs/audit.py"
    assert job["spec"]["entrypoint"] == f"python {script} {mount['mountPath']}/run.yaml"
    assert f"WORKDIR {WORKDIR}\n" in (CLUSTER / "Dockerfile").read_text("utf-8")
    assert head["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]
