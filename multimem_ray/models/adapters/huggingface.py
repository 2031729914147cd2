"""CLIP and CLAP models of transformers, from its hub or a local folder.

CLAP hears mel spectrograms; they are made here in torch, on whole batches, and equal those of its
own feature extractor for sound of full length. Shorter sound is laid into silence, where that
extractor repeats it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.transforms import Spectrogram

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import Adapted, Adapter, Description, require_setting
from multimem_ray.models.adapters.foreign import PICKLE, require_plain
from multimem_ray.models.towers.base import CLIP_MEAN, CLIP_STD, Normalize, Tower

_CLAP_TEXT_LENGTH = 77
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer_config.json")


class HuggingFaceAdapter(Adapter):
    """``hf:ORG/NAME`` or ``hf:FOLDER``."""

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        config = self._config()
        text: dict[str, Any] = {"tokenizer": self._tokenizer(), "dropout": 0.0}
        if config.model_type == "clip":
            text["length"] = config.text_config.max_position_embeddings
            image = {"size": config.vision_config.image_size}
            return Description(config.projection_dim, {"image": image, "text": text})
        text["length"] = min(_CLAP_TEXT_LENGTH, config.text_config.max_position_embeddings - 2)
        extractor = self._extractor()
        audio = {
            "sample_rate": extractor.sampling_rate,
            "seconds": float(extractor.max_length_s),
        }
        return Description(config.projection_dim, {"audio": audio, "text": text})

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        transformers = self._transformers()
        config = self._config()
        cls = transformers.CLIPModel if config.model_type == "clip" else transformers.ClapModel
        model = self._loaded(cls, config) if weights else cls(config)
        towers: dict[str, Tower] = {}
        for modality in modalities:
            spec = modality.spec
            if modality.name == "text":
                padding = None if config.model_type == "clip" else config.text_config.pad_token_id
                towers["text"] = _TextTower(model.text_model, model.text_projection, padding)
            elif modality.name == "image" and config.model_type == "clip":
                size = config.vision_config.image_size
                require_setting("image", "size", spec.shape[-1], size, self.name)
                settings = self._preprocessing()
                normalize = Normalize(
                    spec,
                    settings.get("image_mean") or CLIP_MEAN,
                    settings.get("image_std") or CLIP_STD,
                )
                towers["image"] = _ImageTower(
                    model.vision_model, model.visual_projection, normalize
                )
            elif modality.name == "audio" and config.model_type == "clap":
                extractor = self._extractor()
                rate = extractor.sampling_rate
                require_setting("audio", "sample_rate", spec.sample_rate, rate, self.name)
                fusion = bool(config.audio_config.enable_fusion)
                mel = ClapMel(extractor, fusion=fusion)
                towers["audio"] = _AudioTower(model.audio_model, model.audio_projection, mel)
        scale = getattr(model, "logit_scale", None)
        scale = model.logit_scale_a if scale is None else scale
        return Adapted(towers, log_scale=float(scale.detach()))

    @property
    def _is_local(self) -> bool:
        """Whether it is a folder; then nothing in it makes transformers ask a hub."""
        return Path(self.place).expanduser().is_dir()

    def _loaded(self, cls: Any, config: Any) -> Any:
        folder = Path(self.place).expanduser()
        if self._is_local and not any(folder.glob("*.safetensors")):
            for weights in sorted(folder.glob("*.bin")):
                require_plain(weights, self.allow)
        try:
            return cls.from_pretrained(
                self.place,
                config=config,
                torch_dtype=torch.float32,
                local_files_only=self._is_local,
                use_safetensors=None if PICKLE in self.allow else True,
                weights_only=True,
            )
        except Exception as error:
            raise self._unreadable(error) from error

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
        try:
            config = transformers.AutoConfig.from_pretrained(
                self.place, trust_remote_code=False, local_files_only=self._is_local
            )
        except Exception as error:
            raise self._unreadable(error) from error
        if config.model_type not in {"clip", "clap"}:
            raise ConfigError(
                f"model.adapter: {self.name} is a model of type '{config.model_type}'; known are "
                "clip and clap, and others come in as a plugin"
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

    def _preprocessing(self) -> Mapping[str, Any]:
        transformers = self._transformers()
        file = transformers.utils.cached_file(
            self.place, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
        return {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))

    def _extractor(self) -> Any:
        return self._transformers().ClapFeatureExtractor(**_known(self._preprocessing()))

    def _tokenizer(self) -> str:
        folder = Path(self.place).expanduser()
        if folder.is_dir() and not any((folder / name).exists() for name in _TOKENIZER_FILES):
            if self._config().text_config.vocab_size == 49408:
                return "clip"
            raise ModelError(f"{folder}: no tokenizer; save it beside the model")
        return f"hf:{self.place}"


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes CLAP's spectrogram."""
    names = {
        "feature_size",
        "sampling_rate",
        "hop_length",
        "max_length_s",
        "fft_window_size",
        "frequency_min",
        "frequency_max",
        "truncation",
    }
    return {name: value for name, value in settings.items() if name in names}


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


class ClapMel:
    """CLAP's log-mel spectrogram of a batch, after its feature extractor.

    Args:
        extractor: A ClapFeatureExtractor; its filters are used.
        fusion: The model takes four spectrograms; all are that of the whole, as for short sound.
    """

    def __init__(self, extractor: Any, *, fusion: bool) -> None:
        fused = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.filters = torch.as_tensor(filters, dtype=torch.float32)
        self.power = Spectrogram(
            extractor.fft_window_size, hop_length=extractor.hop_length, power=2.0
        )
        self.copies = 4 if fusion else 1

    def __call__(self, wave: Tensor) -> Tensor:
        """(N, T) → decibels (N, copies, frames, mels)."""
        power: Tensor = self.power.to(wave.device)(wave)
        mel = power.transpose(1, 2) @ self.filters.to(wave.device)
        decibels = mel.clamp_min(1e-10).log().mul(10 / math.log(10))
        return decibels.unsqueeze(1).expand(-1, self.copies, -1, -1)
