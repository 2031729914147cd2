"""Models from elsewhere give the scores that the same weights give by any other way in."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.models.adapters import absolute_adapter, adapter
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


class SameWeights(nn.Module):
    """A plugin around an open_clip model whose file a test names."""

    dim = 24
    modalities = {  # noqa: RUF012
        "image": {"size": 32},
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
        "image": {"size": 224},
        "text": {"tokenizer": "clip", "length": 77, "dropout": 0.0},
    }
    arch = "ViT-B-32"


@pytest.fixture(scope="module")
def tiny_arch(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("arch")
    (folder / "multimem-test.json").write_text(json.dumps(TINY_ARCH))
    open_clip.add_model_config(folder / "multimem-test.json")
    return "multimem-test"


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


def test_settings_that_do_not_fit_name_their_key(tiny_arch: str, tmp_path: Path) -> None:
    model = f"open_clip:{tiny_arch}"
    for section, said in (
        ({"modalities": {"image": {"size": 64}}}, r"modalities\.image\.size = 64: .* takes 32"),
        ({"modalities": {"text": {"length": 77}}}, r"modalities\.text\.length = 77: .* takes 16"),
    ):
        config = resolve({"output": "o", "data": {"shards": "s"}, "model": model, **section})
        with pytest.raises(ConfigError, match=said):
            _build(config)
    config = resolve(
        {"output": "o", "data": {"shards": "s"}, "model": {"adapter": model, "dim": 8}}
    )
    with pytest.raises(ConfigError, match=r"model\.dim = 8: .* embeds in 24"):
        _build(config)
    config = resolve(
        {
            "output": "o",
            "data": {"shards": "s"},
            "model": {"adapter": model, "modalities": ["audio", "text"]},
        }
    )
    with pytest.raises(ConfigError, match=r"has no tower for audio; .*model\.towers\.audio"):
        _build(config)


def _build(config: Any) -> ContrastiveModel:
    from multimem_ray.modalities.decoder import Decoder

    decoder = Decoder(dict.fromkeys(config.model.modalities, "x"), config.modalities)
    return build_model(config.model, decoder.modalities, 0)


def test_a_pickle_is_not_run(tiny_arch: str, tmp_path: Path) -> None:
    bomb = tmp_path / "weights.pt"
    bomb.write_bytes(pickle.dumps(_Bomb(str(tmp_path / "ran"))))
    config = resolve(
        {"output": "o", "data": {"shards": "s"}, "model": f"open_clip:{tiny_arch}/{bomb}"}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match="not plain tensors"):
            _build(config)
    assert not (tmp_path / "ran").exists()


class _Bomb:
    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.place),)


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


def test_a_models_own_settings_can_be_overridden(tiny_arch: str) -> None:
    raw = {"output": "o", "data": {"shards": "s"}, "model": f"open_clip:{tiny_arch}"}
    config = resolve({**raw, "modalities": {"text": {"dropout": 0.1}}, "training": {"epochs": 3}})
    assert config.modalities["text"] == {"tokenizer": "clip", "length": 16, "dropout": 0.1}
    assert config.training.epochs == 3
    assert config.training.weight_decay == 0.2, "from scratch: CLIP's recipe"
    assert config.model.preset is None
    assert adapter(f"open_clip:{tiny_arch}").describe().dim == 24
