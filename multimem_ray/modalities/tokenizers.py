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
from typing import Any, NamedTuple, Protocol

from multimem_ray.errors import ConfigError

# A word is bounded because byte pairs take the square of its length; a caption because no more
# of it can be shown. No token of these vocabularies stands for as many characters.
_WORD_CHARACTERS = 256
_TOKEN_CHARACTERS = 32
_CACHED_WORDS = 200_000
_KNOWN_WORDS = 65_536
_OPEN_CLIP_OPTIONS = ("clean", "strip_sep_token")


class Tokenizer(Protocol):
    """Text to ids, from any thread.

    Attributes:
        length: Tokens that its model takes.
        vocab: Number of ids.
        padding: Id behind the end, or before the beginning where ``pads_before``.
    """

    length: int
    vocab: int
    padding: int
    pads_before: bool

    def encode(self, text: str, length: int) -> Tokens:
        """A caption with its special tokens, cut after ``length`` of them."""


class Tokens(NamedTuple):
    """A caption as tokens.

    Attributes:
        ids: Their ids.
        words: The word that each belongs to, counted from 1; ``SPECIAL`` for what belongs to none.
    """

    ids: list[int]
    words: list[int]


SPECIAL = -1
"""Of tokens that every view has, such as those of beginning and end."""


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
    padding = 0
    pads_before = False

    def __init__(self) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._made = SimpleTokenizer()
        self._special = len(self._made.cache)
        self._lock = threading.Lock()
        # Words come again and again, and cleaning one takes longer than all else.
        self._of_word = functools.lru_cache(_KNOWN_WORDS)(self._made.encode)

    def encode(self, text: str, length: int) -> Tokens:
        """See :class:`Tokenizer`; equal to open_clip's wherever no word has over 256 characters."""
        made, words = self._made, bounded(text.split(), length)
        whole = " ".join(words)
        # Only what is no plain text, or has HTML entities, is repaired at all.
        plain = whole.isascii() and whole.isprintable() and "&" not in whole
        with self._lock:
            if len(made.cache) > _CACHED_WORDS:
                made.cache = {text: text for text in list(made.cache)[: self._special]}
            of_words = [self._of_word(word) for word in words]
            joined = [one for own in of_words for one in own]
            ids = joined if plain else made.encode(whole)
        numbers = [number for number, own in enumerate(of_words) for _ in own]
        if joined != ids:
            # What is repaired across words (HTML entities, mojibake) is no longer told apart.
            numbers = list(range(len(ids)))
        numbers, most = _numbered(numbers), length - 2
        return Tokens(
            [made.sot_token_id, *ids[:most], made.eot_token_id],
            [SPECIAL, *numbers[:most], SPECIAL],
        )


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
        self.pads_before = self._made.padding_side == "left"
        self._lock = threading.Lock()

    def encode(self, text: str, length: int) -> Tokens:
        """See :class:`Tokenizer`; a slow tokenizer's tokens are words of their own."""
        with self._lock:
            return _encoded(self._made, _bounded_text(text, length), length)


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
        made = self._made.tokenizer
        self.length = int(text.get("context_length", 77))
        self.vocab = len(made)
        self.padding = int(made.pad_token_id or 0)
        self.pads_before = made.padding_side == "left"
        self._lock = threading.Lock()

    def encode(self, text: str, length: int) -> Tokens:
        """See :class:`Tokenizer`; cleaned, and its end left out, as open_clip does it."""
        made = self._made
        with self._lock:
            text = made.clean_fn(_bounded_text(text, length))
            tokens = _encoded(made.tokenizer, text, length)
        if made.strip_sep_token:
            separator = made.tokenizer.sep_token_id
            ids = [0 if one == separator else one for one in tokens.ids]
            tokens = Tokens(ids, tokens.words)
        return tokens


def _encoded(made: Any, text: str, length: int) -> Tokens:
    """What a tokenizer of transformers makes of a text."""
    encoded = made(text, max_length=length, truncation=True, return_special_tokens_mask=True)
    special = encoded["special_tokens_mask"]
    of_words = encoded.word_ids() if made.is_fast else range(len(special))
    words = [
        SPECIAL if is_special or word is None else word
        for is_special, word in zip(special, of_words, strict=True)
    ]
    return Tokens(encoded["input_ids"], _numbered(words))


def _numbered(words: Sequence[int]) -> list[int]:
    """Numbers of words, those that have tokens counted from 1; specials as they are."""
    numbers: dict[int, int] = {}
    return [
        SPECIAL if word == SPECIAL else numbers.setdefault(word, len(numbers) + 1) for word in words
    ]


def bounded(words: Sequence[str], length: int) -> list[str]:
    """Words, no longer than could be shown in ``length`` tokens."""
    most = length * _TOKEN_CHARACTERS
    kept: list[str] = []
    for word in words:
        kept.append(word[:_WORD_CHARACTERS])
        most -= len(kept[-1]) + 1
        if most < 0:
            break
    return kept


def _bounded_text(text: str, length: int) -> str:
    # Some vocabularies know spaces and line ends: text keeps its own.
    return " ".join(bounded(text.split(" "), length))
