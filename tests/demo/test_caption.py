"""Captions tell every attribute of a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from multimem_ray.demo.caption import describe
from multimem_ray.demo.scene import CHOICES, Scene

SCENE = Scene("night", "star", "green", "dotted", "left", 2, "large")


@pytest.mark.parametrize("attribute", CHOICES)
def test_every_value_of_an_attribute_is_worded_differently(attribute: str) -> None:
    captions = {
        describe(replace(SCENE, **{attribute: value}), 7, np.random.default_rng(0))
        for value in CHOICES[attribute]
    }
    assert len(captions) == len(CHOICES[attribute])
