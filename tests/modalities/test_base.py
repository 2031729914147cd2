"""What every modality has: refusals on one line, views side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import Array, Modality, Spec, as_bytes, too_large, undecodable
from multimem_ray.modalities.batch import Stacked
from multimem_ray.modalities.draws import Draws


class Touch(Modality):
    name = "touch"
    extensions = ("tch",)

    @property
    def spec(self) -> Spec:
        return Spec("series", (2,), "int16")

    def decode(self, data: object) -> Array:
        return np.frombuffer(as_bytes(data, self.name), np.int16)

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        return decoded


def test_views_are_stacked_in_their_own_type() -> None:
    touch = Touch()
    decoded = Stacked.of([touch.decode(bytes([n, 0, 0, 0])) for n in (1, 2)])
    expected = torch.tensor([[[1, 0]], [[2, 0]]], dtype=torch.int16)
    assert torch.equal(touch.views(decoded, None), expected)
    draws = Draws(torch.arange(2), range(3))
    assert torch.equal(touch.views(decoded, draws), expected.expand(-1, 3, -1))
    assert not touch.makes_views_at_once()
    assert touch.settings.strength == 1.0
    assert not touch.carried(b"mp4")
    assert Touch.settled({"strength": 0.5}) == {"strength": 0.5}


def test_members_are_bytes() -> None:
    assert as_bytes(memoryview(b"x"), "touch") == b"x"
    with pytest.raises(DecodeError, match="0 bytes") as empty:
        as_bytes(b"", "touch")
    assert empty.value.kind == "empty"
    with pytest.raises(DecodeError, match=r"got a JSON dict; name .* data\.fields\.touch"):
        as_bytes({}, "touch")


def test_refusals_stand_on_one_line_and_name_the_limit() -> None:
    said = undecodable("touch", "a\n  b" + "c" * 900).reason
    assert said.startswith("touch: cannot be decoded: a bc")
    assert len(said) < 240
    assert undecodable("touch", EOFError()).reason.endswith("EOFError")
    large = too_large("touch", "9 values", "max_values", 3)
    assert large.kind == "too_large"
    assert large.reason == "touch: 9 values, above the limit modalities.touch.max_values = 3"
