"""Captions as they come, and the tokens they turn into."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.text import Text, TextSettings, token


def text(**settings: object) -> Text:
    return Text(TextSettings.model_validate(settings))


def ids(*words: str, vocab: int = 4096) -> list[int]:
    return [token(word, vocab) for word in words]


def clean(content: object, **settings: object) -> list[int]:
    modality = text(**settings)
    row = modality.view(modality.decode(content), None)
    assert row.shape == modality.spec.shape
    assert row.dtype == np.int32
    return row[row > 0].tolist()


def test_bytes_a_string_and_a_list_give_captions() -> None:
    assert text().captions(b"a dog\n") == ["a dog"]
    assert text().captions(" a dog ") == ["a dog"]
    assert text().captions(["a dog", "  ", "two dogs"]) == ["a dog", "two dogs"]


def test_a_byte_order_mark_is_left_out() -> None:
    assert text().captions(b"\xef\xbb\xbfa dog") == ["a dog"]
    assert text().captions("\ufeffa dog") == ["a dog"]


@pytest.mark.parametrize("data", ["ein Hündchen".encode("latin-1"), b"dog\xff", b"\xff"])
def test_what_is_not_utf_8_says_where(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not UTF-8 at byte \d+") as raised:
        text().decode(data)
    assert raised.value.kind == "undecodable"


@pytest.mark.parametrize(
    "data", [b"", b"  \n\t ", "", "\u3000\u2003", [], ["", " "], b"\xef\xbb\xbf", b"\x00\x00"]
)
def test_no_text(data: object) -> None:
    with pytest.raises(DecodeError) as raised:
        text().decode(data)
    assert raised.value.kind == "empty"


@pytest.mark.parametrize("data", [7, 1.5, True, {"en": "a dog"}, ["a dog", 7], [["a dog"]]])
def test_json_that_is_no_text(data: object) -> None:
    with pytest.raises(DecodeError, match=r"data\.fields\.text") as raised:
        text().decode(data)
    assert raised.value.kind == "undecodable"


@pytest.mark.parametrize("data", [b"word " * 200_000, "word " * 200_000, ["word " * 9_000] * 9])
def test_too_many_characters_name_the_setting(data: object) -> None:
    with pytest.raises(DecodeError, match=r"modalities\.text\.max_characters") as raised:
        text().decode(data)
    assert raised.value.kind == "too_large"


def test_too_many_captions_name_the_setting() -> None:
    with pytest.raises(DecodeError, match=r"modalities\.text\.max_captions") as raised:
        text(max_captions=3).decode(["a", "b", "c", "d"])
    assert raised.value.kind == "too_large"


def test_one_long_caption_among_many_short_ones_takes_the_room_of_what_is_shown() -> None:
    many = ["x " * 20_000] + ["short"] * 90
    assert text().decode(many).shape == (91, 2, 64)


def test_a_megabyte_is_read_where_it_is_allowed() -> None:
    assert len(clean(b"word " * 200_000, max_characters=2_000_000)) == 32


@pytest.mark.parametrize("caption", ["a dog runs", "собака бежит по траве", "犬 runs"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_encodings_are_told_with_a_mark_or_without(caption: str, encoding: str) -> None:
    assert text().captions(caption.encode(encoding)) == [caption]


@pytest.mark.parametrize("data", [b"ab\0dog", b"two words\0\0\0", b"a\0b c d e"])
def test_a_few_zeros_are_no_other_encoding(data: bytes) -> None:
    assert text().captions(data) == [data.decode().replace("\0", " ").strip()]


def test_nulls_in_a_list_are_left_out_and_others_are_named() -> None:
    assert text().captions(["a dog", None, "a cat"]) == ["a dog", "a cat"]
    with pytest.raises(DecodeError, match="a list with a int in it, not a string"):
        text().decode(["a dog", 3])
    with pytest.raises(DecodeError, match="empty"):
        text().decode([None])


def test_half_a_surrogate_pair_is_replaced() -> None:
    (caption,) = text().captions("a \ud83d dog")
    assert caption == "a ? dog"
    caption.encode("utf-8")


def test_words_without_case_and_punctuation() -> None:
    assert clean("A dog, running!") == ids("a", "dog", "running")
    assert clean("«A» dog… “running”") == ids("a", "dog", "running")


def test_scripts_with_marks_stay_in_one_word() -> None:
    assert len(clean("हिन्दी में लिखा")) == 3
    assert len(clean("한국어 문장")) == 2


@pytest.mark.parametrize(("content", "count"), [("黒い犬が走る", 6), ("สุนัข", 5), ("𠮷野家", 3)])
def test_scripts_without_spaces_are_split_by_character(content: str, count: int) -> None:
    assert len(clean(content)) == count


def test_mixed_scripts() -> None:
    assert clean("PC黒い") == ids("pc", "黒", "い")


def test_wide_letters_are_the_same_letters() -> None:
    assert clean("Ｄｏｇ") == clean("dog")


@pytest.mark.parametrize("content", ["!!!", "?", "🐶", "-"])
def test_signs_alone_are_a_caption_too(content: str) -> None:
    assert len(clean(content)) == 1


def test_long_text_is_cut_and_short_text_padded() -> None:
    words = [f"w{i}" for i in range(50)]
    assert clean(" ".join(words), length=8) == ids(*words[:8])
    modality = text(length=8)
    row = modality.view(modality.decode("one two"), None)
    assert row.tolist() == [*ids("one", "two"), 0, 0, 0, 0, 0, 0]


def test_ids_lie_in_the_vocabulary_and_never_change() -> None:
    assert {token(f"word{i}", 10) for i in range(500)} == set(range(1, 10))
    # Stored models depend on these numbers.
    assert ids("dog", "犬") == [2311, 2441]
    assert token("dog", 50_000) == 39_892


def test_the_smallest_vocabulary() -> None:
    assert clean("one two", vocab=2) == [1, 1]


def test_views_show_all_captions() -> None:
    modality = text(dropout=0)
    decoded = modality.decode(["one", "two", "three"])
    seen = {int(modality.view(decoded, np.random.default_rng(i))[0]) for i in range(50)}
    assert seen == set(ids("one", "two", "three"))
    first = text(dropout=0, other_captions=False)
    seen = {int(first.view(decoded, np.random.default_rng(i))[0]) for i in range(50)}
    assert seen == set(ids("one"))


def test_word_dropout_leaves_out_its_share() -> None:
    modality = text(dropout=0.2, length=20)
    decoded = modality.decode(" ".join(f"w{i}" for i in range(20)))
    kept = [np.count_nonzero(modality.view(decoded, np.random.default_rng(i))) for i in range(300)]
    assert np.mean(kept) == pytest.approx(16, abs=0.4)


def test_word_dropout_keeps_the_order_and_never_everything() -> None:
    modality = text(dropout=1, strength=10)
    decoded = modality.decode("one two three")
    for seed in range(20):
        row = modality.view(decoded, np.random.default_rng(seed))
        assert np.count_nonzero(row) == 1


def test_strength_zero_is_the_clean_view() -> None:
    modality = text(strength=0, dropout=0.9)
    decoded = modality.decode(["one two three", "four"])
    for seed in range(5):
        row = modality.view(decoded, np.random.default_rng(seed))
        assert np.array_equal(row, modality.view(decoded, None))


def test_views_depend_on_the_seed_alone() -> None:
    modality = text(dropout=0.5)
    decoded = modality.decode(["one two three four five six", "seven eight nine"])
    rows = [modality.view(decoded, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
