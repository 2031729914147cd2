"""The loss over all pairs present, against plain CLIP and against itself on subsets."""

from __future__ import annotations

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn.functional import normalize

from multimem_ray.models.loss import contrastive_loss, pairs_of, symmetric_info_nce


def vectors(rows: int, seed: int, dim: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def test_two_modalities_are_open_clips_loss() -> None:
    a, b, scale = vectors(12, 0), vectors(12, 1), torch.tensor(17.0)
    all_rows = torch.arange(12)
    ours = contrastive_loss(
        {"image": a, "text": b}, {"image": all_rows, "text": all_rows}, {("image", "text"): scale}
    )
    torch.testing.assert_close(ours, ClipLoss()(a, b, scale), atol=1e-6, rtol=0)


def test_three_modalities_are_the_sum_over_pairs_each_with_its_scale() -> None:
    names = ("audio", "image", "text")
    found = {name: vectors(9, i) for i, name in enumerate(names)}
    rows = dict.fromkeys(names, torch.arange(9))
    scales = {pair: torch.tensor(3.0 + i) for i, pair in enumerate(pairs_of(names))}
    expected = sum(symmetric_info_nce(found[a], found[b], s) for (a, b), s in scales.items())
    torch.testing.assert_close(contrastive_loss(found, rows, scales), expected)


def test_a_pair_is_computed_on_the_samples_that_have_both() -> None:
    image, text = vectors(5, 0), vectors(4, 1)
    rows = {"image": torch.tensor([0, 1, 2, 4, 6]), "text": torch.tensor([1, 2, 3, 6])}
    scale = torch.tensor(5.0)
    loss = contrastive_loss({"image": image, "text": text}, rows, {("image", "text"): scale})
    expected = symmetric_info_nce(image[[1, 2, 4]], text[[0, 1, 3]], scale)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("text_rows", [[3], [0]])
def test_fewer_than_two_common_samples_cost_nothing(text_rows: list[int]) -> None:
    image, text = vectors(2, 0).requires_grad_(), vectors(1, 1)
    rows = {"image": torch.tensor([0, 1]), "text": torch.tensor(text_rows)}
    loss = contrastive_loss(
        {"image": image, "text": text}, rows, {("image", "text"): torch.ones(())}
    )
    assert loss.item() == 0.0
    loss.backward()
    assert image.grad is not None
    assert not image.grad.any()
