"""Models in the user's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from multimem_ray.models.build import build_model
from tests.models.adapters.ways import audit, scores


def test_the_example_plugin_is_audited(tmp_path: Path) -> None:
    run = audit(tmp_path, "example", "plugin:jobs.examples.plugin:OwnModel")
    assert run.config.model.adapter == "plugin:jobs.examples.plugin:OwnModel"
    assert scores(tmp_path, "example")["multimem"].std() > 0
    names = build_model(run.config.model, run.decoder.modalities, 0).state_dict()
    assert sorted(names) == [
        "log_scales",
        "shared.pixels.bias",
        "shared.pixels.weight",
        "shared.words.weight",
    ]
    source = Path("jobs/examples/plugin.py").read_text().partition('"""\n')[2]
    assert len([line for line in source.splitlines() if line.strip()]) <= 24


def test_a_tower_beside_an_adapters(tmp_path: Path) -> None:
    model = {
        "adapter": "plugin:jobs.examples.plugin:OwnModel",
        "towers": {"audio": {"kind": "series", "width": 4}},
    }
    run = audit(tmp_path, "beside", model)
    assert run.modalities == ("audio", "image", "text")
    assert np.isfinite(scores(tmp_path, "beside")["multimem"]).all()
