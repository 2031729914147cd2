"""Text: a caption, or several of one sample, as token ids.

Decoded text stays text; a view is a row of token ids. By default words are hashed into a fixed
vocabulary: no vocabulary file, every language, and the same ids on every machine. Models that were
trained with another tokenizer get theirs by the setting ``tokenizer``.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from itertools import islice
from typing import TypeVar

import numpy as np
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import Array, Modality, ModalitySettings, Spec, too_large
from multimem_ray.modalities.registry import register
from multimem_ray.modalities.tokenizers import tokenizer

# Scripts written without spaces: kana, Han, and Thai, Lao, Burmese and Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_PUNCTUATION = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f\uff00-\uff0f\uff1a-\uff20"
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f]")
_PADDING = 4  # times the characters of a sample that its captions may take in an array
_Word = TypeVar("_Word", int, str)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_PUNCTUATION}{_UNSPACED}]+")


class TextSettings(ModalitySettings):
    """Length, vocabulary and views of text."""

    tokenizer: str = Field(
        "words",
        description="words = hashed words; clip = CLIP's byte pairs; hf:FOLDER or hf:ORG/NAME = "
        "a tokenizer of transformers; open_clip:ARCH or open_clip:FOLDER = that of such a model",
    )
    length: int | None = Field(
        None,
        ge=2,
        le=4096,
        description="tokens of a view; longer text is cut; default 32 words, 77 for clip",
    )
    vocab: int = Field(4096, ge=2, le=2**24, description="words: token ids, 0 (padding) included")
    dropout: float = Field(0.05, ge=0, le=1, description="share of words left out; 0 = none")
    other_captions: bool = Field(
        True, description="a view shows any caption of the sample; false = always the first"
    )
    max_characters: int = Field(
        50_000, ge=1, le=10_000_000, description="most characters of all captions of a sample"
    )
    max_captions: int = Field(100, ge=1, le=10_000, description="most captions of a sample")


@register
class Text(Modality):
    """Captions; decoded (captions,) of str, views (length,) of int32."""

    name = "text"
    extensions = ("txt", "text", "caption")
    json_fields = ("caption", "captions", "text")
    Settings = TextSettings
    settings: TextSettings

    @property
    def spec(self) -> Spec:
        """Kind ``tokens``, int32 (length,), ids below ``vocab``."""
        settings = self.settings
        if settings.tokenizer == "words":
            return Spec("tokens", (self._length,), "int32", vocab=settings.vocab)
        return Spec("tokens", (self._length,), "int32", vocab=tokenizer(settings.tokenizer).vocab)

    @property
    def _length(self) -> int:
        settings = self.settings
        if settings.length is not None:
            return settings.length
        return 32 if settings.tokenizer == "words" else tokenizer(settings.tokenizer).length

    def decode(self, data: object) -> Array:
        """Captions without surrounding whitespace, array of str (captions,).

        Args:
            data: Bytes in UTF-8, UTF-16 or UTF-32 (a byte order mark is left out), a string, or a
                list of strings, of which empty ones and nulls are left out.

        Raises:
            DecodeError: Of another encoding, no text, only whitespace, or above a limit.
        """
        captions = [data] if isinstance(data, str) else self._captions(data)
        settings = self.settings
        if len(captions) > settings.max_captions:
            what = f"{len(captions)} captions"
            raise too_large(self.name, what, "max_captions", settings.max_captions)
        total = sum(map(len, captions))
        if total > settings.max_characters:
            what = f"{total} characters"
            raise too_large(self.name, what, "max_characters", settings.max_characters)
        kept = [text for text in map(_clean, captions) if text]
        if not kept:
            raise DecodeError("text: empty, or only whitespace", "empty")
        # NumPy gives each of them the room of the longest.
        if len(kept) > 1:
            padded, most = len(kept) * max(map(len, kept)), _PADDING * settings.max_characters
            if padded > most:
                what = f"{len(kept)} captions that take the room of {padded} characters"
                raise too_large(self.name, what, "max_characters", settings.max_characters)
        return np.array(kept)

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        """Any of the captions, without some of its words; clean: the first, complete."""
        settings = self.settings
        if settings.strength == 0:
            rng = None
        which = 0
        if rng is not None and settings.other_captions and len(decoded) > 1:
            which = int(rng.integers(len(decoded)))
        text = str(decoded[which])
        dropout = min(1.0, settings.dropout * settings.strength) if rng is not None else 0.0
        row = np.zeros(self._length, dtype=np.int32)
        if settings.tokenizer == "words":
            tokens = _some(self._tokens(text), dropout, rng)[: len(row)]
        else:
            # Some vocabularies know spaces and line ends: whole text keeps its own.
            words = _some(text.split(), dropout, rng) if dropout else text.split(" ")
            tokens = tokenizer(settings.tokenizer).encode(words, len(row))
        row[: len(tokens)] = tokens
        return row

    def _captions(self, data: object) -> list[str]:
        if isinstance(data, bytes | bytearray | memoryview):
            if len(data) > 4 * self.settings.max_characters + 3:
                what, limit = f"{len(data)} bytes", self.settings.max_characters
                raise too_large(self.name, what, "max_characters", limit)
            return [_decoded(bytes(data))]
        if isinstance(data, list):
            captions = [item for item in data if item is not None]
            other = next((item for item in captions if not isinstance(item, str)), None)
            if other is None:
                return captions
            holds = f"a list with a {type(other).__name__} in it"
        else:
            holds = f"a {type(data).__name__}"
        raise DecodeError(
            f"text: the JSON field holds {holds}, not a string or a list of strings; name another "
            "in data.fields.text"
        )

    def _tokens(self, text: str) -> list[int]:
        # Twice the length is enough even if half of the words are dropped.
        most, vocab = 2 * self._length, self.settings.vocab
        text = text.lower()
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        words = [found[0] for found in islice(_WORD.finditer(text), most)]
        return [token(word, vocab) for word in words or text.split()[:most]]


def _some(words: list[_Word], dropout: float, rng: np.random.Generator | None) -> list[_Word]:
    """What is left when each is dropped with this probability; never nothing."""
    if rng is None or not dropout or len(words) < 2:
        return words
    draws = rng.random(len(words)).tolist()
    # The word with the largest draw stays.
    limit = min(dropout, max(draws))
    return [word for word, draw in zip(words, draws, strict=True) if draw >= limit]


@functools.lru_cache(maxsize=2**16)
def token(word: str, vocab: int) -> int:
    """Token id of a word: 1 .. vocab - 1, by blake2b, the same on every machine."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (vocab - 1)


