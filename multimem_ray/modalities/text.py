"""Text: a caption, or several of one sample, as token ids.

Captions are tokenized once; a view leaves out words of one of them. By default words are hashed
into a fixed vocabulary: no vocabulary file, every language, and the same ids on every machine.
Models that were trained with another tokenizer get theirs by the setting ``tokenizer``.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import Array, Modality, ModalitySettings, Spec, too_large
from multimem_ray.modalities.registry import register
from multimem_ray.modalities.tokenizers import SPECIAL, Tokens, tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from multimem_ray.modalities.batch import Stacked
    from multimem_ray.modalities.draws import Draws

# Scripts written without spaces: kana, Han, and Thai, Lao, Burmese and Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_PUNCTUATION = r"!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f\uff00-\uff0f\uff1a-\uff20"
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f]")
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
    """Captions; decoded (captions, 2, tokens) of int32: ids, and the word of each; views (length,).

    Words count from 1; 0 stands where there is no token, -1 for one that every view has.
    """

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
        """Tokens of the captions, int32 (captions, 2, tokens): ids and words.

        Twice as many as a view has are kept, which is enough even if half of the words are dropped.

        Args:
            data: See :meth:`captions`.

        Raises:
            DecodeError: Of another encoding, no text, only whitespace, or above a limit.
        """
        tokens = [self._tokens(text) for text in self.captions(data)]
        array = np.zeros((len(tokens), 2, max(len(ids) for ids, _ in tokens)), dtype=np.int32)
        for caption, (ids, words) in zip(array, tokens, strict=True):
            caption[:, : len(ids)] = ids, words
        return array

    def captions(self, data: object) -> list[str]:
        """Captions without surrounding whitespace, at least one.

        Args:
            data: Bytes in UTF-8, UTF-16 or UTF-32 (a byte order mark is left out), a string, or a
                list of strings, of which empty ones and nulls are left out.

        Raises:
            DecodeError: Of another encoding, no text, only whitespace, or above a limit.
        """
        captions = [data] if isinstance(data, str) else self._strings(data)
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
        return kept

    def views(self, decoded: Stacked, draws: Draws | None) -> Tensor:
        """Any of the captions, without some of its words; clean: the first, complete."""
        import torch

        settings, values = self.settings, decoded.values
        if draws is None or settings.strength == 0:
            tokens = values[:, :1]
            count = 1 if draws is None else len(draws.views)
            ids, words = tokens.unbind(2)
            rows = self._rows(ids, words, words != 0)
            return rows.expand(-1, count, -1)
        drawn = draws.uniform(1 + values.shape[-1]).to(values.device)
        captions = decoded.shapes[:, :1].to(values.device)
        which = (drawn[..., 0] * captions * settings.other_captions).long()
        tokens = values[torch.arange(len(values), device=values.device)[:, None], which]
        ids, words = tokens.unbind(2)
        # A word is kept by its own number, however many tokens it has; specials never get one.
        draw = drawn[..., 1:].gather(2, words.clamp(min=1).long() - 1)
        draw = draw.masked_fill(words == 0, 0).masked_fill(words == SPECIAL, 0)
        # The word with the largest draw stays.
        limit = draw.amax(2, keepdim=True).clamp(max=min(1.0, settings.dropout * settings.strength))
        return self._rows(ids, words, (words == SPECIAL) | ((words > 0) & (draw >= limit)))

    def _rows(self, ids: Tensor, words: Tensor, kept: Tensor) -> Tensor:
        """Tokens that are kept, (N, V, tokens), as rows of ``length``; specials are never cut."""
        length, special = self._length, words == SPECIAL
        ordinary = kept & ~special
        room = length - special.sum(2, keepdim=True)
        kept = special | (ordinary & (ordinary.cumsum(2) <= room))
        place = kept.cumsum(2) - 1
        if self._pads_before:
            place += length - kept.sum(2, keepdim=True)
        # What is not kept goes to a column behind the last one, which is then left out.
        place = place.masked_fill(~kept, length)
        rows = ids.new_full((*ids.shape[:2], length + 1), self._padding)
        return rows.scatter(2, place, ids)[..., :length]

    def _strings(self, data: object) -> list[str]:
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

    def _tokens(self, text: str) -> Tokens:
        most, vocab = 2 * self._length, self.settings.vocab
        if self.settings.tokenizer != "words":
            return tokenizer(self.settings.tokenizer).encode(text, most)
        text = text.lower()
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        words = [found[0] for found in islice(_WORD.finditer(text), most)]
        ids = [token(word, vocab) for word in words or text.split()[:most]]
        return Tokens(ids, list(range(1, len(ids) + 1)))

    @property
    def _padding(self) -> int:
        name = self.settings.tokenizer
        return 0 if name == "words" else tokenizer(name).padding

    @property
    def _pads_before(self) -> bool:
        name = self.settings.tokenizer
        return name != "words" and tokenizer(name).pads_before


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
