"""The dashboard asks for metrics that exist, under the names and tags that they are exported by."""

from __future__ import annotations

import json
import re
from pathlib import Path

from multimem_ray.distributed import metrics

BOARD = json.loads(
    (Path(__file__).resolve().parents[2] / "cluster/grafana.json").read_text("utf-8")
)


def exported() -> dict[str, set[str]]:
    """Metric → tags, as the module's docstring has them."""
    found = re.findall(r"^    (multimem_\w+)\{([^}]*)\}", metrics.__doc__ or "", re.MULTILINE)
    return {f"ray_{name}": {tag.strip() for tag in tags.split(",")} for name, tags in found}


def test_every_query_is_of_a_metric_that_exists() -> None:
    known = exported()
    asked = set()
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            for name, tags in re.findall(r"(ray_multimem_\w+)\{([^}]*)\}", target["expr"]):
                asked.add(name)
                assert {tag.split("=")[0] for tag in tags.split(",")} <= known[name], panel["title"]
    assert asked == set(known), "every metric is shown"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