def _decoded(raw: bytes) -> str:
    """UTF-8, or UTF-16 and UTF-32 where a mark or their zeros tell them."""
    try:
        # Ten times as fast as the codec that leaves out the mark itself.
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _of_other_encoding(raw)
    return _of_other_encoding(raw) if "\0" in text else text.removeprefix("\ufeff")


def _of_other_encoding(raw: bytes) -> str:
    encoding = _encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        raise DecodeError(
            f"text: not {name} at byte {error.start}; convert the shard's text to UTF-8"
        ) from error


def _encoding(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        wide = raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff"))
        return "utf-32" if wide else "utf-16"
    if b"\0" not in raw:
        return "utf-8-sig"
    # Without a mark, zeros tell: UTF-8 text has none, in UTF-16 a space has one, in UTF-32 three.
    zeros = [raw[place::4].count(0) * 4 / len(raw) for place in range(4)]
    if len(raw) % 4 == 0 and min(zeros[2:]) > 0.9 and zeros[0] < 0.5:
        return "utf-32-le"
    if len(raw) % 4 == 0 and min(zeros[:2]) > 0.9 and zeros[3] < 0.5:
        return "utf-32-be"
    even, odd = (raw[place::2].count(0) * 2 / len(raw) for place in range(2))
    # Scripts beyond Latin have fewer zeros, and control characters in the places between.
    enough = 0.05 if _CONTROL.search(raw) else 0.4
    if len(raw) % 2 == 0 and max(even, odd) > enough and min(even, odd) * 10 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8-sig"


def _clean(text: str) -> str:
    # JSON can hold half a surrogate pair, and NumPy drops trailing NULs: neither is text.
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8").removeprefix("\ufeff")
    return text.replace("\x00", " ").strip()
