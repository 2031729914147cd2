"""A reference model of ours is a local model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.run import Run
from multimem_ray.setup import resolve
from tests.models.adapters.ways import audit, save_open_clip, scores


def test_a_reference_model_of_ours_is_a_local_model(tiny_arch: str, tmp_path: Path) -> None:
    weights = save_open_clip(tiny_arch, tmp_path / "made")
    first = audit(tmp_path, "first", f"open_clip:{tiny_arch}/{weights}")
    folder = Path(first.model_folder("000").url)
    config = resolve({"output": "o", "data": {"shards": "s"}, "model": f"local:{folder}"})
    assert config.model.modalities == ["image", "text"]
    ours = build_model(config.model, first.decoder.modalities, seed=9)
    original = build_model(first.config.model, first.decoder.modalities, seed=1, weights=False)
    first.model_folder("000").load_into(original)
    _assert_same_embeddings(first, ours, original)
    again = audit(tmp_path, "again", {"adapter": f"local:{folder}", "freeze": ["*"]})
    assert np.abs(scores(tmp_path, "again")["multimem"]).max() == 0
    assert again.config.training.lr == 1e-3


def _assert_same_embeddings(run: Run, a: ContrastiveModel, b: ContrastiveModel) -> None:
    values = {
        m.name: torch.randint(0, 200, (3, *m.spec.shape)).to(getattr(torch, m.spec.dtype))
        for m in run.decoder.modalities
    }
    with torch.no_grad():
        first, second = (m.eval().embed(m.prepare(values)) for m in (a, b))
    for name, vectors in first.items():
        torch.testing.assert_close(vectors, second[name])
