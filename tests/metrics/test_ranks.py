"""Ranks against a sorting oracle, against published matrices, and where sorting goes wrong."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics import ranks as ranks_module
from hmgr_jax.metrics.directions import both_directions
from hmgr_jax.metrics.ranks import chance, count_ties, ranks, recalls, require_finite


@pytest.fixture(scope="module")
def golden() -> Path:
    """The folder of known answers of the papers' own code."""
    default = Path(__file__).parents[3] / "shared" / "golden"
    folder = Path(os.environ.get("HMGR_TEST_GOLDEN", default))
    if not folder.is_dir():
        pytest.skip(f"known answers not found at {folder} (set HMGR_TEST_GOLDEN to a copy)")
    return folder


@pytest.fixture(params=[1 << 20, 7], ids=["one block", "block a row"])
def block(request, monkeypatch):
    """Everything must hold whether a block is the whole matrix or a single row."""
    monkeypatch.setattr(ranks_module, "BLOCK", request.param)


def sorted_ranks(scores, query_groups, gallery_groups):
    """Walk each query's gallery in order of score until the first positive, counting the others."""
    return np.array(
        [
            int(np.argmax(gallery_groups[np.argsort(-row)] == group))
            for row, group in zip(scores, query_groups, strict=True)
        ]
    )


