"""What files of embeddings say of themselves."""

from __future__ import annotations

import pyarrow as pa

from multimem_ray.embeddings.layout import About, key_digest


def keys(*names: str) -> pa.Array:
    return pa.array(names, pa.large_string())


def test_what_a_file_says_comes_back() -> None:
    about = About("000", 2, 16, ["image", "text"], "a.tar", "abc", "f" * 16)
    schema = pa.schema([("key", pa.string())], about.metadata())
    assert About.of(schema) == about
    assert About.of(schema.remove_metadata()) is None


def test_the_digest_of_keys_does_not_depend_on_their_batches() -> None:
    whole = key_digest([keys("a", "bc", "d")])
    assert key_digest([keys("a"), keys("bc", "d")]) == whole
    assert key_digest([keys("x", "a", "bc", "d").slice(1)]) == whole
    assert key_digest([keys("ab", "c", "d")]) != whole
    assert key_digest([keys("bc", "a", "d")]) != whole
