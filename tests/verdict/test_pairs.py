"""What each pair of models says of a sample."""

from __future__ import annotations

import numpy as np

from multimem_ray.verdict.pairs import paired


def test_what_lies_outside_the_pool_has_no_pair() -> None:
    cmc = np.array([[0.5, 0.3, 0.7, 0.6], [0.5, 0.3, 0.7, 0.6]])
    member = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    values = paired(cmc, member, 2)
    np.testing.assert_allclose(values[0], [[0.3, 0.2], [0.7, -0.1]])
    assert np.isnan(values[1]).all()


def test_the_fold_that_was_left_out_stands_against_the_others() -> None:
    cmc = np.array([[0.5, 0.3, 0.7, 0.2, 0.4, 0.6]])
    member = np.array([[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]])
    values = paired(cmc, member, 2, 3)
    np.testing.assert_allclose(values[0], [[0.7, -0.3], [0.2, 0.3]])
    assert np.isnan(paired(cmc, np.ones((1, 6)), 2, 3)).all()
