"""ECCV Caption and CxC: by hand on lists of our own, and against the package where it is there."""

import sys
import types
import warnings

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.metrics import coco_protocols
from hmgr_jax.metrics.coco_protocols import Listed, retrieved
from hmgr_jax.metrics.protocols import PROTOCOLS

IMAGES = np.array([100, 200, 300, 400])
CAPTIONS = np.array([1, 2, 3, 4, 5, 6, 7, 8])
RIGHT = {"i2t": {100: [1, 2, 5], 300: [5]}, "t2i": {2: [100], 5: [300, 100]}}
EVERYTHING = {
    "i2t": {n: [2 * i + 1, 2 * i + 2] for i, n in enumerate(IMAGES.tolist())},
    "t2i": {n: [int(IMAGES[(n - 1) // 2])] for n in CAPTIONS.tolist()},
}
ABOUT = {"numbers": {"image": IMAGES, "text": CAPTIONS}}
SCORES = np.zeros((4, 8), np.float32)
SCORES[0] = [8, 7, 6, 5, 4, 3, 2, 1]  # 100: 1, 2 right, 3 wrong; 5 comes fifth
SCORES[2] = [1, 9, 1, 1, 5, 1, 1, 1]  # 300: 5 comes second


@pytest.fixture
def lists(monkeypatch):
    """The package with lists of our own."""
    package = types.ModuleType("eccv_caption")
    gts = {"eccv_gts": RIGHT, "cxc_gts": RIGHT, "coco_gts": EVERYTHING}
    package.Metrics = lambda: types.SimpleNamespace(**gts)
    monkeypatch.setitem(sys.modules, "eccv_caption", package)
    coco_protocols.ground_truth.cache_clear()
    yield
    coco_protocols.ground_truth.cache_clear()


def _evaluate(name, scores=SCORES, **about):
    sides = (np.arange(4), np.repeat(np.arange(4), 2))
    return Listed(name, "").evaluate(scores, *sides, **{**ABOUT, **about})


@pytest.mark.usefixtures("lists")
def test_by_hand():
    found = _evaluate("eccv")
    assert list(found) == Listed("eccv", "").names(("image", "text"))
    assert found["eccv/i2t/R@1"] == 50
    assert found["eccv/i2t/R-P"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found["eccv/i2t/mAP@R"] == pytest.approx(100 * ((1 + 1) / 3 + 0) / 2)
    # Caption 2: image 300 (9) before 100 (7). Caption 5: 300 (5), then 100 (4).
    assert found["eccv/t2i/R@1"] == 50
    assert found["eccv/t2i/R-P"] == pytest.approx(50)
    assert found["eccv/t2i/mAP@R"] == pytest.approx(50)
    recalls = _evaluate("cxc")
    assert recalls["cxc/i2t/R@1"] == recalls["cxc/t2i/R@1"] == 50
    assert recalls["cxc/i2t/R@5"] == recalls["cxc/t2i/R@5"] == 100


@pytest.mark.usefixtures("lists")
def test_the_order_of_images_and_captions_does_not_matter():
    rows, columns = np.array([2, 0, 3, 1]), np.array([7, 3, 1, 0, 4, 2, 6, 5])
    mixed = {"numbers": {"image": IMAGES[rows], "text": CAPTIONS[columns]}}
    found = _evaluate("eccv", SCORES[rows][:, columns], **mixed)
    assert found == _evaluate("eccv")


@pytest.mark.usefixtures("lists")
def test_numbers_must_be_there():
    with pytest.raises(
        UserError, match=r"COCO ids of all 4 items of modality image.* data\.numbered"
    ):
        _evaluate("eccv", numbers={})
    other = {"image": IMAGES, "text": CAPTIONS + 4}
    with pytest.raises(UserError, match=r"4 of its text items are missing, such as 1"):
        _evaluate("cxc", numbers=other)
    with pytest.raises(UserError, match="eccv is defined on 5000 distinct images, found 4"):
        PROTOCOLS["eccv"].evaluate(SCORES, np.arange(4), np.repeat(np.arange(4), 2), **ABOUT)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "eccv_caption", None)
    coco_protocols.ground_truth.cache_clear()
    with pytest.raises(UserError, match=r"need the package eccv_caption: .*hmgr-jax\[eccv\]"):
        _evaluate("eccv")
    assert PROTOCOLS["cxc"].names(("image", "text"))[0] == "cxc/i2t/R@1"


def test_lists_of_what_was_retrieved():
    found = retrieved(SCORES, IMAGES, CAPTIONS, 3)
    assert found == {100: [1, 2, 3], 200: [1, 2, 3], 300: [2, 5, 1], 400: [1, 2, 3]}


@pytest.mark.slow
def test_against_the_package():
    """All of COCO's 5,000 x 25,000: pairs that are right are drawn to the front."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("eccv_caption").Metrics()
    t2i = package.coco_gts["t2i"]
    captions = package.coco_ids.astype(np.int64)
    images = np.array(list(dict.fromkeys(t2i[c][0] for c in captions.tolist())), np.int64)
    rng = np.random.default_rng(0)
    scores = rng.random((5000, 25000), np.float32)
    row = {n: i for i, n in enumerate(images.tolist())}
    column = {n: j for j, n in enumerate(captions.tolist())}
    for image, right in package.eccv_gts["i2t"].items():
        there = [column[c] for c in right if c in column]  # two of ECCV Caption's are not
        scores[row[image], there] += rng.random(len(there), np.float32)
    group = np.array([row[t2i[c][0]] for c in captions.tolist()])
    about = {"numbers": {"image": images, "text": captions}}
    wanted = package.compute_all_metrics(
        retrieved(scores, images, captions),
        retrieved(scores.T, captions, images),
        target_metrics=("eccv_r1", "eccv_map_at_r", "eccv_rprecision", "cxc_recalls"),
    )
    for name, ours in (
        ("eccv_r1", "eccv/{}/R@1"),
        ("eccv_map_at_r", "eccv/{}/mAP@R"),
        ("eccv_rprecision", "eccv/{}/R-P"),
        ("cxc_r1", "cxc/{}/R@1"),
        ("cxc_r5", "cxc/{}/R@5"),
        ("cxc_r10", "cxc/{}/R@10"),
    ):
        found = PROTOCOLS[ours.split("/")[0]].evaluate(scores, np.arange(5000), group, **about)
        for way in ("i2t", "t2i"):
            assert found[ours.format(way)] == pytest.approx(100 * wanted[name][way], abs=1e-9)
