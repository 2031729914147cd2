"""At strength 0 an embedding is that of the model's own library, with its own preprocessing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import pytest
import soundfile
import torch

from tests.models.adapters.originals import (
    CAPTIONS,
    GIVEN,
    assert_same,
    embedded,
    open_clip_folder,
    pictures,
    spread,
    tokenizer_folder,
)

PREPROCESSING: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bilinear": {"interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    "squash": {"resize_mode": "squash", "mean": 0.5, "std": 0.5},
    "longest": {"resize_mode": "longest", "fill_color": 90},
    "on a colour": {"resize_mode": "longest", "fill_color": [200, 90, 10]},
    "size of another": {"size": 48},
}


def assert_same_as_open_clip(folder: Path) -> None:
    """Its own model, preprocessing and tokenizer give the embeddings that ours do."""
    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    ours = embedded(f"local:{folder}", GIVEN)
    with torch.no_grad():
        images = theirs.encode_image(torch.stack([transform(p) for p in pictures()]))
        texts = theirs.encode_text(tokenize(list(CAPTIONS)))
    assert_same(ours["image"], images)
    assert_same(ours["text"], texts)


@pytest.mark.parametrize("preprocess", PREPROCESSING.values(), ids=PREPROCESSING)
def test_open_clip(preprocess: dict[str, Any], tmp_path: Path) -> None:
    open_clip_folder(tmp_path, preprocess, quick_gelu=True)
    assert_same_as_open_clip(tmp_path)


def test_siglip_of_open_clip(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    open_clip_folder(
        tmp_path,
        {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
        init_logit_bias=-10,
        text_cfg={
            "vocab_size": 40,
            "hf_tokenizer_name": "somebody/words",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    )
    tokenizer_folder(tmp_path, "a dog two cats and small bird sitting waiting long text about")
    assert_same_as_open_clip(tmp_path)


CROP = {"height": 32, "width": 32}
PROCESSORS: dict[str, dict[str, Any]] = {
    "as it is": {"size": {"shortest_edge": 32}, "crop_size": CROP},
    "larger, then cut": {"size": {"shortest_edge": 37}, "crop_size": CROP},
    "smaller, then laid": {"size": {"shortest_edge": 25}, "crop_size": CROP, "resample": 2},
    "squashed": {"size": CROP, "do_center_crop": False},
    "not resized": {"do_resize": False, "crop_size": CROP},
    "not normalized": {"size": {"shortest_edge": 32}, "crop_size": CROP, "do_normalize": False},
    "not scaled": {"size": 32, "crop_size": 32, "do_rescale": False, "image_std": [99, 9, 80]},
    "scaled otherwise": {"size": 32, "crop_size": 32, "rescale_factor": 0.01},
}


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_clip_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = spread(transformers.CLIPModel(clip_config(transformers)))
    theirs.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(**settings).save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    tokenize = open_clip.SimpleTokenizer(context_length=20)
    ours = embedded(f"hf:{tmp_path}", GIVEN)
    with torch.no_grad():
        pixels = processor(pictures(), return_tensors="pt")["pixel_values"]
        both = theirs(input_ids=tokenize(list(CAPTIONS)), pixel_values=pixels.float())
    assert_same(ours["image"], both.image_embeds)
    assert_same(ours["text"], both.text_embeds)


def clip_config(transformers: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    text = {"max_position_embeddings": 20, "vocab_size": 49408, "eos_token_id": 49407}
    vision = {"image_size": 32, "patch_size": 8}
    return transformers.CLIPConfig(
        text_config=sizes | text, vision_config=sizes | vision, projection_dim=16
    )


@pytest.mark.parametrize("settings", [{}, {"resample": 2, "image_mean": [0.4] * 3}])
def test_siglip_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    text = {"max_position_embeddings": 16, "vocab_size": 40, "pad_token_id": 0}
    vision = {"image_size": 32, "patch_size": 8}
    config = transformers.SiglipConfig(text_config=sizes | text, vision_config=sizes | vision)
    theirs = spread(transformers.SiglipModel(config))
    theirs.save_pretrained(tmp_path)
    transformers.SiglipImageProcessor(size=CROP, **settings).save_pretrained(tmp_path)
    tokenizer_folder(tmp_path, "a dog two cats and small bird sitting waiting long text about")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    ours = embedded(f"hf:{tmp_path}", GIVEN)
    ids = transformers_tokens(tmp_path, 16)
    with torch.no_grad():
        pixels = processor(pictures(), return_tensors="pt")["pixel_values"]
        both = theirs(input_ids=ids, pixel_values=pixels)
    assert_same(ours["image"], both.image_embeds)
    assert_same(ours["text"], both.text_embeds)


SOUNDS = {"short": 0.13, "half": 0.5, "nearly": 0.98, "whole": 1.0}


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_clap_of_transformers(padding: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.adapters.test_huggingface import clap_folder

    theirs, extractor = clap_folder(tmp_path, fusion=False)
    spread(theirs).save_pretrained(tmp_path)
    extractor.padding = padding
    extractor.save_pretrained(tmp_path)
    tokenizer_folder(tmp_path, "a dog two cats and small bird sitting waiting")
    sounds = waves()
    given: dict[str, list[Any]] = {
        "audio": [wav(sound) for sound in sounds],
        "text": list(CAPTIONS),
    }
    ours = embedded(f"hf:{tmp_path}", given)
    heard = extractor([s / 32768 for s in sounds], sampling_rate=16000, return_tensors="pt")
    texts = transformers_tokens(tmp_path, 38)
    with torch.no_grad():
        sound = theirs.get_audio_features(**heard).pooler_output
        words = theirs.get_text_features(input_ids=texts, attention_mask=(texts != 1).long())
    assert_same(ours["audio"], sound)
    assert_same(ours["text"], words.pooler_output)


def waves() -> list[np.ndarray]:
    """Tones of several pitches and lengths, int16."""
    rng = np.random.default_rng(1)
    made = []
    for number, seconds in enumerate(SOUNDS.values()):
        time = np.arange(round(16000 * seconds)) / 16000
        tone = np.sin(2 * np.pi * 300 * (number + 1) ** 2 * time) * np.exp(-3 * time)
        made.append(np.rint(9000 * tone + rng.normal(0, 90, len(time))).astype(np.int16))
    return made


def wav(sound: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def transformers_tokens(folder: Path, length: int) -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenize: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokenize(
        list(CAPTIONS),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
    return cast("torch.Tensor", ids)
