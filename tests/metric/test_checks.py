"""Shapes are refused by name, and NaN stays behind its mask."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.metric._checks import check_embeddings, check_mask, exact, masked


def test_sums_are_taken_in_float64() -> None:
    assert exact(torch.ones(2, dtype=torch.float16)).dtype == torch.float64


def test_nan_behind_a_mask_does_not_get_through() -> None:
    values = torch.tensor([1.0, torch.nan])
    assert masked(values, torch.tensor([True, False])).tolist() == [1.0, 0.0]
    assert masked(values, torch.tensor([False, False]), fill=2.0).tolist() == [2.0, 2.0]


def test_shapes_that_do_not_fit_are_named() -> None:
    present = torch.ones(3, 2, dtype=torch.bool)
    check_embeddings(torch.ones(1, 3, 2, 4), present)
    for shape in ((3, 2, 4), (0, 3, 2, 4)):
        with pytest.raises(ValueError, match="views, samples, modalities"):
            check_embeddings(torch.ones(shape), present)
    with pytest.raises(
        ValueError, match=r"present is torch\.bool of shape \(3, 2\); give .*\(5, 2\)"
    ):
        check_embeddings(torch.ones(1, 5, 2, 4), present)
    with pytest.raises(ValueError, match=r"f is torch\.int64"):
        check_mask("f", torch.ones(3, dtype=torch.int64), (3,))
