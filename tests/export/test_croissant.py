"""Croissant metadata, read by mlcroissant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import multimem_ray as mm
from multimem_ray.results.scores import open_scores


def test_croissant_is_valid_and_gives_the_rows(finished: str, tmp_path: Path) -> None:
    import mlcroissant

    about = {"license": "https://spdx.org/licenses/CC0-1.0", "url": "https://example.org"}
    made = mm.export(finished, "croissant", tmp_path / "c", published="2026-11-26", **about)
    place = Path(made.url, "croissant.json")
    dataset = mlcroissant.Dataset(jsonld=place)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    told = json.loads(place.read_text())
    for name in (
        "dataLimitations",
        "dataUseCases",
        "dataAnnotationProtocol",
        "machineAnnotationTools",
        "personalSensitiveInformation",
        "dataCollectionMissingData",
    ):
        assert told[f"rai:{name}"]
    assert dataset.metadata.data_limitations
    told_keys = open_scores(finished).arrow(["key"])["key"].to_pylist()
    rows = list(dataset.records("scores"))
    assert [row["scores/key"].decode() for row in rows] == told_keys
    scores = open_scores(finished).arrow(["multimem"])["multimem"].to_pylist()
    assert [row["scores/multimem"] for row in rows] == pytest.approx(scores)
