"""CLIP, SigLIP and CLAP models of transformers, from its hub or a local folder.

CLAP hears mel spectrograms; they are made here in torch, on whole batches, and equal those of its
own feature extractor. Of sound that is longer than it hears, that extractor takes a random part,
and the middle is taken here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import (
    TOKENIZER_FILES,
    Adapter,
    Description,
    compare_setting,
    require_setting,
)
from multimem_ray.models.adapters.clap import ClapMel, known
from multimem_ray.models.adapters.foreign import PICKLE, require_plain
from multimem_ray.models.adapters.pictures import Pictures, pictures_of
from multimem_ray.models.adapters.weights import read_checkpoint, say_once
from multimem_ray.models.towers import Adapted
from multimem_ray.models.towers.base import Normalize, Tower

_CLAP_TEXT_LENGTH = 77
_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "clap": "ClapModel"}


class HuggingFaceAdapter(Adapter):
    """``hf:ORG/NAME`` or ``hf:FOLDER``."""

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        config = self._config()
        self._check(getattr(self._transformers(), _CLASSES[config.model_type]), config)
        text: dict[str, Any] = {"tokenizer": self._tokenizer(), "dropout": 0.0}
        if config.model_type != "clap":
            text["length"] = config.text_config.max_position_embeddings
            image = {"size": config.vision_config.image_size, "fit": self._pictures().fit}
            return Description(self._dim(config), {"image": image, "text": text})
        text["length"] = min(_CLAP_TEXT_LENGTH, config.text_config.max_position_embeddings - 2)
        extractor = self._extractor()
        audio = {
            "sample_rate": extractor.sampling_rate,
            "seconds": float(extractor.max_length_s),
            "short": extractor.padding,
        }
        if config.audio_config.enable_fusion:
            say_once(
                f"{self.name}: of sound longer than {extractor.max_length_s} s it hears random "
                "parts beside the whole; here it hears the middle, as if there were no more"
            )
        return Description(self._dim(config), {"audio": audio, "text": text})

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        config = self._config()
        kind = config.model_type
        cls = getattr(self._transformers(), _CLASSES[kind])
        model = self._loaded(cls, config) if weights else cls(config)
        expected = self.describe().modalities
        towers: dict[str, Tower] = {}
        for modality in modalities:
            if modality.name not in expected:
                continue
            spec, settings = modality.spec, expected[modality.name]
            if modality.name == "text":
                self._check_text(modality, settings, exact=kind == "siglip")
                padding = config.text_config.pad_token_id if kind == "clap" else None
                projection = getattr(model, "text_projection", nn.Identity())
                towers["text"] = _TextTower(model.text_model, projection, padding)
            elif modality.name == "image":
                require_setting("image", "size", spec.shape[-1], settings["size"], self.name)
                compare_setting(modality, "fit", settings["fit"], self.name)
                pictures = self._pictures()
                normalize = Normalize(spec, pictures.mean, pictures.std, pictures.scale)
                projection = getattr(model, "visual_projection", nn.Identity())
                towers["image"] = _ImageTower(model.vision_model, projection, normalize)
            else:
                rate, length = settings["sample_rate"], settings["seconds"]
                require_setting("audio", "sample_rate", spec.sample_rate, rate, self.name)
                require_setting("audio", "seconds", spec.shape[0] / rate, length, self.name)
                compare_setting(modality, "short", settings["short"], self.name)
                mel = ClapMel(self._extractor(), fusion=bool(config.audio_config.enable_fusion))
                towers["audio"] = _AudioTower(model.audio_model, model.audio_projection, mel)
        scale = getattr(model, "logit_scale", None)
        scale = model.logit_scale_a if scale is None else scale
        return Adapted(towers, log_scale=float(scale.detach()))

    def _check_text(self, modality: Modality, wanted: Mapping[str, Any], *, exact: bool) -> None:
        """Raises a ConfigError for texts that the model cannot take."""
        length = modality.spec.shape[0]
        most = self._config().text_config.max_position_embeddings
        if exact or length > most:
            require_setting(
                "text", "length", length, wanted["length"] if exact else most, self.name
            )
        compare_setting(modality, "tokenizer", wanted["tokenizer"], self.name)

    def _dim(self, config: Any) -> int:
        if config.model_type == "siglip":
            return int(config.text_config.projection_size)
        return int(config.projection_dim)

    @property
    def _is_local(self) -> bool:
        """Whether it is a folder; then nothing in it makes transformers ask a hub."""
        return Path(self.place).expanduser().is_dir()

    def _check(self, cls: Any, config: Any) -> None:
        """Raises a ModelError for weights of another shape, before anything is built."""
        file = self._file() if self._is_local else None
        if file is None:
            return
        with torch.device("meta"):
            own = cls(config).state_dict()
        for name, tensor in read_checkpoint(file, _anchor(config), shapes=True).items():
            if name in own and own[name].shape != tensor.shape:
                raise ModelError(
                    f"{file}: {name} has the shape {tuple(tensor.shape)}, and with the config.json "
                    f"beside it, it has {tuple(own[name].shape)}; they are of two models"
                )

    def _loaded(self, cls: Any, config: Any) -> Any:
        """The model with its weights, all of them: what is missing would stay random."""
        file = self._file() if self._is_local else None
        state = None if file is None else read_checkpoint(file, _anchor(config))
        try:
            model, info = cls.from_pretrained(
                None if state is not None else self.place,
                config=config,
                state_dict=state,
                dtype=torch.float32,
                local_files_only=self._is_local,
                use_safetensors=None if PICKLE in self.allow else True,
                weights_only=True,
                output_loading_info=True,
            )
        except Exception as error:
            raise self._unreadable(error) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise ModelError(
                f"{file or self.place}: {len(missing)} weights of a {cls.__name__} are not in it, "
                f"such as {missing[0]}; save the whole model"
            )
        return model

    def _file(self) -> Path | None:
        """The weights of the folder that are one file; None where they are in several."""
        folder = Path(self.place).expanduser()
        for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
            file = folder / name
            if file.is_file():
                if not name.endswith(".json"):
                    require_plain(file, self.allow)
                    return file
                return None
        for weights in sorted(folder.glob("*.bin")):
            require_plain(weights, self.allow)
        return None

    def _transformers(self) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise ModelError(
                f"{self.name} needs transformers: pip install 'multimem-ray[hf]'"
            ) from error
        return transformers

    def _config(self) -> Any:
        transformers = self._transformers()
        if self.place.startswith(("/", "~", ".")) and not self._is_local:
            raise ModelError(f"{self.name}: no such folder; correct the path")
        try:
            config = transformers.AutoConfig.from_pretrained(
                self.place, trust_remote_code=False, local_files_only=self._is_local
            )
        except Exception as error:
            raise self._unreadable(error) from error
        if config.model_type not in _CLASSES:
            raise ConfigError(
                f"model.adapter: {self.name} is a model of type '{config.model_type}'; known are "
                f"{', '.join(_CLASSES)}, and others come in as a plugin"
            )
        # A foreign file could name one of a hub, whose kernels are code; the default is torch's.
        config._attn_implementation = None
        return config

    def _unreadable(self, error: BaseException) -> ModelError:
        said = " ".join(str(error).split())[:300]
        return ModelError(
            f"{self.name}: cannot be loaded: {said}; without a network, name a local folder: "
            "hf:/path/to/folder"
        )

    def _pictures(self) -> Pictures:
        """How its pictures are made; the settings of its family where the folder has none."""
        config = self._config()
        return pictures_of(
            self.name, self.place, config.model_type, config.vision_config.image_size
        )

    def _extractor(self) -> Any:
        transformers = self._transformers()
        file = transformers.utils.cached_file(
            self.place, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
        if file is None:
            file = transformers.utils.cached_file(
                self.place, "processor_config.json", _raise_exceptions_for_missing_entries=False
            )
        content = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
        settings = content.get("feature_extractor", content)
        if not settings:
            say_once(f"{self.name}: no preprocessor_config.json; transformers' defaults are taken")
        return transformers.ClapFeatureExtractor(**known(settings))

    def _tokenizer(self) -> str:
        folder = Path(self.place).expanduser()
        if folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES):
            if self._config().text_config.vocab_size == 49408:
                return "clip"
            raise ModelError(f"{folder}: no tokenizer; save it beside the model")
        return f"hf:{self.place}"


def _anchor(config: Any) -> str:
    """Name of a tensor that every such model has at its top."""
    return "logit_scale_a" if config.model_type == "clap" else "logit_scale"


class _ImageTower(Tower):
    def __init__(self, encoder: nn.Module, projection: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.encoder, self.projection, self.normalize = encoder, projection, normalize

    def prepare(self, raw: Tensor) -> Tensor:
        return self.normalize(raw)

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.projection(self.encoder(pixel_values=features).pooler_output)
        return embedded


class _TextTower(Tower):
    """``padding``: the id to be masked; None for causal models, which never look ahead."""

    def __init__(self, encoder: nn.Module, projection: nn.Module, padding: int | None) -> None:
        super().__init__()
        self.encoder, self.projection, self.padding = encoder, projection, padding

    def prepare(self, raw: Tensor) -> Tensor:
        return raw.long()

    def forward(self, features: Tensor) -> Tensor:
        mask = None if self.padding is None else (features != self.padding).long()
        pooled = self.encoder(input_ids=features, attention_mask=mask).pooler_output
        embedded: Tensor = self.projection(pooled)
        return embedded


class _AudioTower(Tower):
    def __init__(self, encoder: nn.Module, projection: nn.Module, mel: ClapMel) -> None:
        super().__init__()
        self.encoder, self.projection, self.mel = encoder, projection, mel

    def prepare(self, raw: Tensor) -> Tensor:
        scale = 32768.0 if raw.dtype == torch.int16 else 1.0
        return self.mel(raw.float() / scale)

    def forward(self, features: Tensor) -> Tensor:
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        pooled = self.encoder(input_features=features, is_longer=longer).pooler_output
        embedded: Tensor = self.projection(pooled)
        return embedded
