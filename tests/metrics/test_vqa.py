"""VQA accuracy against an enumeration of the subsets of nine, and the normal form of answers."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.data.vqa.questions import Counts
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.answer_normalisation import normalised
from hmgr_jax.metrics.protocols import evaluate_all, get_protocol
from hmgr_jax.metrics.vqa import accuracies, accuracy_of, chosen
from hmgr_jax.models.xtra import soft_targets

COUNTS = np.arange(11)


def enumerated(count):
    """The mean over all subsets of nine of ten people, of whom ``count`` gave the answer."""
    people = [True] * count + [False] * (10 - count)
    subsets = combinations(people, 9)
    return float(np.mean([min(sum(nine) / 3, 1.0) for nine in subsets]))


def test_accuracy_is_the_mean_over_ten_choose_nine():
    np.testing.assert_allclose(accuracy_of(COUNTS), [enumerated(n) for n in COUNTS], atol=1e-12)


def test_targets_of_the_loss_are_accuracies_and_mcans_table():
    found = np.asarray(soft_targets(jnp.asarray(COUNTS[None], jnp.uint8)))[0]
    np.testing.assert_allclose(found, [enumerated(n) for n in COUNTS], atol=1e-6)
    np.testing.assert_allclose(found[:5], [0, 0.3, 0.6, 0.9, 1.0], atol=1e-6)


def test_a_tie_counts_against_the_model():
    counts = np.array([[10, 0, 0], [0, 3, 7]], np.uint8)
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    np.testing.assert_allclose(accuracies(scores, counts), [0.0, 0.9])
    assert chosen(scores).tolist() == [0, 1]


def sides(labels, kinds):
    groups = np.zeros(4, np.int32), np.arange(3, dtype=np.int32)
    about = {"labels": {"question": labels} if labels is not None else {}, "kinds": kinds}
    return *groups, {"modalities": ("question", "answer"), **about}


def test_the_protocol_tells_kinds_apart():
    counts = Counts([{0: 10}, {1: 2, 2: 8}, {}, {2: 3}], 3)
    scores = np.array([[2, 1, 0], [0, 2, 1], [1, 0, 0], [0, 0, 1]], np.float32)
    a, b, about = sides(counts, {"question": np.array(["seen", "fact", "fact", "seen"])})
    found = evaluate_all(("vqa",), scores, a, b, **about)
    assert found == pytest.approx({"vqa/accuracy": 62.5, "vqa/seen": 95.0, "vqa/fact": 30.0})
    assert get_protocol("vqa").names(("question", "answer")) == ["vqa/accuracy"]


def test_unannotated_questions_have_no_accuracy():
    a, b, about = sides(None, {})
    assert evaluate_all(("vqa",), np.zeros((4, 3), np.float32), a, b, **about) == {}


def test_rejects_bad_answers():
    a, b, about = sides(Counts([{0: 10}] * 4, 3), {})
    with pytest.raises(FoundNonFinite):
        evaluate_all(("vqa",), np.full((4, 3), np.nan), a, b, **about)
    with pytest.raises(UserError, match="questions and their answers, found image and text"):
        evaluate_all(("vqa",), np.zeros((4, 3)), a, b, **{**about, "modalities": ("image", "text")})


def test_counts_read_like_a_dense_array():
    given = [{3: 2, 0: 8}, {}, {1: 10}]
    dense = np.zeros((3, 5), np.uint8)
    for row, one in zip(dense, given, strict=True):
        for answer, count in one.items():
            row[answer] = count
    counts = Counts(given, 5)
    assert (counts.shape, len(counts), counts.dtype) == (dense.shape, 3, dense.dtype)
    for items in (np.array([2, 0, 0]), slice(None), slice(1, 3), dense.any(axis=1)):
        np.testing.assert_array_equal(counts[items], dense[items])
    assert counts.commonest().tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dog.", "dog"),
        ("a red  car\n", "red car"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("its", "its"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("u.s.", "us"),
        ("black-and-white", "black and white"),
        ("yes, sir!", "yes sir"),
        ("t-shirt", "t shirt"),
        ("10:30", "10:30"),
        ("on the table (left)", "on table left"),
        ("", ""),
    ],
)
def test_normal_forms(answer, normal):
    assert normalised(answer) == normal
    assert normalised(normal) == normal
