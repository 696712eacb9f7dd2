"""R-Precision, mAP@R and PMRP against hand lists and the plainest loops."""

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.precision import of_groups, precisions, r_precision, ranked
from hmgr_jax.metrics.protocols import PROTOCOLS, evaluate_all, get_protocol
from hmgr_jax.metrics.ranks import ranks
from hmgr_jax.metrics.shared_labels import DISTANCES, within


def _relevance(right):
    return lambda first, stop: right[first:stop]


def _plain(row, right, ks):
    """By sorting pairs in Python: a tie puts the wrong ones first."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], bool(right[i])))
    hits = [bool(right[i]) for i in order]
    count = sum(hits)
    average = sum(sum(hits[: i + 1]) / (i + 1) for i in range(count) if hits[i]) / count
    return {
        "R-P": sum(hits[:count]) / count,
        "mAP@R": average,
        "R@1": float(hits[0]),
        **{f"P@{k}": sum(hits[:k]) / k for k in ks},
    }


def test_by_hand():
    """Ranked r w r r w: three right; the first three are r w r."""
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]])
    right = np.array([[True, False, True, True, False]])
    found = {name: v[0] for name, v in precisions(scores, _relevance(right), (2, 5, 10)).items()}
    assert found["R-P"] == pytest.approx(2 / 3)
    assert found["mAP@R"] == pytest.approx((1 + 2 / 3) / 3)  # over R, not over the hits
    assert found["R@1"] == 1
    assert found["P@2"] == 0.5
    assert found["P@5"] == pytest.approx(0.6)
    assert found["P@10"] == pytest.approx(0.3)


@pytest.mark.parametrize("values", [1000, 4])  # with four values nearly everything ties
def test_against_plain_loops(values):
    rng = np.random.default_rng(values)
    scores = rng.integers(0, values, (60, 40)).astype(np.float32)
    right = rng.random((60, 40)) < rng.choice([0.05, 0.3, 0.9], (60, 1))
    right[:, 7] = True
    found = precisions(scores, _relevance(right), (1, 5, 100))
    for q in range(60):
        for name, value in _plain(scores[q], right[q], (1, 5, 100)).items():
            assert found[name][q] == pytest.approx(value), (name, q)
    np.testing.assert_allclose(r_precision(scores, _relevance(right)), found["R-P"])
    np.testing.assert_allclose(r_precision(scores.T, _relevance(right.T)).shape, (40,))


def test_recall_at_1_is_that_of_ranks():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 50), np.concatenate([np.arange(5), rng.integers(0, 5, 70)])
    scores = rng.integers(0, 9, (50, 75)).astype(np.float32)
    found = precisions(scores, of_groups(a, b))["R@1"]
    np.testing.assert_array_equal(found == 1, ranks(scores, a, b) == 0)


def test_a_constant_score_is_worth_nothing():
    right = np.array([[True] * 3 + [False] * 7])
    found = precisions(np.zeros((1, 10)), _relevance(right))
    assert {name: v[0] for name, v in found.items()} == {"R-P": 0, "mAP@R": 0, "R@1": 0}
    assert r_precision(np.zeros((1, 10)), _relevance(right))[0] == 0


def test_ranking_of_a_few_is_that_of_all():
    rng = np.random.default_rng(1)
    row, right = rng.integers(0, 20, 200).astype(np.float32), rng.random(200) < 0.2
    np.testing.assert_array_equal(ranked(row, right, 30), ranked(row, right, 200)[:30])


def test_rejects_queries_without_positives_and_non_finite_scores():
    with pytest.raises(UserError, match="query 1 has none"):
        precisions(np.eye(2), _relevance(np.array([[True, False], [False, False]])))
    with pytest.raises(FoundNonFinite):
        r_precision(np.array([[np.nan]]), _relevance(np.array([[True]])))


def test_cub_reports_both_directions():
    rng = np.random.default_rng(2)
    species = np.repeat(np.arange(4), 3)
    captions = np.repeat(species, 2)
    scores = rng.random((12, 24)).astype(np.float32)
    found = PROTOCOLS["cub"].evaluate(scores, species, captions)
    assert list(found) == PROTOCOLS["cub"].names(("image", "text"))
    t2i = [_plain(scores[:, j], species == captions[j], (5,)) for j in range(24)]
    for name in ("R-P", "mAP@R", "R@1", "P@5"):
        assert found[f"t2i/{name}"] == pytest.approx(100 * np.mean([one[name] for one in t2i]))
    assert found["R-P"] == pytest.approx((found["i2t/R-P"] + found["t2i/R-P"]) / 2)


def _labels(rng, count):
    labels = (rng.random((count, 90)) < 0.02).astype(np.uint8)
    labels[rng.random(count) < 0.2] = 0
    return labels


def test_hamming_distance_by_matmul_is_that_of_bits():
    rng = np.random.default_rng(3)
    a, b = _labels(rng, 30), _labels(rng, 50)
    for distance in DISTANCES:
        wanted = np.array([[(x != y).sum() <= distance for y in b] for x in a])
        np.testing.assert_array_equal(within(a, b, distance)(0, 30), wanted)
        np.testing.assert_array_equal(within(a, b, distance)(10, 20), wanted[10:20])


def _plain_pmrp(scores, image_labels, caption_labels):
    """The definition, query by query; images without objects are nowhere."""
    rows = [i for i in range(len(image_labels)) if image_labels[i].any()]
    columns = [j for j in range(len(caption_labels)) if caption_labels[j].any()]
    values = []
    for z in (0, 1, 2):
        of_z = []
        for i in rows:
            right = np.array([(image_labels[i] != caption_labels[j]).sum() <= z for j in columns])
            of_z.append(_plain(scores[i, columns], right, ())["R-P"])
        values.append(np.mean(of_z))
    return 100 * np.mean(values)


def test_pmrp_is_its_definition():
    rng = np.random.default_rng(4)
    labels = _labels(rng, 25)
    labels[:8] = labels[8:16]  # plausible matches besides the own pair
    captions = np.repeat(np.arange(25), 2)
    scores = rng.random((25, 50)).astype(np.float32)
    about = {"labels": {"image": labels, "text": labels[captions]}}
    found = PROTOCOLS["pmrp"].evaluate(scores, np.arange(25), captions, **about)
    assert list(found) == PROTOCOLS["pmrp"].names(("image", "text"))
    wanted = _plain_pmrp(scores, labels, labels[captions])
    assert found["pmrp/i2t/R-P"] == pytest.approx(wanted)
    wanted = _plain_pmrp(scores.T, labels[captions], labels)
    assert found["pmrp/t2i/R-P"] == pytest.approx(wanted)
    each = [found[f"pmrp/t2i/R-P<={z}"] for z in DISTANCES]
    assert found["pmrp/t2i/R-P"] == pytest.approx(np.mean(each))
    turned = PROTOCOLS["pmrp"].evaluate(
        scores.T, captions, np.arange(25), modalities=("text", "image"), **about
    )
    assert turned == pytest.approx(found)


def test_pmrp_in_folds_ranks_within_the_fold():
    from hmgr_jax.metrics.shared_labels import PMRP

    rng = np.random.default_rng(5)
    labels = _labels(rng, 20)
    captions = np.repeat(np.arange(20), 2)
    scores = rng.random((20, 40)).astype(np.float32)
    about = {"labels": {"image": labels, "text": labels[captions]}}
    found = PMRP("p", "", folds=2).evaluate(scores, np.arange(20), captions, **about)
    halves = [
        _plain_pmrp(
            scores[a : a + 10, 2 * a : 2 * a + 20],
            labels[a : a + 10],
            labels[captions][2 * a : 2 * a + 20],
        )
        for a in (0, 10)
    ]
    assert found["p/i2t/R-P"] == pytest.approx(np.mean(halves))


def test_pmrp_without_objects_is_refused():
    scores = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match=r"needs the objects of all 3 items .* data\.instances"):
        get_protocol("pmrp").evaluate(scores, np.arange(3), np.arange(3))
    none = {"image": np.zeros((3, 90), np.uint8), "text": np.zeros((3, 90), np.uint8)}
    with pytest.raises(UserError, match="no item with objects"):
        evaluate_all(["pmrp"], scores, np.arange(3), np.arange(3), labels=none)
    with pytest.raises(UserError, match="pmrp1k is defined on 5000"):
        evaluate_all(["pmrp1k"], scores, np.arange(3), np.arange(3), labels=none)
