"""Protocols by hand: folds by slicing, families by looking, and sizes that do not fit."""

import dataclasses

import numpy as np
import pytest

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.directions import both_directions, direction
from hmgr_jax.metrics.protocols import PROTOCOLS, Folds, evaluate_all, get_protocol

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
