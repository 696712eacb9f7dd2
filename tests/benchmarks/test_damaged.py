"""Removed words, regions and rectangles: the right ones, and nothing else changes."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.damaged import Erased, FewerRegions, FewerWords
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pipeline import eval_batches
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import END, START, Vocabulary
from hmgr_jax.evaluation.arrays import Arrays

pytestmark = pytest.mark.slow
NAMES = {"name": "regions", "number": "n_regions"}


@pytest.fixture(scope="module")
def worlds():
    return open_worlds(0, 4, 4, 12).splits["test"]


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_level_0_changes_nothing(worlds):
    items = np.array([7, 0, 3, 7])
    text, image = worlds.sources["text"], worlds.sources["image"]
    assert_same(FewerWords(text, 0).gather(items, 32), text.gather(items, 32))
    assert_same(FewerRegions(image, 0.0, **NAMES).gather(items), image.gather(items))
    pictures = _pictures()
    assert_same(Erased(pictures, 0.0).gather(items), pictures.gather(items))


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_count_of_words_is_removed(worlds, count):
    text = worlds.sources["text"]
    items = np.arange(len(text))
    source, whole = FewerWords(text, count), text.gather(items)
    found = source.gather(items, 32)
    np.testing.assert_array_equal(found["lengths"], source.lengths)
    np.testing.assert_array_equal(
        found["lengths"], np.maximum(whole["lengths"] - count, np.minimum(whole["lengths"], 3))
    )
    for before, length, after, left in zip(
        whole["tokens"], whole["lengths"], found["tokens"], found["lengths"], strict=True
    ):
        assert (after[0], after[left - 1]) == (START, END)
        assert not after[left:].any()
        rest = iter(before[:length].tolist())
        assert all(word in rest for word in after[:left].tolist())  # in their order


def test_words_are_drawn_by_seed_and_item(worlds):
    text, items = worlds.sources["text"], np.arange(20)
    once = FewerWords(text, 3).gather(items, 32)
    assert_same(FewerWords(text, 3).gather(items[::-1], 32), {k: v[::-1] for k, v in once.items()})
    other = FewerWords(text, 3, seed=1).gather(items, 32)
    assert (other["tokens"] != once["tokens"]).any()


def test_removed_words_stay_removed():
    words = Vocabulary.build([list("abcdefgh")], threshold=1)
    text = CaptionSource([list("abcdefgh")], words)
    left = [set(FewerWords(text, k).gather(np.array([0]))["tokens"][0].tolist()) for k in range(12)]
    assert [len(some) for some in left] == [10, 9, 8, 7, 6, 5, 4, 3, 3, 3, 3, 3]
    assert all(more > less for more, less in pairwise(left[:8]))


def test_shorter_captions_use_shorter_buckets(worlds):
    source = FewerWords(worlds.sources["text"], 6)
    lengths = [
        items["tokens"].shape[1]
        for _, valid, items in eval_batches(source, 8, buckets=(8, 12, 32))
        if valid.any()
    ]
    assert min(lengths) < max(lengths)


# --- regions ------------------------------------------------------------------------------------


def _regions():
    """Three images of 5, 3 and 1 true regions, of which each holds its own number."""
    counts = np.array([5, 3, 1], np.int32)
    true = np.arange(5) < counts[:, None]
    numbers = np.where(true, np.arange(1, 16).reshape(3, 5), 0)
    items = {
        "regions": np.repeat(numbers[..., None], 2, axis=2).astype(np.float32),
        "n_regions": counts,
        "labels": np.where(true, numbers, -1).astype(np.int16),
    }
    return Arrays(items, "image", {})


def test_the_share_of_regions_is_removed():
    whole = _regions().gather(np.arange(3))
    found = FewerRegions(_regions(), 0.4, **NAMES).gather(np.arange(3))
    assert found["n_regions"].tolist() == [3, 2, 1]
    for k, count in enumerate(found["n_regions"]):
        kept = found["regions"][k, :count, 0]
        assert (np.diff(kept) > 0).all()
        assert np.isin(kept, whole["regions"][k, : whole["n_regions"][k], 0]).all()
        assert not found["regions"][k, count:].any()
        np.testing.assert_array_equal(found["labels"][k, :count], kept)
        assert (found["labels"][k, count:] == -1).all()


def test_a_removed_region_is_removed_at_every_higher_level():
    left = [FewerRegions(_regions(), s / 5, **NAMES).gather(np.array([0])) for s in range(5)]
    sets = [set(x["labels"][0, : x["n_regions"][0]].tolist()) for x in left]
    assert [len(some) for some in sets] == [5, 4, 3, 2, 1]
    assert all(more > less for more, less in pairwise(sets))
    last = FewerRegions(_regions(), 0.99, **NAMES).gather(np.arange(3))
    assert last["n_regions"].tolist() == [1, 1, 1]


# --- pictures -----------------------------------------------------------------------------------


def _pictures(size=20):
    small = Augmentation(size=size, resize=size)
    return open_worlds(0, 4, 4, 8, True, augmentation=small).splits["test"].sources["image"]


def test_a_rectangle_is_erased():
    source, items = _pictures(), np.arange(8)
    whole = source.gather(items)["pixels"]
    erased = [Erased(source, share) for share in (0.1, 0.3, 0.6, 1.0)]
    before = np.zeros(whole.shape[:3], bool)
    for damaged in erased:
        found = damaged.gather(items)["pixels"]
        inside = np.zeros(whole.shape[:3], bool)
        for item in items:
            inside[item][damaged.rectangle(item, 20, 20)] = True
        assert not found[inside].any()
        np.testing.assert_array_equal(found[~inside], whole[~inside])
        np.testing.assert_allclose(inside.mean(axis=(1, 2)), damaged.share, atol=0.06)
        assert (inside | ~before).all()  # what was gone stays away
        before = inside
    assert erased[0].item_bytes == source.item_bytes == 20 * 20 * 3 * 4
    places = {str(erased[0].rectangle(item, 20, 20)) for item in range(8)}
    assert len(places) > 1
