"""Errors of ours travel between processes as what they are."""

from __future__ import annotations

import pickle

import pytest

from multimem_ray import errors
from multimem_ray.errors import AbsentError, DecodeError, MultiMemError, SampleError, ShardError


@pytest.mark.parametrize(
    "error",
    [
        ShardError("no end", "a.tar"),
        SampleError("too dark", "undecodable", "decode"),
        DecodeError("too large", "too_large"),
        AbsentError("no sound"),
    ],
)
def test_they_survive_pickling(error: MultiMemError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_shard_is_named_once() -> None:
    assert str(ShardError("no end", "a.tar")) == "a.tar: no end"
    assert str(ShardError("no end")) == "no end"


def test_all_of_them_are_of_one_family() -> None:
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert all(issubclass(kind, MultiMemError | UserWarning) for kind in kinds)
    assert errors.__doc__ is not None
    assert all(
        kind.__name__ in errors.__doc__
        for kind in kinds
        if kind.__module__ == errors.__name__ and not issubclass(kind, UserWarning)
    )
