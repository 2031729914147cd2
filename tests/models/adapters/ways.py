"""A tiny open_clip model, and audits of models from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.run import Run
from multimem_ray.setup import inspect, resolve
from tests.small import scored, trained, write_shards

TINY_ARCH = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}


def save_open_clip(arch: str, folder: Path) -> Path:
    """A model from scratch, as open_clip's hub would hold it."""
    torch.manual_seed(5)
    config = open_clip.get_model_config(arch)
    model = open_clip.CLIP(**config)
    # Fresh towers put everything on one spot; spread it, so that scores can differ.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder.mkdir()
    weights = folder / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    content = {"model_cfg": config, "preprocess_cfg": {"mean": open_clip.OPENAI_DATASET_MEAN}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return weights


def audit(folder: Path, name: str, model: str | dict[str, Any], *, samples: int = 60) -> Run:
    """Fine-tune two references for an epoch, and score."""
    shards = folder / "shards"
    if not shards.exists():
        write_shards(shards, samples, 1)
    raw = {
        "output": str(folder / name),
        "data": {"shards": str(shards / "*.tar")},
        "held_out": {"fraction": 0.3},
        "design": {"models": 2},
        "model": model,
        "training": {"epochs": 1, "batch_size": 8, "lr": 1e-3, "warmup_steps": 0, "augment": False},
        "scoring": {"views": 2},
    }
    run, _ = inspect(resolve(raw))
    trained(run)
    table = scored(run).select(["key", "multimem", "cmc_in", "cmc_out"])
    np.savez(folder / f"{name}.npz", **{c: table[c].to_numpy() for c in table.column_names[1:]})
    return run


def scores(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{name}.npz"))


def built(config: Any) -> ContrastiveModel:
    from multimem_ray.modalities.decoder import Decoder

    decoder = Decoder(dict.fromkeys(config.model.modalities, "x"), config.modalities)
    return build_model(config.model, decoder.modalities, 0)
