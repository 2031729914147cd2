"""Models of open_clip: any of its architectures, from scratch, from a file or from its hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import (
    FINE_TUNING,
    TOKENIZER_FILES,
    Adapter,
    Description,
    compare_setting,
    require_setting,
)
from multimem_ray.models.adapters.foreign import require_allowed, require_plain
from multimem_ray.models.adapters.weights import read_checkpoint, say_once
from multimem_ray.models.checkpoint import load_weights
from multimem_ray.models.presets import preset_defaults
from multimem_ray.models.towers import Adapted
from multimem_ray.models.towers.base import Normalize, Tower
from multimem_ray.models.towers.clip import TextTower, VisualTower, architecture, untrained

_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)
_NUMPY = (".npz", ".npy")
# What the weights of OpenAI hold beside them, and no others.
_OPENAI = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Source:
    """An architecture and where its weights are.

    Args:
        config: open_clip's description.
        weights: A file, a tag's entry in open_clip's list, or None for a model from scratch.
        preprocess: open_clip's description of its pictures, where they are not CLIP's.
        tokenizer: Name of its tokenizer, where it is not CLIP's.
    """

    config: dict[str, Any]
    weights: Path | Mapping[str, Any] | None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None


class OpenClipAdapter(Adapter):
    """``open_clip:ARCH[/PRETRAINED]``."""

    def source(self) -> Source:
        """Architecture and weights that the name stands for."""
        arch, _, pretrained = self.place.partition("/")
        config = architecture(arch)
        text = config["text_cfg"]
        tokens = f"open_clip:{arch}" if text.get("hf_tokenizer_name") else None
        if not pretrained:
            return Source(config, None, tokenizer=tokens)
        tag = open_clip.get_pretrained_cfg(arch, pretrained)
        if tag:
            # The weights of a tag need the activation that they were trained with.
            config["quick_gelu"] = bool(tag.get("quick_gelu", False))
            return Source(config, tag, tag, tokens)
        file = Path(pretrained).expanduser()
        if not file.is_file():
            tags = open_clip.list_pretrained_tags_by_model(arch)
            hint = nearest(pretrained, tags) if tags else "; open_clip lists none for it"
            raise ConfigError(
                f"model.adapter: {self.name}: '{pretrained}' is neither a file here nor a tag of "
                f"{arch}{hint}"
            )
        if not config.get("quick_gelu"):
            other = f"{arch}-quickgelu"
            way = f"open_clip:{other}/FILE" if other in open_clip.list_models() else "a folder"
            say_once(
                f"{file}: a file of weights does not say its activation; GELU is taken, as {arch} "
                f"has it: for QuickGELU, as in OpenAI's own models, name {way}"
            )
        return Source(config, file, tokenizer=tokens)

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        source = self.source()
        config = source.config
        if "multimodal_cfg" in config or not isinstance(config.get("vision_cfg"), dict):
            raise ConfigError(f"model.adapter: {self.name}: only models with two towers are known")
        vision, text = config["vision_cfg"], config["text_cfg"]
        if text.get("tokenizer_kwargs") and source.tokenizer is None:
            raise ConfigError(
                f"model.adapter: {self.name}: its tokenizer cleans text in a way of its own "
                f"({text['tokenizer_kwargs']}); use a plugin"
            )
        image: dict[str, Any] = {"size": self._side(vision.get("image_size", 224))}
        if source.weights is not None:
            image["fit"] = self._fit(source.preprocess)
        if isinstance(source.weights, Path) and source.weights.suffix not in _NUMPY:
            self._check(source.weights, config)
        length = text.get("context_length", 77)
        tokens = {"tokenizer": source.tokenizer or "clip", "length": length, "dropout": 0.0}
        scratch = preset_defaults("clip")["training"]
        training = scratch if source.weights is None else FINE_TUNING
        return Description(config["embed_dim"], {"image": image, "text": tokens}, training)

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        source = self.source()
        model = open_clip.CustomTextCLIP(**source.config)
        if weights and source.weights is not None:
            self._load(model, source.weights)
        expected = self.describe().modalities
        preprocess = _merged(source.preprocess)
        mean, std = (
            value if isinstance(value, Sequence) else [value] * 3
            for value in (preprocess["mean"], preprocess["std"])
        )
        towers: dict[str, Tower] = {}
        for modality in modalities:
            if modality.name == "image":
                size = expected["image"]["size"]
                require_setting("image", "size", modality.spec.shape[-1], size, self.name)
                compare_setting(modality, "fit", expected["image"].get("fit"), self.name)
                towers["image"] = VisualTower(model.visual, Normalize(modality.spec, mean, std))
            elif modality.name == "text":
                length = expected["text"]["length"]
                require_setting("text", "length", modality.spec.shape[0], length, self.name)
                compare_setting(modality, "tokenizer", expected["text"]["tokenizer"], self.name)
                towers["text"] = TextTower(model.text)
        return Adapted(towers, log_scale=float(model.logit_scale.detach()))

    def _load(self, model: nn.Module, weights: Path | Mapping[str, Any]) -> None:
        if isinstance(weights, Path):
            path = weights
        else:
            try:
                path = Path(download_pretrained(weights))
            except Exception as error:
                said = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"{self.name}: the weights cannot be downloaded ({said}); fetch them "
                    "elsewhere and name the file: open_clip:ARCH/path/to/file"
                ) from error
            require_plain(path, self.allow)
        if path.suffix in _NUMPY:
            try:
                open_clip.load_checkpoint(model, str(path))
            except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
                said = " ".join(str(error).split())[:300]
                raise ModelError(f"{path}: no weights for {self.name}: {said}") from error
            return
        state = _named(model, read_checkpoint(path, "logit_scale"))
        load_weights(model, state, str(path))

    def _check(self, file: Path, config: Mapping[str, Any]) -> None:
        """Compare weights with the architecture, before anything is built.

        Raises:
            ModelError: Of pictures of another size, texts of another length, or OpenAI's own of
                another activation: open_clip would interpolate them, or take them as they are.
        """
        held = read_checkpoint(file, "logit_scale", shapes=True)
        vision, text = config["vision_cfg"], config["text_cfg"]
        way = "name a folder with an open_clip_config.json that says so"
        if any(name in held for name in _OPENAI) and not config.get("quick_gelu"):
            raise ModelError(
                f"{file}: weights of OpenAI, which were trained with QuickGELU; name an "
                f"architecture that has it, such as open_clip:ViT-B-32-quickgelu, or {way}"
            )
        places = held.get("visual.positional_embedding")
        patch = vision.get("patch_size")
        if places is not None and isinstance(patch, int):
            size = self._side(vision.get("image_size", 224))
            side = round((len(places) - 1) ** 0.5)
            if side != size // patch:
                raise ModelError(
                    f"{file}: its pictures have {side * patch} pixels a side, and those of "
                    f"{self.name} {size}; name the architecture of that size, or {way}"
                )
        words = held.get("text.positional_embedding", held.get("positional_embedding"))
        length = text.get("context_length", 77)
        if words is not None and len(words) - bool(text.get("embed_cls")) != length:
            raise ModelError(
                f"{file}: its texts have {len(words)} tokens, and those of {self.name} {length}; "
                f"name the architecture of that length, or {way} (context_length)"
            )

    def _fit(self, preprocess: Mapping[str, Any]) -> dict[str, Any]:
        """How open_clip brings pictures to their size; see ``image_transform`` there."""
        given = _merged(preprocess)
        how, kernel = given["resize_mode"], given["interpolation"]
        known = ("shortest", "longest", "squash"), ("bicubic", "bilinear", "random")
        if how not in known[0] or kernel not in known[1]:
            raise ConfigError(
                f"model.adapter: {self.name}: its pictures are resized by '{how}', '{kernel}'; "
                f"known are {', '.join(known[0])} and {', '.join(known[1])}"
            )
        kernel = "bicubic" if kernel == "random" else kernel
        if how != "longest":
            return {"resize": how, "kernel": kernel}
        colour = given["fill_color"]
        levels = colour if isinstance(colour, list | tuple) else [colour] * 3
        if len(levels) != 3 or any(value not in range(256) for value in levels):
            raise ConfigError(
                f"model.adapter: {self.name}: pictures are laid on fill_color {colour}; known are "
                "a whole number of 0 to 255, and three of them"
            )
        fill = int(colour) if colour == levels[0] else [int(value) for value in levels]
        return {"resize": how, "kernel": kernel, "fill": fill}

    def _side(self, size: Any) -> int:
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise ConfigError(f"model.adapter: {self.name}: its pictures are {size}, no squares")
        return int(sides.pop())


def _merged(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's description with its defaults for what is not there."""
    return dict(vars(PreprocessCfg())) | {k: v for k, v in preprocess.items() if v is not None}


