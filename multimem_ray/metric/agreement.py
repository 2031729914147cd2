"""How well the modalities of a sample agree with one another, and with the held-out set.

Every score of this package is a sum over entries of two small matrices per sample, so these are
computed once, and nothing later touches an embedding again. With φ_j(i, v) the embedding of
modality j of sample i in view v,

    alignment[i, j, k]  = E_v [ φ_j(i, v) · φ_k(i, v) ]
    uniformity[i, j, k] = E_v [ φ_j(i, v) ] · m_k,     m_k = E_{h ∈ H, v} [ φ_k(h, v) ]

The second is the expectation over the held-out set H of φ_j(i) · φ_k(h): the dot product is
linear, so all of H enters through one vector per modality and a sample costs O(n² d) whatever
the size of H.

Source: arXiv 2606.22220, definition of CMC; the names are those of its two terms.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from multimem_ray.metric._checks import check_embeddings, exact, masked


@dataclass(frozen=True, slots=True)
class Agreement:
    """The two matrices all scores of a sample are made of.

    Attributes:
        alignment: (B, n, n), symmetric; the diagonal is 1 for normalised embeddings.
        uniformity: (B, n, n); row: modality of the sample, column: modality of H. Not symmetric.
        cmc_by_view: (V, B), the consistency in each view, whose mean is that of both matrices;
            None where only means over the views are known.

    Rows and columns of absent modalities are zero.
    """

    alignment: Tensor
    uniformity: Tensor
    cmc_by_view: Tensor | None = None


def agreement(embeddings: Tensor, present: Tensor, means: Tensor) -> Agreement:
    """Agreement of each sample's modalities with one another and with H, under one model.

    Args:
        embeddings: (V, B, n, d), L2-normalised over d. What stands in the place of an absent
            modality is ignored, NaN included.
        present: (B, n) bool, the modalities each sample has.
        means: (n, d), the held-out mean vectors m_k of this model
            (:meth:`MeanAccumulator.means`); or (B, n, d), a set of its own for each sample
            (:meth:`MeanAccumulator.leave_one_out`). A sample is compared with the means of its
            own modalities only: H projected on what the sample has.

    Returns:
        float64 matrices (float32 on MPS) on the device of ``embeddings``.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    check_embeddings(embeddings, present)
    _, samples, modalities, dim = embeddings.shape
    if tuple(means.shape) not in {(modalities, dim), (samples, modalities, dim)}:
        raise ValueError(
            f"means have shape {tuple(means.shape)}; give {(modalities, dim)}, "
            f"or {(samples, modalities, dim)} for a set of its own for each sample"
        )
    vectors, towards = exact(embeddings), exact(means.to(embeddings.device))
    alignment = vectors @ vectors.transpose(-1, -2)
    # With one set of means for all samples, this is a single product of two matrices.
    uniformity = vectors @ towards.transpose(-1, -2)

    # An entry depends on its own two vectors only, so masking the small matrices is enough.
    both = present[:, :, None] & present[:, None, :]
    cmc_by_view = masked(alignment - uniformity, both).sum(dim=(-2, -1)) / 2
    return Agreement(
        masked(alignment.mean(dim=0), both), masked(uniformity.mean(dim=0), both), cmc_by_view
    )
