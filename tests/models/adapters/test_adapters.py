"""Models from elsewhere give the scores that the same weights give by any other way in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor, nn

from multimem_ray.errors import ConfigError
from multimem_ray.models.adapters import absolute_adapter
from multimem_ray.setup import resolve
from tests.models.adapters.ways import audit, save_open_clip, scores


class SameWeights(nn.Module):
    """A plugin around an open_clip model whose file a test names."""

    dim = 24
    modalities = {  # noqa: RUF012
        "image": {"size": 32, "fit": {"resize": "shortest"}},
        "text": {"tokenizer": "clip", "length": 16, "dropout": 0.0},
    }
    arch, file = "multimem-test", ""

    def __init__(self) -> None:
        super().__init__()
        self.clip = open_clip.CLIP(**open_clip.get_model_config(self.arch))
        open_clip.load_checkpoint(self.clip, self.file)
        self.log_scale = float(self.clip.logit_scale.detach())
        self.mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)

    def embed(self, modality: str, values: Tensor) -> Tensor:
        if modality == "text":
            return self.clip.encode_text(values.long())
        return self.clip.encode_image((values.float() / 255 - self.mean) / self.std)


class FullSize(SameWeights):
    """The same at full size."""

    dim = 512
    modalities = {  # noqa: RUF012
        "image": {"size": 224, "fit": {"resize": "shortest"}},
        "text": {"tokenizer": "clip", "length": 77, "dropout": 0.0},
    }
    arch = "ViT-B-32"


def test_the_same_weights_score_the_same_by_every_way_in(tiny_arch: str, tmp_path: Path) -> None:
    weights = save_open_clip(tiny_arch, tmp_path / "made")
    SameWeights.file = str(weights)
    ways = {
        "open_clip": f"open_clip:{tiny_arch}/{weights}",
        "local": f"local:{weights.parent}",
        "plugin": f"plugin:{__name__}:SameWeights",
    }
    for name, model in ways.items():
        run = audit(tmp_path, name, model)
        assert run.modalities == ("image", "text")
        assert run.config.model.dim == 24
        assert run.config.modalities["image"]["size"] == 32
    first = scores(tmp_path, "open_clip")
    assert first["multimem"].std() > 1e-3
    for name in ("local", "plugin"):
        for column, values in scores(tmp_path, name).items():
            np.testing.assert_allclose(values, first[column], atol=1e-5, err_msg=f"{name} {column}")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("opun_clip:RN50", r"unknown 'opun_clip:'; did you mean 'open_clip'"),
        ("open_clip:", "names nothing after the colon"),
        ("open_clip:ViT-B-23", "no architecture 'ViT-B-23'; did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32/opnai", "neither a file here nor a tag.*did you mean 'openai'"),
        ("local:/nowhere/at/all", "is no folder here"),
        ("plugin:no.such.module:f", "'no.such.module' cannot be imported"),
        ("plugin:jobs.examples.plugin:Nothing", "has no factory 'Nothing'"),
        ("plugin:json:loads", "must carry 'modalities'"),
    ],
)
def test_what_cannot_be_found_says_so(model: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({"output": "o", "data": {"shards": "s"}, "model": model})


def test_local_names_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "w.pt").touch()
    monkeypatch.chdir(tmp_path)
    assert absolute_adapter("local:here") == f"local:{tmp_path}/here"
    assert absolute_adapter("hf:here") == f"hf:{tmp_path}/here"
    assert absolute_adapter("hf:openai/clip") == "hf:openai/clip"
    assert absolute_adapter("open_clip:RN50/here/w.pt") == f"open_clip:RN50/{tmp_path}/here/w.pt"
    assert absolute_adapter("open_clip:RN50/openai") == "open_clip:RN50/openai"


@pytest.mark.slow
def test_a_full_vit_b_32_scores_the_same_by_every_way_in(tmp_path: Path) -> None:
    weights = save_open_clip("ViT-B-32", tmp_path / "made")
    FullSize.file = str(weights)
    ways = {
        "open_clip": f"open_clip:ViT-B-32/{weights}",
        "local": f"local:{weights.parent}",
        "plugin": f"plugin:{__name__}:FullSize",
    }
    for name, model in ways.items():
        audit(tmp_path, name, model, samples=24)
    first = scores(tmp_path, "open_clip")
    assert first["multimem"].std() > 1e-3
    for name in ("local", "plugin"):
        for column, values in scores(tmp_path, name).items():
            np.testing.assert_allclose(values, first[column], atol=1e-4, err_msg=f"{name} {column}")
