"""Cross-modal consistency (CMC) of a sample under one model, and the parts it is made of.

With a = alignment and u = uniformity (see :mod:`multimem_ray.metric.agreement`), the sums running
over the modalities a sample has,

    CMC(i, H) = ½ E[1ᵀ Φ_i Φ_iᵀ 1] - ½ E[1ᵀ Φ_i Φ_hᵀ 1]
              = ½ Σ_{j,k} a_jk - ½ Σ_{j,k} u_jk
              = n/2 + Σ_{j<k} [ a_jk - ½ (u_jk + u_kj) ] + Σ_j [ ½ (a_jj - 1) - ½ u_jj ]
                      ╰────────── pair term ─────────╯         ╰────── own term ──────╯

There is no term of three modalities, so the split into pairs and single modalities is exact. The
constant n/2 is the same under every model and leaves no trace in a difference of models; a_jj is
1 for normalised embeddings, and kept so that the split is exact for rounded ones too.

Every function takes any subset of the modalities present: ``present`` may be narrower than it was
for :func:`agreement`. All are linear in (a, u), so a difference of models may be taken before or
after.

Sources: CMC, arXiv 2606.22220; CLIPMem, arXiv 2502.07830.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimem_ray.metric._checks import check_mask, masked
from multimem_ray.metric.agreement import Agreement


@dataclass(frozen=True, slots=True)
class Terms:
    """The exact decomposition of CMC - n/2.

    Attributes:
        pair: (B, n, n), ``[i, j, k]`` for j < k the term of that pair of modalities; zero on and
            below the diagonal and where one of the two is absent.
        own: (B, n), the term of each modality alone; zero where absent.
    """

    pair: Tensor
    own: Tensor


def cmc(agreement: Agreement, present: Tensor) -> Tensor:
    """Cross-modal consistency, literally: ½ Σ_{j,k} a_jk - ½ Σ_{j,k} u_jk.

    Returns:
        (B,). For n normalised modalities the first sum lies in [0, n²/2], the second in
        [-n²/2, n²/2]. One modality alone gives ½ - ½ u_jj, none gives 0.

    Raises:
        ValueError: ``present`` is not bool of shape (B, n).
    """
    both = _both(agreement, present)
    return masked(agreement.alignment - agreement.uniformity, both).sum(dim=(1, 2)) / 2


def pair_cmc(agreement: Agreement, present: Tensor) -> Tensor:
    """CMC of each pair of modalities, as if the sample and H had only these two.

    ``½ (a_jj + a_kk + 2 a_jk) - ½ (u_jj + u_kk + u_jk + u_kj)``

    Returns:
        (B, n, n), symmetric; NaN on the diagonal and where one of the two is absent.

    Raises:
        ValueError: ``present`` is not bool of shape (B, n).
    """
    pairs = _both(agreement, present) & _off_diagonal(agreement)
    gap = agreement.alignment - agreement.uniformity
    own = gap.diagonal(dim1=1, dim2=2)
    values = (own[:, :, None] + own[:, None, :] + gap + gap.transpose(1, 2)) / 2
    return masked(values, pairs, fill=torch.nan)


def clipmem_alignment(agreement: Agreement, present: Tensor) -> Tensor:
    """The alignment score of CLIPMem, for each pair of modalities: ``a_jk - u_jk - u_kj``.

    The cosine of the two minus the mean cosine of each to the other modality of unseen samples.
    Beside :func:`pair_cmc` it lacks the same-modality terms and weighs the cross terms 1, not ½.

    Returns:
        (B, n, n), symmetric; NaN on the diagonal and where one of the two is absent.

    Raises:
        ValueError: ``present`` is not bool of shape (B, n).
    """
    pairs = _both(agreement, present) & _off_diagonal(agreement)
    cross = agreement.uniformity + agreement.uniformity.transpose(1, 2)
    return masked(agreement.alignment - cross, pairs, fill=torch.nan)


def terms(agreement: Agreement, present: Tensor) -> Terms:
    """Decompose CMC into one term per pair of modalities and one per modality.

    ``n/2 + pair.sum((1, 2)) + own.sum(1)`` is the CMC of a sample with n modalities; see the
    formula at the top of this module.

    Raises:
        ValueError: ``present`` is not bool of shape (B, n).
    """
    both = _both(agreement, present)
    cross = agreement.uniformity + agreement.uniformity.transpose(1, 2)
    pair = masked(agreement.alignment - cross / 2, both).triu(diagonal=1)
    gap = (agreement.alignment - agreement.uniformity).diagonal(dim1=1, dim2=2)
    return Terms(pair, masked((gap - 1) / 2, present))


def attribution(agreement: Agreement, present: Tensor) -> Tensor:
    """What each modality contributes to CMC - n/2: its own term and half of each of its pairs.

    This is the Shapley value of the game in which the players are the modalities and a coalition
    S is worth CMC_S - |S|/2: with terms of at most two players it has this closed form. The
    attributions of a sample sum to CMC - n/2, and their difference between models to MultiMem.

    Returns:
        (B, n); zero where absent.

    Raises:
        ValueError: ``present`` is not bool of shape (B, n).
    """
    parts = terms(agreement, present)
    return parts.own + (parts.pair + parts.pair.transpose(1, 2)).sum(dim=2) / 2


def _both(agreement: Agreement, present: Tensor) -> Tensor:
    check_mask("present", present, tuple(agreement.alignment.shape[:2]))
    return present[:, :, None] & present[:, None, :]


def _off_diagonal(agreement: Agreement) -> Tensor:
    n = agreement.alignment.shape[1]
    return ~torch.eye(n, dtype=torch.bool, device=agreement.alignment.device)
