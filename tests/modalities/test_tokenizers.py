"""Tokenizers of published models: their own ids, within bounds."""

from __future__ import annotations

import time

import numpy as np
import open_clip
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.text import Text, TextSettings
from multimem_ray.modalities.tokenizers import bounded, tokenizer

WHOLE = SimpleTokenizer()

CAPTIONS = [
    "A big burly grizzly bear is show with grass in the background.",
    "the café's naïve  Größe &amp; 東京 🐻!!",
    "word " * 200,
    "x",
]


def clip(**settings: object) -> Text:
    return Text(TextSettings.model_validate({"tokenizer": "clip", **settings}))


@pytest.mark.parametrize("caption", CAPTIONS)
def test_clips_ids_are_open_clips(caption: str) -> None:
    modality = clip()
    view = modality.view(modality.decode(caption), None)
    assert view.shape == modality.spec.shape == (77,)
    assert modality.spec.vocab == 49408
    expected = open_clip.get_tokenizer("ViT-B-32")(caption)[0].numpy()
    np.testing.assert_array_equal(view, expected)


def test_a_hostile_word_takes_no_time() -> None:
    modality = clip(max_characters=10_000_000)
    decoded = modality.decode("ab" * 500_000)
    started = time.process_time()
    view = modality.view(decoded, None)
    assert time.process_time() - started < 5
    assert (view == 49407).sum() == 1


def test_dropped_words_are_dropped_before_they_are_cut_into_pieces() -> None:
    modality = clip(dropout=0.5)
    decoded = modality.decode("grizzly bear standing on burly meadows")
    alone = {
        tuple(clip().view(clip().decode(word), None)[1:])
        for word in ("grizzly", "bear", "standing", "on", "burly", "meadows")
    }
    pieces = {piece for ids in alone for piece in ids if 0 < piece < 49406}
    lengths = set()
    for seed in range(40):
        view = modality.view(decoded, np.random.default_rng(seed))
        found = [i for i in view.tolist() if 0 < i < 49406]
        assert set(found) <= pieces
        lengths.add(len(found))
    assert len(lengths) > 2
    assert min(lengths) >= 1


def test_strength_zero_is_the_clean_view() -> None:
    modality = clip(strength=0, dropout=0.9)
    decoded = modality.decode(["one two three", "four five"])
    clean = modality.view(decoded, None)
    for seed in range(5):
        assert np.array_equal(modality.view(decoded, np.random.default_rng(seed)), clean)


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="'clipp' is none of words, clip"):
        _ = clip(tokenizer="clipp").spec


def test_text_is_bounded_by_what_can_be_shown() -> None:
    assert bounded(["a" * 1000, "b"], 77) == ["a" * 256, "b"]
    assert len(" ".join(bounded(["word"] * 100_000, 16))) < 16 * 32 + 10


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@example("don't they'll &amp; a&b <|endoftext|> it's\t")
def test_plain_text_is_encoded_word_by_word_as_a_whole_is(text: str) -> None:
    ids = tokenizer("clip").encode(text, 10_000).ids
    assert ids[1:-1] == WHOLE.encode(text)
