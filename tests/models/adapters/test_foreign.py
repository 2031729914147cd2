"""Checkpoints of strangers: each attack here would make a file, or ask a hub, if it worked."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from multimem_ray.config import Config
from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.setup import resolve

FIELDS = {"image": "jpg", "text": "txt"}
SETTINGS: dict[str, dict[str, Any]] = {"image": {"size": 32}, "text": {}}
MODEL: dict[str, Any] = {"dim": 8, "modalities": ["image", "text"]}


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.place,)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module ``evil`` on the path; importing it, or calling what is in it, makes the file."""
    ran = tmp_path / "ran"
    source = (
        "import pathlib\n"
        f"pathlib.Path({str(ran)!r}).touch()\n"
        "class make:\n"
        "    dim, modalities = 8, {'image': {'size': 32}, 'text': {}}\n"
        "def tracker(model): raise SystemExit\n"
    )
    (tmp_path / "evil.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return ran


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a hub fails the test."""
    import huggingface_hub.file_download as download

    def asked(*args: object, **_: object) -> None:
        pytest.fail(f"a hub was asked for {args}")

    monkeypatch.setattr(download, "http_get", asked)
    monkeypatch.setattr(download, "get_hf_file_metadata", asked)


def checkpoint(folder: Path, **sections: Mapping[str, Any]) -> Path:
    """A reference model as a run leaves it, with sections as a stranger writes them."""
    config = resolve(
        {"output": "o", "data": {"shards": "s"}, "model": MODEL, "modalities": SETTINGS}
    )
    model = build_model(config.model, Decoder(FIELDS, config.modalities).modalities, 0)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    content = {
        "model": config.model.model_dump(mode="json"),
        "modality_settings": dict(SETTINGS),
        "training": config.training.model_dump(mode="json"),
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def resolved(model: Mapping[str, Any], **more: Any) -> Config:
    return resolve({"output": "o", "data": {"shards": "s"}, "model": model, **more})


def built(config: Config) -> ContrastiveModel:
    return build_model(config.model, Decoder(FIELDS, config.modalities).modalities, 0)


def test_a_checkpoints_recipe_is_taken_and_its_loggers_are_not(code: Path, tmp_path: Path) -> None:
    training = {"lr": 0.5, "trackers": ["evil:tracker"], "cache_gb": 9e9, "no_such_key": 1}
    folder = checkpoint(tmp_path / "theirs", training=training)
    config = resolved({"adapter": f"local:{folder}"})
    assert config.training.lr == 0.5
    assert config.training.trackers == []
    assert config.training.cache_gb == 20.0
    built(config)
    assert not code.exists()


@pytest.mark.parametrize("as_target", [False, True])
def test_a_checkpoint_names_no_plugin(code: Path, tmp_path: Path, as_target: bool) -> None:
    model = {"adapter": "plugin:evil:make", "allow": ["plugin:evil:make"]}
    folder = checkpoint(tmp_path / "theirs", model=model)
    given: dict[str, Any] = {"model": {"adapter": f"local:{folder}"}}
    if as_target:
        given = {"design": {"target": {"checkpoint": f"local:{folder}", "members": "none"}}}
    with pytest.raises(ModelError, match=r"asks for 'plugin:evil:make'.*add .* to model\.allow"):
        resolve({"output": "o", "data": {"shards": "s"}, **given})
    assert not code.exists()


def test_embeddings_of_others_name_no_plugin(code: Path, tmp_path: Path) -> None:
    design = {"kind": "candidate", "given": [], "group": None}
    design["target"] = {"checkpoint": "plugin:evil:make", "members": "none"}
    manifest = {
        "design": design,
        "held_out": {"shards": None, "balance": None},
        "views": 1,
        "view_seed": 0,
        "modalities": ["image", "text"],
        "label": None,
    }
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "embeddings.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"data\.embeddings\.run: asks for 'plugin:evil:make'"):
        resolve({"output": "o", "data": {"embeddings": str(tmp_path)}})
    assert not code.exists()


def test_a_plugin_that_the_user_allows_is_imported(code: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "theirs", model={"adapter": "plugin:evil:make"})
    config = resolved({"adapter": f"local:{folder}", "allow": ["plugin:evil:make"]})
    with pytest.raises(ModelError, match="expected a torch"):
        built(config)
    assert code.exists()


def test_consent_changes_no_fingerprint() -> None:
    plain, allowed = resolved({}), resolved({"allow": ["pickle", "plugin:a:b"]})
    assert plain.fingerprint() == allowed.fingerprint()
    assert "allow" not in plain.score_relevant()["model"]


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"model": {"adapter": "hf:evil/clip"}}, "hf:evil/clip"),
        ({"model": {"adapter": "open_clip:roberta-ViT-B-32"}}, "hf:roberta-base"),
        ({"model": {"adapter": "open_clip:hf-hub:evil"}}, "hf-hub:evil"),
        ({"modality_settings": {"text": {"tokenizer": "hf:evil/words"}}}, "hf:evil/words"),
        (
            {"modality_settings": {"text": {"tokenizer": "open_clip:ViT-B-16-SigLIP"}}},
            "hf:timm/ViT-B-16-SigLIP",
        ),
        ({"modality_settings": {"text": {"tokenizer": "open_clip:hf-hub:evil"}}}, "hf-hub:evil"),
        (
            {"model": {"towers": {"text": {"kind": "clip_text", "hf_model_name": "evil/bert"}}}},
            "hf:evil/bert",
        ),
        (
            {"model": {"towers": {"text": {"kind": "clip_text", "arch": "roberta-ViT-B-32"}}}},
            "hf:roberta-base",
        ),
        (
            {"model": {"towers": {"image": {"frame": [{"timm_model_name": "hf-hub:evil/vit"}]}}}},
            "hf-hub:evil/vit",
        ),
        ({"model": {"towers": {"image": {"arch": "hf-hub:evil/arch"}}}}, "hf-hub:evil/arch"),
    ],
)
def test_a_checkpoint_names_nothing_of_a_hub(
    tmp_path: Path, sections: dict[str, dict[str, Any]], name: str
) -> None:
    folder = checkpoint(tmp_path / "theirs", **sections)
    with pytest.raises(ModelError, match=f"asks for '{re.escape(name)}', a download.*model.allow"):
        resolved({"adapter": f"local:{folder}"})


def test_a_folder_is_not_a_hub(tmp_path: Path) -> None:
    settings = {"text": {"tokenizer": f"hf:{tmp_path}"}}
    folder = checkpoint(tmp_path / "theirs", modality_settings=settings)
    config = resolved({"adapter": f"local:{folder}"})
    assert config.modalities["text"]["tokenizer"] == f"hf:{tmp_path}"


@pytest.mark.parametrize(
    "content", ["[]", '{"model": 1, "modality_settings": {}}', "{}", "[" * 9999]
)
def test_a_description_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((ConfigError, ModelError), match=r"config\.json"):
        resolved({"adapter": f"local:{tmp_path}"})


def open_clip_folder(folder: Path, weights: str, **text: Any) -> Path:
    import open_clip

    config: dict[str, Any] = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    folder.mkdir()
    state = open_clip.CustomTextCLIP(**config).state_dict()
    if weights.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / weights)
    else:
        torch.save(state, folder / weights)
    config["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


@pytest.mark.parametrize("name", ["hf_model_name", "hf_tokenizer_name"])
def test_an_open_clip_folder_names_nothing_of_a_hub(tmp_path: Path, name: str) -> None:
    folder = open_clip_folder(tmp_path / "theirs", "model.safetensors", **{name: "evil/bert"})
    with pytest.raises(ModelError, match="asks for 'hf:evil/bert', a download"):
        resolved({"adapter": f"local:{folder}"})


def test_pickled_weights_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "theirs", "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="a pickle; convert it to safetensors, or add 'pickle'"):
        resolved({"adapter": f"local:{folder}"})
    built(resolved({"adapter": f"local:{folder}", "allow": ["pickle"]}))


def test_a_pickle_that_is_allowed_still_runs_nothing(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "theirs", "open_clip_pytorch_model.bin")
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    (folder / "open_clip_pytorch_model.bin").write_bytes(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ModelError, match="not plain tensors"):
            built(resolved({"adapter": f"local:{folder}", "allow": ["pickle"]}))
    assert not (tmp_path / "ran").exists()


def test_a_transformers_folder_is_read_as_safetensors_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.adapters.test_huggingface import clip_folder

    folder = tmp_path / "theirs"
    clip_folder(folder)
    content = json.loads((folder / "config.json").read_text())
    content |= {"attn_implementation": "evil/kernel", "auto_map": {"AutoConfig": "evil--x.Y"}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    built(resolved({"adapter": f"hf:{folder}"}))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ModelError, match="a pickle; convert it"):
        built(resolved({"adapter": f"hf:{folder}"}))
    with pytest.raises(ModelError, match="not plain tensors"):
        built(resolved({"adapter": f"hf:{folder}", "allow": ["pickle"]}))
    assert not (tmp_path / "ran").exists()
