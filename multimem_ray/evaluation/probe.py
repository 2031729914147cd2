"""Linear probe: how much of a label a linear classifier reads from an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.evaluation.bootstrap import bootstrap_mean


def linear_probe(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.str_],
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Accuracy of logistic regression, each sample judged by a classifier that did not see it.

    Stratified cross-validation (scikit-learn), features standardised within each fold. Labels
    with fewer samples than ``folds`` are left out.

    Args:
        features: (N, d).
        labels: (N,).

    Returns:
        An estimate with ``classes`` and ``chance`` (share of the most frequent label); None with
        fewer than two labels left.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    names, counts = np.unique(labels, return_counts=True)
    kept = names[counts >= folds]
    if len(kept) < 2:
        return None
    chosen = np.isin(labels, kept)
    x, y = features[chosen], labels[chosen]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    # The matrices are small: more threads only wait for each other.
    with threadpool_limits(1):
        right = cross_val_predict(classifier, x, y, cv=splits) == y
    return {
        **bootstrap_mean(right.astype(np.float64), seed).as_dict(),
        "classes": len(kept),
        "chance": float(counts[counts >= folds].max() / chosen.sum()),
    }
