"""Small random models of others, saved as they save them, and pictures of every shape."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.build import build_model
from multimem_ray.setup import resolve

CAPTIONS = (
    "a dog",
    "Two  cats, and_a small bird;\nsitting & waiting",
    "a long text about nothing at all " * 12,
)
SIDES = ((97, 64), (64, 101), (50, 31), (40, 203), (480, 353), (32, 32), (33, 48))
# Of a random model: its embeddings are spread by it, as training would spread them.
_SPREAD = 0.05


def pictures() -> list[Image.Image]:
    """Coloured waves with noise, whose fine detail tells one resampling from another."""
    rng = np.random.default_rng(4)
    made = []
    for number, (width, height) in enumerate(SIDES):
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / a + y / b) for a, b in ((2.1, 9), (7, 1.7), (31, 13))]
        base = (255 * number // 6, 127, 255 - 255 * number // 6)
        values = base + 90 * np.stack(waves, 2) + rng.normal(0, 30, (height, width, 3))
        made.append(Image.fromarray(values.clip(0, 255).astype(np.uint8)))
    return made


def spread(model: nn.Module) -> Any:
    """The model with weights that tell its inputs apart."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(_SPREAD * torch.randn_like(parameter))
    return model.eval()


def embedded(name: str, given: Mapping[str, Sequence[Any]], **more: Any) -> dict[str, Tensor]:
    """Our embeddings of members, modality → bytes or strings, by clean views of strength 0."""
    config = resolve({"output": "o", "data": {"shards": "s"}, "model": name, **more})
    settings = {m: {**s, "strength": 0} for m, s in config.modalities.items()}
    decoder = Decoder(dict.fromkeys(given, "x"), settings)
    model = build_model(config.model, decoder.modalities, 3).eval()
    out: dict[str, Tensor] = {}
    for modality in decoder.modalities:
        rng = np.random.default_rng(0)
        views = [modality.view(modality.decode(data), rng) for data in given[modality.name]]
        raw = {modality.name: torch.from_numpy(np.stack(views))}
        with torch.no_grad():
            out |= model.embed(model.prepare(raw))
    return out


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


GIVEN: dict[str, list[Any]] = {"image": [png(p) for p in pictures()], "text": list(CAPTIONS)}


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """A cosine of .9999 at least, and theirs are no single spot."""
    cosines = cosine_similarity(ours, theirs)
    assert cosines.min() >= 0.9999, cosines
    apart = cosine_similarity(theirs[:1], theirs).min()
    assert apart < 0.999, "the test must tell inputs apart"


def open_clip_folder(
    folder: Path, preprocess: dict[str, Any] | None = None, **config: Any
) -> dict[str, Any]:
    """A folder as open_clip's hub holds them; its architecture comes back."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    content: dict[str, Any] = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    for key, value in config.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    folder.mkdir(exist_ok=True)
    model = spread(open_clip.CustomTextCLIP(**content))
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    described = {"model_cfg": {**content, "custom_text": True}, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return content


def tokenizer_folder(folder: Path, words: str, **special: str) -> None:
    """A tokenizer of whole words, as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "</s>", "<unk>", *sorted(set(words.split()))]
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    kind: Any = PreTrainedTokenizerFast
    made = kind(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **special
    )
    made.save_pretrained(folder)
