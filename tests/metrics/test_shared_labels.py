"""mAP by shared labels: both normalisations against plain loops and by hand."""

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.precision import average_precisions, precision_recall
from hmgr_jax.metrics.protocols import evaluate_all, get_protocol
from hmgr_jax.metrics.shared_labels import sharing


def _plain(row, right, depth, divisor):
    """By sorting pairs in Python: a tie puts the wrong ones first."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], bool(right[i])))
    hits = [bool(right[i]) for i in order][:depth]
    total = sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i])
    count = sum(hits) if divisor == "hits" else min(sum(right), depth or len(row))
    return total / count if count else 0.0


def _relevance(right):
    return lambda first, stop: right[first:stop]


def test_by_hand():
    """Ranked r w r r w, of which three are right: the first three are r w r."""
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    right = np.array([[True, False, True, True, False]])
    whole, three, one = (
        [float(v[0]) for v in average_precisions(scores, _relevance(right), (None, 3, 1), divisor)]
        for divisor in ("hits", "relevant", "hits")
    )
    all_right = (1 + 2 / 3 + 3 / 4) / 3
    assert whole == pytest.approx([all_right, (1 + 2 / 3) / 2, 1])
    assert three == pytest.approx([all_right, (1 + 2 / 3) / 3, 1])
    assert one == whole
    wrong_first = average_precisions(-scores, _relevance(right), (1, None))
    assert wrong_first[0][0] == 0
    assert wrong_first[1][0] == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize("divisor", ["hits", "relevant"])
@pytest.mark.parametrize("values", [1000, 4])  # with four values nearly everything ties
def test_against_plain_loops(values, divisor):
    rng = np.random.default_rng(values)
    scores = rng.integers(0, values, (50, 120)).astype(np.float32)
    right = rng.random((50, 120)) < rng.choice([0.0, 0.05, 0.3, 0.9], (50, 1))
    depths = (None, 1, 7, 50, 100, 500)
    found = average_precisions(scores, _relevance(right), depths, divisor)
    for depth, values_of_depth in zip(depths, found, strict=True):
        for q in range(50):
            wanted = _plain(scores[q], right[q], depth, divisor)
            assert values_of_depth[q] == pytest.approx(wanted), (depth, q)


def test_protocols_of_single_and_several_labels():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 70)).astype(np.float32)
    a, b = (rng.random((n, 5)) < 0.3 for n in (60, 70))
    right = np.array([[bool((x & y).any()) for y in b] for x in a])
    labels = {"image": a.astype(np.uint8), "text": b.astype(np.uint8)}
    known = np.ix_(a.any(axis=1), b.any(axis=1))  # items without a label are left out
    kept, relevant = sharing(scores, labels["image"], labels["text"])
    assert 0 < len(kept) < 60
    np.testing.assert_array_equal(kept, scores[known])
    np.testing.assert_array_equal(relevant(0, len(kept)), right[known])
    groups = np.arange(60), np.arange(70)
    found = evaluate_all(("map", "map_relevant"), scores, *groups, labels=labels)
    assert list(found) == [
        name
        for protocol in ("map", "map_relevant")
        for name in get_protocol(protocol).names(("image", "text"))
    ]
    scores, right = scores[known], right[known]
    for prefix, divisor in (("", "hits"), ("map_relevant/", "relevant")):
        for measure, depth in (("mAP", None), ("mAP@50", 50), ("mAP@100", 100)):
            i2t = np.mean(
                [_plain(s, r, depth, divisor) for s, r in zip(scores, right, strict=True)]
            )
            t2i = np.mean(
                [_plain(s, r, depth, divisor) for s, r in zip(scores.T, right.T, strict=True)]
            )
            assert found[f"{prefix}i2t/{measure}"] == pytest.approx(100 * i2t)
            assert found[f"{prefix}t2i/{measure}"] == pytest.approx(100 * t2i)
            assert found[f"{prefix}{measure}"] == pytest.approx(50 * (i2t + t2i))


def test_rejects_bad_labels():
    scores, groups = np.eye(3, dtype=np.float32), np.arange(3)
    with pytest.raises(UserError, match="map needs the labels of all 3 items of modality image"):
        evaluate_all(("map",), scores, groups, groups)
    labels = {m: np.ones((3, 2), np.uint8) for m in ("image", "text")}
    with pytest.raises(FoundNonFinite):
        evaluate_all(("map",), scores * np.nan, groups, groups, labels=labels)


def test_precision_by_recall():
    """Ranked r w r r w: precision at recall r is the best one at r or more."""
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    right = np.array([[True, False, True, True, False]])
    levels = np.array([0.0, 0.3, 0.4, 0.7, 1.0])
    found = precision_recall(scores, _relevance(right), levels)
    np.testing.assert_allclose(found, [1, 1, 3 / 4, 3 / 4, 3 / 4])
    nothing = precision_recall(scores, _relevance(np.zeros((1, 5), bool)), levels)
    np.testing.assert_array_equal(nothing, np.zeros(5))


@pytest.mark.parametrize("name", ["modelnet", "modelnet_others"])
def test_items_among_their_own_kind(name):
    """The query is in its gallery, or it is not."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(30, 4)), np.eye(5, dtype=np.uint8)[rng.integers(0, 5, 30)]
    scores, numbers = (x @ x.T).astype(np.float32), np.arange(30)
    given = {"modalities": ("mesh", "mesh"), "labels": {"mesh": labels}}
    found = evaluate_all((name, "map", "plain"), scores, numbers, numbers, **given)
    right, expected = labels @ labels.T > 0, []
    for i in range(30):
        others = [j for j in range(30) if name == "modelnet" or j != i]
        expected.append(_plain(scores[i, others], right[i, others], None, "hits"))
    prefix = "" if name == "modelnet" else "modelnet_others/"
    assert set(found) == {f"{prefix}mesh2mesh/{m}" for m in ("mAP", "mAP@50", "mAP@100")}
    assert found[f"{prefix}mesh2mesh/mAP"] == pytest.approx(100 * np.mean(expected))
