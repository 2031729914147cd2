"""Tokenizers of published models, bounded for captions that anybody may have written.

clip            CLIP's byte pairs, from the vocabulary that open_clip ships; 77 tokens
hf:FOLDER       a tokenizer of transformers in a local folder; nothing is downloaded
hf:ORG/NAME     the same from the Hugging Face hub or its local cache
open_clip:ARCH, open_clip:FOLDER
                what open_clip itself takes for a model: its cleaning of text, its padding
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from multimem_ray.errors import ConfigError

# A word is bounded because byte pairs take the square of its length; a caption because no more
# of it can be shown. No token of these vocabularies stands for as many characters.
_WORD_CHARACTERS = 256
_TOKEN_CHARACTERS = 32
_CACHED_WORDS = 200_000
_OPEN_CLIP_OPTIONS = ("clean", "strip_sep_token")


class Tokenizer(Protocol):
    """Text to ids, from any thread.

    Attributes:
        length: Tokens that its model takes.
        vocab: Number of ids.
    """

    length: int
    vocab: int

    def encode(self, words: Sequence[str], length: int) -> list[int]:
        """Ids of a caption with its special tokens, at most ``length``; what lacks is 0."""


@functools.lru_cache(maxsize=16)
def tokenizer(name: str) -> Tokenizer:
    """The tokenizer that ``modalities.text.tokenizer`` names; made once for a process.

    Raises:
        ConfigError: There is none of that name, or it cannot be loaded.
    """
    if name == "clip":
        return ClipTokenizer()
    scheme, _, place = name.partition(":")
    if scheme == "hf" and place:
        return HfTokenizer(place)
    if scheme == "open_clip" and place:
        return OpenClipTokenizer(place)
    raise ConfigError(
        f"modalities.text.tokenizer: '{name}' is none of words, clip, hf:FOLDER, open_clip:ARCH"
    )


class ClipTokenizer:
    """CLIP's tokenizer (Radford et al. 2021): start, byte pairs of lower-cased text, end, zeros."""

    length = 77
    vocab = 49408

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._made = SimpleTokenizer()
        self._special = len(self._made.cache)
        self._lock = threading.Lock()

    def encode(self, words: Sequence[str], length: int) -> list[int]:
        """See :class:`Tokenizer`; equal to open_clip's wherever no word has over 256 characters."""
        made = self._made
        with self._lock:
            if len(made.cache) > _CACHED_WORDS:
                made.cache = {text: text for text in list(made.cache)[: self._special]}
            ids = made.encode(bounded(words, length))[: length - 2]
        return [made.sot_token_id, *ids, made.eot_token_id]


class HfTokenizer:
    """A tokenizer of transformers; padding is its own, so that models can mask it."""

    def __init__(self, place: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ConfigError(
                f"modalities.text.tokenizer: hf:{place} needs transformers: "
                "pip install 'multimem-ray[hf]'"
            ) from error
        try:
            self._made: Any = AutoTokenizer.from_pretrained(
                place,
                trust_remote_code=False,
                # A folder's files could send transformers to the hub.
                local_files_only=Path(place).expanduser().is_dir(),
            )
        except (OSError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"modalities.text.tokenizer: hf:{place} cannot be loaded: {said}"
            ) from error
        self.vocab = len(self._made)
        self.length = min(int(self._made.model_max_length), 512)
        self.padding = int(self._made.pad_token_id or 0)
        self._lock = threading.Lock()

    def encode(self, words: Sequence[str], length: int) -> list[int]:
        """See :class:`Tokenizer`; filled up to ``length`` with its own padding."""
        text = bounded(words, length)
        with self._lock:
            ids: list[int] = self._made(
                text, max_length=length, truncation=True, padding="max_length"
            )["input_ids"]
        return ids


class OpenClipTokenizer:
    """The tokenizer of transformers that an open_clip architecture or folder names.

    It cleans text before, and pads it, as open_clip does.
    """

    def __init__(self, place: str) -> None:
        import open_clip

        local = Path(place).expanduser().is_dir()
        name = f"local-dir:{Path(place).expanduser()}" if local else place
        where = f"modalities.text.tokenizer: open_clip:{place}"
        try:
            text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
            unknown = sorted(set(text.get("tokenizer_kwargs", {})).difference(_OPEN_CLIP_OPTIONS))
            if unknown or not text.get("hf_tokenizer_name"):
                what = f"the options {', '.join(unknown)}" if unknown else "CLIP's own, 'clip'"
                known = " and ".join(_OPEN_CLIP_OPTIONS)
                raise ConfigError(f"{where} takes {what}; one of transformers with {known} is read")
            # A folder's files could send transformers to the hub, or name code.
            self._made: Any = open_clip.get_tokenizer(
                name, local_files_only=local, trust_remote_code=False
            )
        except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where} cannot be loaded: {said}") from error
        self.length = int(text.get("context_length", 77))
        self.vocab = len(self._made.tokenizer)
        self._lock = threading.Lock()

    def encode(self, words: Sequence[str], length: int) -> list[int]:
        """See :class:`Tokenizer`; filled up to ``length`` as open_clip does it."""
        text = bounded(words, length)
        with self._lock:
            ids: list[int] = self._made(text, length)[0].tolist()
        return ids


def bounded(words: Sequence[str], length: int) -> str:
    """The words as one text, no longer than could be shown in ``length`` tokens."""
    most = length * _TOKEN_CHARACTERS
    text: list[str] = []
    for word in words:
        text.append(word[:_WORD_CHARACTERS])
        most -= len(text[-1]) + 1
        if most < 0:
            break
    return " ".join(text)
