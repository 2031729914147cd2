"""Zero-shot classification: the label whose prompts are nearest (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from multimem_ray.evaluation.bootstrap import bootstrap_mean

TEMPLATES = ("{}", "a {}", "a photo of a {}", "the sound of a {}")


def prompts(label: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The texts that stand for a label; underscores and hyphens are read as spaces."""
    words = label.replace("_", " ").replace("-", " ")
    return [template.format(words) for template in templates]


def class_vectors(embedded: Tensor) -> Tensor:
    """(C, P, d) embeddings of P prompts per class to (C, d): their normalised mean."""
    return normalize(embedded.mean(dim=1), dim=-1)


def zero_shot(
    features: Tensor,
    labels: NDArray[np.str_],
    classes: Sequence[str],
    vectors: Tensor,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of the nearest class vector.

    Args:
        features: (N, d), L2-normalised, of one modality.
        labels: (N,).
        classes: C names.
        vectors: (C, d), L2-normalised.

    Returns:
        An estimate with ``classes`` and ``chance`` (1 / C).
    """
    nearest = (features @ vectors.t()).argmax(dim=1).cpu().numpy()
    right = np.array(classes)[nearest] == labels
    return {
        **bootstrap_mean(right.astype(np.float64), seed).as_dict(),
        "classes": len(classes),
        "chance": 1.0 / len(classes),
    }
