"""CLIP's towers embed as open_clip's do."""

from __future__ import annotations

import torch

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower


def raw(spec: Spec, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if spec.kind == "tokens":
        return torch.randint(0, 50, (rows, *spec.shape), generator=generator, dtype=torch.int32)
    if spec.dtype == "float32":
        return torch.randn(rows, *spec.shape, generator=generator)
    top = {"uint8": 255, "int16": 20_000}[spec.dtype]
    values = torch.randint(0, top, (rows, *spec.shape), generator=generator)
    return values.to(getattr(torch, spec.dtype))


def test_clips_towers_are_open_clips() -> None:
    import open_clip

    small = {"layers": 1, "width": 64}
    spec = Spec("image", (3, 32, 32), "uint8")
    tower = build_tower("image", spec, 16, {"kind": "clip_image", "patch_size": 16, **small})
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"image_size": 32, "patch_size": 16, **small}
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    theirs = open_clip.CLIP(**{**config, "embed_dim": 16})
    tower.visual.load_state_dict(theirs.visual.state_dict())
    picture = raw(spec, 2)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    expected = theirs.encode_image((picture / 255 - mean) / std)
    torch.testing.assert_close(tower(tower.prepare(picture)), expected, atol=1e-5, rtol=0)
