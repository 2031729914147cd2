"""The mathematics of MultiMem: tensors in, tensors out, no I/O and no Ray.

How the parts follow one another, for one reference model:

    embeddings of H ──► MeanAccumulator ──► m_k ┐
    embeddings of a sample ─────────────────────┴► agreement ──► cmc, pair_cmc, attribution, …

and then, over the M models: ``contrast`` (mean of the models that saw the sample minus mean of
those that did not) turns any of these quantities into its memorization score.

Shapes: V views, B samples, n modalities in a fixed order (their names sorted), d dimensions,
M models. ``present`` is a bool tensor (B, n). Embeddings are L2-normalised over d by the caller.

Source: MultiMem, ECCV 2026, arXiv 2606.22220.
"""

from multimem_ray.metric.agreement import Agreement, agreement
from multimem_ray.metric.calibration import Calibration, CalibrationAccumulator, bits_of
from multimem_ray.metric.consistency import (
    Terms,
    attribution,
    clipmem_alignment,
    cmc,
    pair_cmc,
    terms,
)
from multimem_ray.metric.held_out import MeanAccumulator
from multimem_ray.metric.multimem import (
    Contrast,
    contrast,
    normalized,
    paired_se,
    view_variance,
)
from multimem_ray.metric.recall import recall_hits

__all__ = [
    "Agreement",
    "Calibration",
    "CalibrationAccumulator",
    "Contrast",
    "MeanAccumulator",
    "Terms",
    "agreement",
    "attribution",
    "bits_of",
    "clipmem_alignment",
    "cmc",
    "contrast",
    "normalized",
    "pair_cmc",
    "paired_se",
    "recall_hits",
    "terms",
    "view_variance",
]
