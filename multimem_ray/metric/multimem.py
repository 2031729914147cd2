"""From the consistency of a sample under M models to its memorization score.

    MultiMem(i) = mean over models f of CMC_f(i, H) - mean over models g of CMC_g(i, H)

f: models that trained on sample i, g: models that did not. With one of each this is the definition
of arXiv 2606.22220; with many it is the estimator of Feldman & Zhang 2020 (arXiv 2008.03703),
whose standard error follows from the spread within either side,

    SE² = s_f² / K_f + s_g² / K_g.

Where models come in pairs of which one saw the sample, or in blocks of which all but one did, each
has a difference d_p of its own, and the spread of these is the error of their mean:

    SE² = var_p(d_p) / P.

The two models of a complementary pair are not independent (what one saw, the other did not), and
this holds what that does to their difference; the two sides taken for independent would not.

Any quantity that has a value per model is contrasted in the same way: a pair's CMC, CLIPMem's
alignment, an attribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimem_ray.metric._checks import check_mask, exact, masked


@dataclass(frozen=True, slots=True)
class Contrast:
    """Models that saw a sample against models that did not; ``...`` as in the values contrasted.

    Attributes:
        score: (B, ...), mean over f minus mean over g; NaN where a side has no model.
        se: (B, ...), its standard error; NaN where a side has fewer than two models.
        mean_f: (B, ...), mean over f; NaN where there is none.
        mean_g: (B, ...), mean over g; NaN where there is none.
        n_f: (B,) int64, number of models in f.
        n_g: (B,) int64, number of models in g.
    """

    score: Tensor
    se: Tensor
    mean_f: Tensor
    mean_g: Tensor
    n_f: Tensor
    n_g: Tensor


def contrast(values: Tensor, f: Tensor, g: Tensor) -> Contrast:
    """Mean over the models f minus mean over the models g, with its standard error.

    Args:
        values: (M, B, ...), one value per model and sample. A NaN counts only on the side its
            model stands on, and makes the result NaN.
        f: (B, M) bool, the models that saw each sample.
        g: (B, M) bool, those that did not. A model may stand on neither side.

    Raises:
        ValueError: A shape or dtype does not fit, or a model stands on both sides of a sample.
    """
    if values.ndim < 2:
        raise ValueError(f"values have shape {tuple(values.shape)}; give (models, samples, ...)")
    shape = (values.shape[1], values.shape[0])
    check_mask("f", f, shape)
    check_mask("g", g, shape)
    if bool((f & g).any()):
        raise ValueError("f and g overlap: a model saw a sample or it did not")
    mean_f, variance_f = _moments(exact(values), f)
    mean_g, variance_g = _moments(exact(values), g)
    se = (variance_f + variance_g).sqrt()
    return Contrast(mean_f - mean_g, se, mean_f, mean_g, f.sum(dim=1), g.sum(dim=1))


def paired_se(values: Tensor, f: Tensor, g: Tensor, size: int = 2) -> Tensor:
    """Standard error of the mean difference of P pairs of models, 2p and 2p + 1, or larger blocks.

    Args:
        values: (M, B), one value per model and sample.
        f: (B, M) bool, the models that saw each sample.
        g: (B, M) bool, those that did not.
        size: Models of a block, one of which did not see a sample.

    Returns:
        (B,); NaN with fewer than two blocks, and where not exactly one model of each left the
        sample out.
    """
    blocks = len(values) // size
    saw = f.T.reshape(blocks, size, -1)
    whole = (f ^ g).all(dim=1) & (saw.sum(dim=1) == size - 1).all(dim=0)
    if blocks < 2:
        return torch.full(whole.shape, torch.nan, dtype=torch.float64)
    exactly = exact(values).reshape(blocks, size, -1)
    of_block = torch.where(saw, exactly / (size - 1), -exactly).sum(dim=1)
    return masked(of_block.var(dim=0, correction=1).div(blocks).sqrt(), whole, torch.nan)


def view_variance(values: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Variance of a score by the views it was made of, as far as they mislead all models alike.

    The same V views are shown to all models. What a view does to the score of models that saw the
    sample, and of those that did not, has a part that is common to the models of a side, which no
    number of models removes and no spread between models shows; and a part of each model's own,
    which the spread between models shows already. With the contrast s_v of view v and r_mv what
    is left of model m in view v beyond the means of its side, model and view,

        E[var_v(s_v)] = common + own_f / K_f + own_g / K_g,    own = Σ r² / ((K - 1) (V - 1)),

    so that the common part is what the two-way table leaves of the first (analysis of variance
    with one observation a cell). The score is a mean over V views: its part is the V-th of that.

    Args:
        values: (M, V, B), one value per model, view and sample.
        f: (B, M) bool, as for :func:`contrast`.
        g: (B, M) bool.

    Returns:
        (B,), unbiased and so at times below zero; NaN with one view, or fewer than two models on
        a side.
    """
    views = values.shape[1]
    if views < 2:
        return torch.full((values.shape[2],), torch.nan, dtype=torch.float64)
    exactly = exact(values).transpose(1, 2)
    own = exactly - exactly.mean(dim=2, keepdim=True)
    deviation, residual = exactly.new_zeros(exactly.shape[1:]), exactly.new_zeros(())
    for sign, side in ((1, f), (-1, g)):
        chosen, count = side.T[:, :, None], exact(side.sum(dim=1))
        mean = masked(own, chosen).sum(dim=0) / count[:, None]
        squares = masked(own - mean, chosen).square().sum(dim=(0, 2))
        residual = residual + squares / ((count - 1) * count * (views - 1))
        deviation = deviation + sign * mean
    total = deviation.square().sum(dim=1) / (views - 1)
    enough = (f.sum(dim=1) > 1) & (g.sum(dim=1) > 1)
    return masked((total - residual) / views, enough, torch.nan)


def normalized(score: Tensor, n_present: Tensor) -> Tensor:
    """MultiMem ÷ (n - 1): comparable across numbers of modalities.

    n modalities form n (n - 1) / 2 pairs, each modality in n - 1 of them. The published numbers
    (arXiv 2606.22220, Table 3: three modalities = half the sum of the pairs) match this form. For
    n = 2 it is MultiMem itself.

    Args:
        score: (B, ...).
        n_present: (B,), the number of modalities each sample has.

    Returns:
        (B, ...); NaN where a sample has fewer than two modalities.
    """
    count = _like(exact(n_present), score)
    return masked(exact(score), count >= 2, fill=torch.nan) / (count - 1).clamp(min=1)


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the models in ``mask``, and the variance of that mean: s² / K, ddof = 1."""
    chosen = _like(mask.T, values)
    count = _like(exact(mask.sum(dim=1)), values[0])
    mean = masked(values, chosen).sum(dim=0) / count
    spread = masked(values - mean, chosen).square().sum(dim=0) / (count - 1)
    return mean, masked(spread / count, count >= 2, fill=torch.nan)


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """With trailing axes of length 1, so that it broadcasts against ``other``."""
    return tensor.reshape(tensor.shape + (1,) * (other.ndim - tensor.ndim))
