"""Recall by uncertainty: bins by hand, and orders that are known."""

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.uncertainty import by_bin, rank_correlations


def test_bins_by_hand():
    """Seven queries in three bins of 3, 2 and 2, sorted by uncertainty."""
    uncertainty = np.array([0.7, 0.1, 0.6, 0.2, 0.5, 0.3, 0.4])
    ranks = np.array([9, 0, 4, 0, 20, 1, 2])
    rows = by_bin(uncertainty, ranks, bins=3, ks=(1, 5))
    assert [row["queries"] for row in rows] == [3, 2, 2]
    np.testing.assert_allclose([row["uncertainty"] for row in rows], [0.2, 0.45, 0.65])
    np.testing.assert_allclose([row["R@1"] for row in rows], [200 / 3, 0, 0])
    np.testing.assert_allclose([row["R@5"] for row in rows], [100, 50, 50])
    assert [row["bin"] for row in rows] == [1, 2, 3]


def test_recall_falls_where_uncertainty_tells_the_rank():
    ranks = np.random.default_rng(0).integers(0, 30, 500)
    rows = by_bin(ranks + 0.5, ranks)
    assert len(rows) == 10
    falling = [row["R@10"] for row in rows]
    assert falling == sorted(falling, reverse=True)
    assert (falling[0], falling[-1]) == (100, 0)
    found = rank_correlations(ranks * 2.0, ranks, length=-ranks, same=np.ones(500))
    assert found == {"rank": pytest.approx(1), "length": pytest.approx(-1)}


def test_few_queries_and_bad_values():
    assert len(by_bin(np.array([1.0, 2.0]), np.array([0, 3]))) == 2
    with pytest.raises(FoundNonFinite, match="uncertainty of item 1 is nan"):
        by_bin(np.array([1.0, np.nan]), np.array([0, 3]))
    with pytest.raises(UserError, match="no queries"):
        by_bin(np.array([]), np.array([], int))
