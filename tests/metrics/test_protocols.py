"""Protocols by hand: folds by slicing, families by looking, and sizes that do not fit."""

import csv
import dataclasses

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.directions import both_directions, direction
from hmgr_jax.metrics.protocols import (
    PROTOCOLS,
    Folds,
    evaluate_all,
    get_protocol,
    over_pairs,
    pairs_of,
)
from hmgr_jax.metrics.ranks import count_ties, ranks, recalls

SMALL_FOLDS = Folds("coco1k", "five folds of four", items=20)


def scene(captions_per_image, seed=0):
    """Scores with some signal, images in shuffled group numbers, captions in the images' order."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(len(captions_per_image)) + 100
    captions = np.repeat(images, captions_per_image)
    scores = rng.standard_normal((len(images), len(captions))).astype(np.float32)
    return scores + 2 * (images[:, None] == captions), images, captions


def test_directions_are_named_by_modality():
    assert direction("image", "text") == "i2t"
    assert direction("text", "image") == "t2i"
    assert direction("video", "text") == "v2t"
    assert direction("image", "point") == "image2point"
    assert direction("image", "video") == "image2video"
    assert direction("text", "mesh") == "text2mesh"


@pytest.mark.parametrize("name", ["plain", "f8k", "f30k", "worlds"])
def test_plain_protocols_rank_the_one_matrix(name):
    scores, images, captions = scene([5] * 12)
    found = PROTOCOLS[name].evaluate(scores, images, captions)
    assert found == both_directions(scores, images, captions)
    assert found["rsum"] == pytest.approx(sum(v for k, v in found.items() if "R@" in k))
    assert 0 < found["t2i/R@1"] < 100
    assert len(found) == 11


def test_the_order_of_the_sides_only_swaps_the_names():
    scores, images, captions = scene([5] * 12)
    found = PROTOCOLS["plain"].evaluate(scores, images, captions)
    turned = PROTOCOLS["plain"].evaluate(scores.T, captions, images, modalities=("text", "image"))
    assert turned == pytest.approx(found)


@pytest.mark.parametrize("counts", [[5] * 20, [1 + i % 6 for i in range(20)]])
def test_folds_are_the_mean_of_consecutive_slices(counts):
    scores, images, captions = scene(counts)
    edges = np.concatenate([[0], np.cumsum(counts)])
    slices = [(slice(i, i + 4), slice(edges[i], edges[i + 4])) for i in range(0, 20, 4)]
    parts = [both_directions(scores[a, b], images[a], captions[b]) for a, b in slices]
    expected = {f"coco1k/{name}": np.mean([p[name] for p in parts]) for name in parts[0]}
    assert SMALL_FOLDS.evaluate(scores, images, captions) == pytest.approx(expected)


def test_captions_follow_their_image_whatever_their_order():
    scores, images, captions = scene([1 + i % 6 for i in range(20)])
    shuffled = np.random.default_rng(1).permutation(len(captions))
    found = SMALL_FOLDS.evaluate(scores[:, shuffled], images, captions[shuffled])
    assert found == pytest.approx(SMALL_FOLDS.evaluate(scores, images, captions))
    turned = SMALL_FOLDS.evaluate(scores.T, captions, images, modalities=("text", "image"))
    assert turned == pytest.approx(found)


def test_registered_coco_protocols_at_their_real_size():
    rng = np.random.default_rng(0)
    images = np.arange(5000)
    scores = rng.standard_normal((5000, 5000), np.float32)
    scores[images, images] += 3
    found = evaluate_all(("coco5k", "coco1k"), scores, images, images)
    folds = [scores[i : i + 1000, i : i + 1000] for i in range(0, 5000, 1000)]
    first = [100 * np.mean(f.argmax(1) == np.arange(1000)) for f in folds]
    assert found["coco1k/i2t/R@1"] == pytest.approx(np.mean(first))
    assert found["i2t/R@1"] == pytest.approx(100 * np.mean(scores.argmax(1) == images))
    assert found["coco1k/i2t/R@1"] > found["i2t/R@1"]


@pytest.mark.parametrize("name", ["coco5k", "coco1k"])
def test_coco_refuses_other_sizes(name):
    scores, images, captions = scene([5] * 20)
    with pytest.raises(UserError, match=f"{name} is defined on 5000 distinct images, found 20"):
        PROTOCOLS[name].evaluate(scores, images, captions)
    with pytest.raises(UserError, match="found 20"):
        PROTOCOLS[name].evaluate(scores.T, captions, images, modalities=("text", "image"))


def test_folds_refuse_repeated_images_and_captions_without_image():
    scores, images, captions = scene([1] * 20)
    repeated = np.where(images == images[0], images[1], images)
    with pytest.raises(UserError, match="found 19 distinct among 20"):
        SMALL_FOLDS.evaluate(scores, repeated, captions)
    with pytest.raises(UserError, match="captions without an image"):
        SMALL_FOLDS.evaluate(scores, images, captions + 1)


@pytest.mark.parametrize("name", ["plain", "coco1k", "family"])
def test_scores_of_another_size_or_not_finite_are_refused(name):
    protocol = {**PROTOCOLS, "coco1k": SMALL_FOLDS}[name]
    scores, images, captions = scene([1] * 20)
    families = {"image": images // 2, "text": captions // 2}
    with pytest.raises(UserError, match=r"\(20, 21\)"):
        protocol.evaluate(np.pad(scores, ((0, 0), (0, 1))), images, captions, families=families)
    scores[13, 15] = np.nan
    with pytest.raises(FoundNonFinite, match="row 13, column 15"):
        protocol.evaluate(scores, images, captions, families=families)


# Two families: scenes 0, 1, 2 and scenes 3, 4 (two captions); scene 5 has no sibling.
FAMILIES = {"image": np.array([7, 7, 7, 9, 9, 8]), "text": np.array([7, 7, 7, 9, 9, 9, 8])}
CAPTIONS = np.array([0, 1, 2, 3, 4, 4, 5])
FAMILY_SCORES = np.float32(
    [
        # 0  1  2  3  4  4  5
        [5, 1, 4, 9, 9, 9, 9],
        [2, 3, 4, 9, 9, 9, 9],
        [1, 2, 4, 9, 9, 9, 9],
        [9, 9, 9, 6, 2, 7, 9],
        [9, 9, 9, 5, 4, 6, 9],
        [9, 9, 9, 9, 9, 9, 0],
    ]
)


def test_family_accuracy_by_hand():
    found = PROTOCOLS["family"].evaluate(FAMILY_SCORES, np.arange(6), CAPTIONS, families=FAMILIES)
    # Right: captions 0, 1, 3 and the first of scene 4; caption 2 ties, the second of 4 prefers 3.
    # Images: 0 and 2 right, 1 prefers caption 2, 3 prefers a caption of 4, 4 right by its best one.
    assert found == pytest.approx({"family/accuracy": 400 / 6, "family/i2t": 60.0})
    turned = PROTOCOLS["family"].evaluate(
        FAMILY_SCORES.T, CAPTIONS, np.arange(6), modalities=("text", "image"), families=FAMILIES
    )
    assert turned == pytest.approx(found)


def test_family_without_families_or_siblings_is_refused():
    family = PROTOCOLS["family"]
    with pytest.raises(UserError, match="all 6 items of modality image, found 0"):
        family.evaluate(FAMILY_SCORES, np.arange(6), CAPTIONS)
    alone = {"image": np.arange(6), "text": CAPTIONS}
    with pytest.raises(UserError, match="at least two scenes"):
        family.evaluate(FAMILY_SCORES, np.arange(6), CAPTIONS, families=alone)


def test_several_protocols_at_once():
    found = evaluate_all(
        ("worlds", "family"), FAMILY_SCORES, np.arange(6), CAPTIONS, families=FAMILIES
    )
    assert found["family/accuracy"] == pytest.approx(400 / 6)
    assert "t2i/R@1" in found
    with pytest.raises(UserError, match=r"'coco': choose from .*f30k, coco5k, coco1k"):
        evaluate_all(("worlds", "coco"), FAMILY_SCORES, np.arange(6), CAPTIONS)


def test_every_protocol_says_in_one_line_what_it_is():
    for name, protocol in PROTOCOLS.items():
        assert get_protocol(name) is protocol
        assert protocol.name == name
        assert 20 < len(protocol.description) < 100
        assert "\n" not in protocol.description
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["f30k"].name = "other"


# --- clips --------------------------------------------------------------------------------------

CLIPS = ("video", "text")


def test_clips_with_many_captions():
    """A clip counts its best caption, and every caption is a query."""
    scores = np.array([[0.9, 0.1, 0.8, 0.2], [0.3, 0.7, 0.6, 0.1]], np.float32)
    found = PROTOCOLS["msrvtt"].evaluate(
        scores, np.array([0, 1]), np.array([0, 0, 1, 1]), modalities=CLIPS
    )
    assert (found["v2t/R@1"], found["v2t/meanR"]) == (50.0, 1.5)  # clip 1: 0.6 after 0.7
    assert (found["t2v/R@1"], found["t2v/meanR"]) == (25.0, 1.75)
    scores, clips, captions = scene([1 + i % 20 for i in range(30)])
    found = PROTOCOLS["msrvtt"].evaluate(scores, clips, captions, modalities=CLIPS)
    assert found == both_directions(scores, clips, captions, modalities=CLIPS)
    assert {name.partition("/")[0] for name in found} == {"v2t", "t2v", "rsum"}


def test_1ka_is_a_thousand_pairs():
    small = dataclasses.replace(get_protocol("msrvtt1ka"), items=4)
    scores, pairs = np.eye(4, dtype=np.float32), np.arange(4)
    assert small.evaluate(scores, pairs, pairs, modalities=CLIPS)["rsum"] == 600
    with pytest.raises(UserError, match="defined on 1000 distinct clips, found 4"):
        get_protocol("msrvtt1ka").evaluate(scores, pairs, pairs, modalities=CLIPS)
    twice = np.repeat(pairs, 2)
    with pytest.raises(UserError, match="one caption an item, found sides of 4 and 8"):
        small.evaluate(np.repeat(scores, 2, axis=1), pairs, twice, modalities=CLIPS)
    with pytest.raises(UserError, match="one caption an item"):
        small.evaluate(scores, pairs, np.array([0, 1, 2, 2]), modalities=CLIPS)


@pytest.mark.parametrize(
    ("name", "t2v", "v2t", "tied"),
    [
        ("video", (48.0, 73.0, 82.9), (45.6, 74.1, 82.7), (46.0, 74.1, 82.8)),
        ("titles", (29.7, 55.8, 66.6), (28.1, 54.9, 66.8), (28.4, 54.9, 66.8)),
    ],
)
def test_real_matrices_of_1ka(real_data, name, t2v, v2t, tied):
    """Rows are the captions, in the order of the list: rows of equal captions are equal.

    Their note has 45.7 and 28.4 for R@1 of the columns, ranked by sorting; five captions stand
    beside two or three clips, so that columns tie, which here counts against the model.
    """
    folder = real_data / "msrvtt_1ka"
    with open(folder / "MSRVTT_JSFUSION_test.csv", newline="") as file:
        captions = [row["sentence"] for row in csv.DictReader(file)]
    scores, pairs = np.load(folder / f"msrvtt_{name}_matrix.npy"), np.arange(1000)
    of_first = np.array([captions.index(caption) for caption in captions])
    np.testing.assert_array_equal(scores[of_first], scores)
    assert len(set(captions)) == 995

    found = evaluate_all(("msrvtt1ka",), scores, pairs, pairs, modalities=("text", "video"))
    assert tuple(found[f"t2v/R@{k}"] for k in (1, 5, 10)) == pytest.approx(t2v)
    assert tuple(found[f"v2t/R@{k}"] for k in (1, 5, 10)) == pytest.approx(v2t)
    best = recalls(ranks(scores.T, pairs, pairs) - count_ties(scores.T, pairs, pairs))
    assert tuple(best[f"R@{k}"] for k in (1, 5, 10)) == pytest.approx(tied)


def test_several_pairs_do_not_overwrite_one_another():
    first = {"image2mesh/mAP": 10.0, "mesh2image/mAP": 30.0, "mAP": 20.0, "rsum": 100.0}
    second = {"image2point/mAP": 50.0, "point2image/mAP": 70.0, "mAP": 60.0, "rsum": 200.0}
    within = {"mesh2mesh/mAP": 90.0}
    found = over_pairs([first, second, within])
    assert found == {**first, **second, **within, "mAP": 40.0, "rsum": 300.0}
    assert over_pairs([first]) == first


def test_pairs_of_modalities():
    three = ("image", "point", "mesh")
    two = [("image", "point"), ("image", "mesh"), ("point", "mesh")]
    assert pairs_of(("plain", "map"), three) == two
    assert pairs_of(("plain", "modelnet"), three) == two + [(m, m) for m in three]