def _named(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of a ``CustomTextCLIP``, after open_clip's ``load_checkpoint``.

    The bias of a sigmoid loss (SigLIP) moves no embedding, and no softmax: a model that has none
    is given none, and one that has it and finds none has zero.
    """
    state = {name: value for name, value in state.items() if name not in _OPENAI}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name not in own:
            state.pop(name, None)
        elif name in state:
            state[name] = state[name].reshape(own[name].shape)
        elif name == "logit_bias":
            state[name] = torch.zeros_like(own[name])
    # Which transformers wrote once, and does not any more.
    ids = "text.transformer.embeddings.position_ids"
    if ids not in own:
        state.pop(ids, None)
    return state


class OpenClipFolderAdapter(OpenClipAdapter):
    """A folder with ``open_clip_config.json`` and weights, as open_clip's hub holds them."""

    def source(self) -> Source:
        """See :meth:`OpenClipAdapter.source`."""
        folder = Path(self.place).expanduser()
        file = folder / "open_clip_config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            config = untrained(content["model_cfg"])
            checked = dict(config["text_cfg"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file}: cannot be read: {error}") from error
        own = any((folder / name).is_file() for name in TOKENIZER_FILES)
        if own:
            # open_clip takes what lies in the folder, and asks no hub.
            checked.pop("hf_tokenizer_name", None)
        require_allowed({**config, "text_cfg": checked}, str(file), self.allow)
        weights = [folder / name for name in _WEIGHT_FILES if (folder / name).is_file()]
        if not weights:
            raise ModelError(f"{folder}: no weights; expected one of {', '.join(_WEIGHT_FILES)}")
        require_plain(weights[0], self.allow)
        tokens = config["text_cfg"].get("hf_tokenizer_name")
        named = (f"open_clip:{folder}" if own else f"hf:{tokens}") if tokens else None
        return Source(config, weights[0], content.get("preprocess_cfg") or {}, named)
