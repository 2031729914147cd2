"""CLIP and CLAP of transformers from a local folder, as transformers itself computes them."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimem_ray.errors import ModelError
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.build import build_model
from multimem_ray.setup import resolve

transformers = pytest.importorskip("transformers")

BASE = {"output": "o", "data": {"shards": "s"}}


def clip_folder(folder: Path) -> Any:
    torch.manual_seed(1)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 20,
        "vocab_size": 49408,
        "eos_token_id": 49407,
        "bos_token_id": 49406,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model


def test_clip_embeds_as_transformers_does(tmp_path: Path) -> None:
    theirs = clip_folder(tmp_path)
    for name in (f"hf:{tmp_path}", f"local:{tmp_path}"):
        config = resolve({**BASE, "model": name})
        assert config.model.dim == 16
        assert config.modalities["text"]["tokenizer"] == "clip"
        assert config.modalities["text"]["length"] == 20
        decoder = Decoder({"image": "jpg", "text": "txt"}, config.modalities)
        model = build_model(config.model, decoder.modalities, 3).eval()
        image, text = decoder.modalities
        ids = torch.tensor(np.stack([text.view(text.decode(c), None) for c in ("a dog", "two")]))
        pixels = torch.randint(0, 255, (2, *image.spec.shape), dtype=torch.uint8)
        ours = model.embed(model.prepare({"image": pixels, "text": ids}))
        mean = torch.tensor(transformers.image_utils.OPENAI_CLIP_MEAN).view(3, 1, 1)
        std = torch.tensor(transformers.image_utils.OPENAI_CLIP_STD).view(3, 1, 1)
        expected = theirs(input_ids=ids.long(), pixel_values=(pixels / 255 - mean) / std)
        torch.testing.assert_close(ours["image"], expected.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours["text"], expected.text_embeds, atol=1e-5, rtol=0)
        assert model.log_scales.item() == pytest.approx(theirs.logit_scale.item())


@pytest.mark.parametrize("fusion", [False, True])
def test_clap_embeds_as_transformers_does(tmp_path: Path, fusion: bool) -> None:
    theirs, extractor = clap_folder(tmp_path, fusion=fusion)
    config = resolve(
        {**BASE, "model": f"hf:{tmp_path}", "modalities": {"text": {"tokenizer": "words"}}}
    )
    assert config.modalities["audio"]["sample_rate"] == 16000
    decoder = Decoder({"audio": "flac", "text": "txt"}, config.modalities)
    audio, _ = decoder.modalities
    assert audio.spec.shape == (16000,)
    model = build_model(config.model, decoder.modalities, 3).eval()
    rng = np.random.default_rng(0)
    wave = (rng.normal(size=(2, 16000)) * 3000).astype(np.int16)
    ids = torch.tensor([[0, 5, 6, 2, 1, 1], [0, 9, 2, 1, 1, 1]])
    ours = model.embed(model.prepare({"audio": torch.from_numpy(wave), "text": ids}))
    features = extractor([w / 32768 for w in wave], sampling_rate=16000, return_tensors="pt")[
        "input_features"
    ].float()
    prepared = model.prepare({"audio": torch.from_numpy(wave)})["audio"]
    torch.testing.assert_close(prepared, features, atol=1e-2, rtol=0)
    with torch.no_grad():
        longer = torch.zeros(2, 1, dtype=torch.bool)
        sound = theirs.get_audio_features(input_features=features, is_longer=longer).pooler_output
        words = theirs.get_text_features(input_ids=ids, attention_mask=(ids != 1).long())
    torch.testing.assert_close(ours["audio"], sound, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours["text"], words.pooler_output, atol=1e-5, rtol=0)


def clap_folder(folder: Path, *, fusion: bool) -> tuple[Any, Any]:
    torch.manual_seed(1)
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "hidden_size": 32,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "enable_fusion": fusion,
        "hidden_dropout_prob": 0.0,
    }
    audio["hidden_size"] = 16
    text = {
        "vocab_size": 30,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "projection_dim": 16,
    }
    config = transformers.ClapConfig(audio_config=audio, text_config=text, projection_dim=16)
    model = transformers.ClapModel(config).eval()
    model.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16000,
        hop_length=160,
        max_length_s=1,
        fft_window_size=512,
        frequency_max=8000,
        truncation="fusion" if fusion else "rand_trunc",
    )
    extractor.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    return model, extractor


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModelError, match=r"pip install 'multimem-ray\[hf\]'"):
        resolve({**BASE, "model": f"hf:{tmp_path}"})


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded.*local folder"):
        resolve({**BASE, "model": f"hf:{tmp_path}"})


@pytest.mark.parametrize("place", ["/no/such/folder", "./none", "~/no-such-folder"])
def test_a_path_that_is_not_there_is_no_name_on_the_hub(place: str) -> None:
    with pytest.raises(ModelError, match=f"hf:{place}: no such folder; correct the path"):
        resolve({"output": "o", "data": {"shards": "s"}, "model": f"hf:{place}"})
