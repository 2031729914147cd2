"""The audits of the golden run, one configuration for each design and way to be scored."""

from __future__ import annotations

from typing import Any

BUCKET = "golden"

_SMALL: dict[str, Any] = {
    "data": {"shards": f"s3://{BUCKET}/in/*.tar"},
    "held_out": {"fraction": 0.2},
    "design": {"models": 4},
    "model": {
        "dim": 16,
        "towers": {"image": {"width": 4}, "audio": {"width": 4}, "text": {"width": 8}},
    },
    "training": {"epochs": 2, "batch_size": 8, "checkpoint_every_s": 0},
    "scoring": {"views": 2, "partitions": 4, "batch_size": 8},
    "modalities": {"audio": {"seconds": 0.2}, "image": {"size": 16}},
    "report": {"top": 5},
}


def _case(**sections: Any) -> dict[str, Any]:
    return {name: {**_SMALL.get(name, {}), **sections.get(name, {})} for name in _SMALL | sections}


CASES: dict[str, dict[str, Any]] = {
    "halves": _case(),
    "grouped": _case(
        design={"group": "json.source", "models": 2}, scoring={"partition_by": "json.source"}
    ),
    "folds": _case(design={"kind": "leave_subset_out", "models": 3}, data={"label": "json.label"}),
    "candidate": _case(design={"kind": "candidate", "models": 2}),
    "target": _case(
        design={
            "models": 2,
            "target": {"checkpoint": f"s3://{BUCKET}/halves/models/000", "members": "recorded"},
        }
    ),
    "stored": {
        "data": {"embeddings": f"s3://{BUCKET}/halves"},
        "scoring": {"partitions": 4, "batch_size": 8},
        "report": {"top": 5},
    },
    "begun": _case(design={"models": 2}),
}
