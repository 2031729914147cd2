"""Weights as trainers save them: understood, or refused in one line, or the difference is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multimem_ray.errors import ModelError
from multimem_ray.models.adapters.weights import read_checkpoint, say_once
from tests.models.adapters.originals import (
    CAPTIONS,
    assert_same,
    embedded,
    open_clip_folder,
)

State = dict[str, Tensor]
GIVEN = {"text": list(CAPTIONS)}


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


def compiled_parts(state: State) -> State:
    return {name.replace("text.", "text._orig_mod.", 1): value for name, value in state.items()}


def with_a_loss(state: State) -> State:
    return under("model.")(state) | {"loss.weight": torch.ones(2), "metric.total": torch.ones(1)}


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, State]:
    """A folder of open_clip, and its weights."""
    open_clip_folder(tmp_path / "theirs")
    return tmp_path / "theirs", load_file(tmp_path / "theirs" / "open_clip_model.safetensors")


@pytest.fixture(autouse=True)
def says_again() -> None:
    say_once.cache_clear()


@pytest.mark.parametrize(
    "wrapped",
    [
        under("_orig_mod."),
        under("module."),
        under("module._orig_mod."),
        under("model."),
        under("model._orig_mod."),
        under("clip."),
        compiled_parts,
        with_a_loss,
    ],
)
def test_names_of_wrappers_are_understood(
    theirs: tuple[Path, State], wrapped: Callable[[State], State]
) -> None:
    folder, state = theirs
    before = embedded(f"local:{folder}", GIVEN)["text"]
    save_file(wrapped(state), folder / "open_clip_model.safetensors")
    torch.testing.assert_close(embedded(f"local:{folder}", GIVEN)["text"], before)


@pytest.mark.parametrize(
    ("around", "said"),
    [
        (lambda state: state, ""),
        (lambda state: {"model": state}, ""),
        (lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, ""),
        (lambda state: {"epoch": 3, "model": {"state_dict": state}}, ""),
        (
            lambda state: {"state_dict": under("module.")(state), "state_dict_ema": other(state)},
            "it holds state_dict_ema beside 'state_dict'; 'state_dict' is taken",
        ),
        (
            lambda state: {"model_ema": other(state), "model": state},
            "it holds model_ema beside 'model'",
        ),
    ],
)
def test_what_trainers_put_around_weights(
    theirs: tuple[Path, State],
    around: Callable[[State], Mapping[str, Any]],
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, state = theirs
    torch.save(around(state), tmp_path / "last.ckpt")
    with caplog.at_level(logging.WARNING):
        found = read_checkpoint(tmp_path / "last.ckpt", "logit_scale")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"optimizer": {"state": {}}}])
def test_no_weights_are_said_in_one_line(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ModelError, match=r"last\.ckpt: no weights under a name") as raised:
        read_checkpoint(tmp_path / "last.ckpt", "logit_scale")
    assert "\n" not in str(raised.value)


def test_the_bias_of_a_sigmoid_loss_moves_no_embedding(theirs: tuple[Path, State]) -> None:
    folder, state = theirs
    before = embedded(f"local:{folder}", GIVEN)["text"]
    save_file(state | {"logit_bias": torch.tensor(-9.0)}, folder / "open_clip_model.safetensors")
    assert_same(embedded(f"local:{folder}", GIVEN)["text"], before)
    described = json.loads((folder / "open_clip_config.json").read_text())
    described["model_cfg"]["init_logit_bias"] = -10
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    assert_same(embedded(f"local:{folder}", GIVEN)["text"], before)
    save_file(state, folder / "open_clip_model.safetensors")
    assert_same(embedded(f"local:{folder}", GIVEN)["text"], before)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("vision_cfg", "image_size", 48, "its pictures have 32 pixels a side, and those of .* 48"),
        ("text_cfg", "context_length", 77, "its texts have 24 tokens, and those of .* 77"),
        ("text_cfg", "width", 64, "do not fit"),
    ],
)
def test_weights_of_other_inputs_are_refused(
    theirs: tuple[Path, State], part: str, key: str, value: int, said: str
) -> None:
    folder, _ = theirs
    described = json.loads((folder / "open_clip_config.json").read_text())
    described["model_cfg"][part][key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match=said) as raised:
        embedded(f"local:{folder}", GIVEN)
    assert "\n" not in str(raised.value)


def test_the_activation_of_a_file_is_said(
    tiny_arch: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.models.adapters.ways import save_open_clip

    file = save_open_clip(tiny_arch, tmp_path / "made")
    with caplog.at_level(logging.WARNING):
        embedded(f"open_clip:{tiny_arch}/{file}", GIVEN)
    assert caplog.text.count("does not say its activation; GELU is taken") == 1
    state = load_file(file) | {"input_resolution": torch.tensor(32)}
    torch.save(state, tmp_path / "openai.pt")
    with pytest.raises(ModelError, match="trained with QuickGELU; name an architecture"):
        embedded(f"open_clip:{tiny_arch}/{tmp_path / 'openai.pt'}", GIVEN)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "model."])
def test_weights_of_transformers_are_complete(prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.adapters.test_huggingface import clip_folder

    clip_folder(tmp_path)
    before = embedded(f"hf:{tmp_path}", GIVEN)["text"]
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    save_file(under(prefix)(state), file, metadata={"format": "pt"})
    torch.testing.assert_close(embedded(f"hf:{tmp_path}", GIVEN)["text"], before)
    del state["text_projection.weight"]
    save_file(under(prefix)(state), file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights of a CLIPModel .* text_projection\.weight"):
        embedded(f"hf:{tmp_path}", GIVEN)


@pytest.mark.parametrize(
    ("part", "key"), [("text_config", "max_position_embeddings"), ("vision_config", "image_size")]
)
def test_weights_of_transformers_fit_the_description(part: str, key: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.adapters.test_huggingface import clip_folder

    clip_folder(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content[part][key] = 64
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"position_embedding\.weight has the shape .* two models"):
        embedded(f"hf:{tmp_path}", GIVEN)
