"""Weights are told by their content: another checkpoint at the same place is another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multimem_ray.config import Config
from multimem_ray.setup import resolve
from multimem_ray.setup.provenance import weights_digest
from multimem_ray.storage import Storage


def config(**model: Any) -> Config:
    raw = {"output": "o", "data": {"shards": "s"}, "model": {"preset": "tiny", **model}}
    return resolve(raw)


def digest(**model: Any) -> str:
    return weights_digest(config(**model), Storage())


def test_a_run_that_is_given_nothing_has_no_digest() -> None:
    assert digest() == ""


def test_content_counts_and_place_does_not(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "history.jsonl").write_text(name)
    a, b, c = (digest(init=str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert a == digest(init=str(tmp_path / "a" / "model.safetensors"))


def test_references_count_by_their_fingerprint(tmp_path: Path) -> None:
    made = config().model_copy(
        update={
            "mitigation": config().mitigation.model_copy(
                update={"kind": "in_training", "references": str(tmp_path)}
            )
        }
    )
    assert weights_digest(made, Storage()) == ""
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": "f"}))
    assert weights_digest(made, Storage()) != ""


def test_a_checkpoint_that_is_not_there_is_told_later() -> None:
    assert digest(init="/nowhere/at/all") == ""