def problem(n_queries, n_gallery, n_groups, seed=0):
    """Distinct scores, groups in random order with every group on both sides."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n_queries * n_gallery).reshape(n_queries, n_gallery)
    groups = [
        rng.permutation(
            np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
        )
        for n in (n_queries, n_gallery)
    ]
    return scores.astype(np.float32), *groups


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("sizes", [(5, 5, 5), (40, 200, 40), (23, 31, 4), (1, 9, 1), (9, 1, 1)])
def test_equals_sorting_where_nothing_ties(sizes):
    scores, query_groups, gallery_groups = problem(*sizes)
    expected = sorted_ranks(scores, query_groups, gallery_groups)
    found = ranks(scores, query_groups, gallery_groups)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(count_ties(scores, query_groups, gallery_groups), 0)


@pytest.mark.usefixtures("block")
def test_a_transposed_view_is_ranked_like_its_copy():
    scores, a, b = problem(30, 50, 30)
    np.testing.assert_array_equal(ranks(scores.T, b, a), ranks(scores.T.copy(), b, a))
    np.testing.assert_array_equal(ranks(scores.T, b, a), sorted_ranks(scores.T, b, a))


@pytest.mark.usefixtures("block")
def test_ties_count_against_the_model_but_tied_positives_do_not():
    scores = np.float32([[3, 5, 5, 5, 1], [7, 7, 0, 0, 0]])
    query_groups, gallery_groups = np.array([1, 2]), np.array([2, 1, 1, 0, 0])
    np.testing.assert_array_equal(ranks(scores, query_groups, gallery_groups), [1, 1])
    np.testing.assert_array_equal(count_ties(scores, query_groups, gallery_groups), [1, 1])


@pytest.mark.usefixtures("block")
def test_a_constant_model_is_last_in_both_directions():
    images, captions = np.arange(20), np.repeat(np.arange(20), 5)
    scores = np.full((20, 100), 0.25, np.float32)
    np.testing.assert_array_equal(ranks(scores, images, captions), 95)
    np.testing.assert_array_equal(ranks(scores.T, captions, images), 19)
    assert recalls(ranks(scores.T, captions, images))["R@10"] == 0


@pytest.mark.usefixtures("block")
def test_one_caption_an_image_and_negative_group_numbers():
    scores, groups, _ = problem(12, 12, 12)
    expected = (scores > np.diag(scores)[:, None]).sum(1)
    np.testing.assert_array_equal(ranks(scores, groups - 7, groups - 7), expected)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_score_is_refused_by_row_and_column(bad):
    scores, a, b = problem(11, 13, 11)
    scores[8, 3] = bad
    with pytest.raises(FoundNonFinite, match=f"{bad} in row 8, column 3"):
        ranks(scores, a, b)
    with pytest.raises(FoundNonFinite, match="row 3, column 8"):
        ranks(scores.T, b, a)
    with pytest.raises(FoundNonFinite, match="row 8, column 3"):
        require_finite(scores)


@pytest.mark.parametrize("turned", [False, True])
def test_memory_is_bounded_by_the_block(turned):
    images, captions = np.arange(1000), np.repeat(np.arange(1000), 5)
    scores = np.random.default_rng(0).standard_normal((1000, 5000), np.float32)
    arguments = (scores.T, captions, images) if turned else (scores, images, captions)
    tracemalloc.start()
    ranks(*arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scores.nbytes / 2  # ten bytes a score of a block of a fifth of the matrix


def test_a_query_without_positive_and_sizes_that_disagree_are_refused():
    scores = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError, match="group 9 of query 1"):
        ranks(scores, np.array([0, 9]), np.array([0, 0, 1]))
    with pytest.raises(UserError, match=r"\(2, 3\)"):
        ranks(scores, np.array([0, 1, 1]), np.array([0, 1]))
    with pytest.raises(UserError, match="at least one query"):
        recalls(np.array([], np.int64))


def test_recalls_by_hand():
    found = recalls(np.array([0, 1, 4, 5, 30, 9]), ks=(1, 5, 10, 100))
    sixth = 100 / 6
    assert found == pytest.approx(
        {
            "R@1": sixth,
            "R@5": 3 * sixth,
            "R@10": 5 * sixth,
            "R@100": 100.0,
            "medR": 5,
            "meanR": 55 / 6,
        }
    )


def test_known_answer_of_the_scan_family(golden):
    with np.load(golden / "recall_200.npz") as known:
        images = np.arange(200)
        found = both_directions(known["sims"], images, np.repeat(images, 5))
        for name in ("i2t", "t2i"):
            measured = [found[f"{name}/{m}"] for m in ("R@1", "R@5", "R@10", "medR", "meanR")]
            np.testing.assert_allclose(measured, known[name], rtol=1e-12)


def test_known_answer_of_msrvtt_1ka(real_data):
    """Cap4Video's matrix: by sorting 48.0/73.0/82.9 and 45.7/74.1/82.7.

    Nine texts repeat another one word for word, so their rows are equal and a video ties between
    them: sorting gives such a tie to whichever comes first, we give it to none.
    """
    scores = np.load(real_data / "msrvtt_1ka" / "msrvtt_video_matrix.npy")
    pairs = np.arange(1000)
    found = both_directions(scores, pairs, pairs, modalities=("text", "video"))
    measured = [found[f"{d}/R@{k}"] for d in ("t2v", "v2t") for k in (1, 5, 10)]
    assert measured == pytest.approx([48.0, 73.0, 82.9, 45.6, 74.1, 82.7], abs=1e-9)
    assert found["rsum"] == pytest.approx(sum(measured))
    ties = count_ties(scores.T, pairs, pairs)
    assert np.count_nonzero(ties) == 9
    assert recalls(ranks(scores.T, pairs, pairs) - ties)["R@1"] == pytest.approx(46.0)
    assert recalls(sorted_ranks(scores.T, pairs, pairs))["R@1"] == pytest.approx(45.7, abs=0.11)


def test_chance_is_the_mean_of_random_orders():
    queries, gallery = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1, 2, 2, 2, 2, 2])
    rng = np.random.default_rng(0)
    drawn = [ranks(rng.random((4, 9)), queries, gallery) for _ in range(4000)]
    found = chance(queries, gallery, (1, 5, 9, 20))
    expected = [100 * np.mean(np.array(drawn) < k) for k in (1, 5, 9, 20)]
    np.testing.assert_allclose(list(found.values()), expected, atol=1.5)
    assert found["R@20"] == 100
