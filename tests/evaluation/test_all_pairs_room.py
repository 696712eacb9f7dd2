"""Tiles bounded in bytes, and matrices that do not fit into memory."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import encoders, tiles
from hmgr_jax.evaluation.all_pairs import Bucket, score_matrix
from hmgr_jax.evaluation.arrays import Arrays
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.models.base import Model, regions_and_tokens

RNG = np.random.default_rng(0)


def fragments(n, words, dim=64):
    return {"w": RNG.standard_normal((n, words, dim)).astype(np.float32), "n": np.zeros(n)}


def test_a_tile_holds_at_most_its_bytes(monkeypatch):
    """Large items make small tiles, equal within a bucket; small ones are bounded by number."""
    an_item = 4 * 6 * 64 + 8
    monkeypatch.setattr(tiles, "TILE_BYTES", 5 * an_item + 7)
    short, long = fragments(20, 2), fragments(23, 6)
    buckets = tiles.as_buckets([Bucket(np.arange(20), short), Bucket(np.arange(20, 43), long)])
    cut = tiles.cut(buckets, 8)
    assert [tile.size for tile in cut] == [7] * 3 + [5] * 5
    for tile in cut:
        codes = jax.tree.map(lambda x, t=tile: x[: t.size], tile.bucket.codes)
        assert sum(x.nbytes for x in jax.tree.leaves(codes)) <= tiles.TILE_BYTES
    np.testing.assert_array_equal(np.concatenate([tile.items for tile in cut]), np.arange(43))
    assert [tile.size for tile in tiles.cut(buckets[1:], 8, devices=4)] == [12, 12]
    monkeypatch.setattr(tiles, "TILE_BYTES", an_item - 1)
    assert {tile.size for tile in tiles.cut(buckets[1:], 8)} == {1}


def test_the_budget_holds_on_the_way_to_the_devices(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 10_000)
    a, b = fragments(30, 4), fragments(50, 6)
    shapes = set()

    def score(x, y):
        shapes.add((len(x["w"]), len(y["w"])))
        return jax.numpy.einsum("and,bmd->ab", x["w"], y["w"])

    found = score_matrix(score, a, b, devices=jax.devices()[:2])
    expected = np.einsum("and,bmd->ab", a["w"], b["w"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert shapes == {(8, 5)}  # 9 and 6 would fit: 30 in 4 tiles, 50 in 5 of two devices


def test_a_matrix_beyond_memory_is_refused_before_anything_is_done(monkeypatch):
    monkeypatch.setattr(tiles, "free_memory_bytes", lambda: 4_000_000)
    a, b = np.zeros((1000, 1), np.float32), np.zeros((1001, 1), np.float32)

    def never(x, y):
        raise AssertionError

    with pytest.raises(UserError) as caught:
        score_matrix(never, a, b)
    assert str(caught.value) == (
        "The scores of 1,000 items with 1,001 items take 0.0 GB, but 0.0 GB of memory are free: "
        "evaluate a smaller split, or use a machine with more memory."
    )
    tiles.check_memory(1000, 1000)
    with pytest.raises(UserError):
        tiles.check_memory(1000, 1000, matrices=2)
    monkeypatch.setattr(tiles, "free_memory_bytes", lambda: None)
    tiles.check_memory(10**9, 10**9)


def test_the_train_split_of_coco_is_refused_here():
    """Nothing is encoded: the split has but sizes."""

    class Source:
        lengths = None

        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

    split = type("Split", (), {"sources": {"image": Source(113_287), "text": Source(566_435)}})
    evaluator = Evaluator(FragmentsOnly(), make_mesh(1))
    free = tiles.free_memory_bytes()
    if free is None or free > 256e9:
        pytest.skip("a large machine")
    with pytest.raises(UserError, match=r"113,287 items with 566,435 items take 256\.7 GB and the"):
        evaluator.metrics(None, split, ())


@dataclass(frozen=True)
class FragmentsOnly(Model):
    """Codes are 100 numbers a region or word."""

    modalities = ("image", "text")

    def inputs(self):
        return regions_and_tokens(36, 8)

    def encode(self, variables, modality, items, *, train, keys):
        (first, *_) = self.inputs()[modality]
        return jnp.ones((*items[first].shape[:2], 100)), None


def test_codes_count_each_at_its_padded_length(monkeypatch):
    """Of captions that are padded to 4, 4 and 8 words, and of pictures with 36 regions."""
    captions = [["red"] * words for words in (1, 2, 5)]
    words = CaptionSource(captions, Vocabulary((*MARKS, "red")))
    pictures = Arrays(
        {"regions": np.ones((2, 36, 8), np.float16)}, "image", regions_and_tokens(36, 8)["image"]
    )
    codes = 4 * 100 * (2 * 36 + 4 + 4 + 8)
    evaluator = Evaluator(FragmentsOnly(), make_mesh(1), batch_size=2, buckets=(8, 4, 16))
    held = sum(
        leaf.nbytes
        for modality, source in (("image", pictures), ("text", words))
        for bucket in tiles.as_buckets(evaluator.encode(None, modality, source))
        for leaf in jax.tree.leaves(bucket.codes)
    )
    assert held == codes
    split = type("Split", (), {"sources": {"image": pictures, "text": words}})
    matrix = 4 * 2 * 3
    monkeypatch.setattr(tiles, "free_memory_bytes", lambda: codes + matrix - 1)
    monkeypatch.setattr(Evaluator, "encode_split", lambda *_: pytest.fail("encoded"))
    with pytest.raises(UserError) as caught:
        next(evaluator.matrices(None, split))
    assert str(caught.value) == (
        "The scores of 2 items with 3 items take 0.0 GB and the codes of all items 0.0 GB, but 0.0 "
        "GB of memory are free: evaluate a smaller split, or use a machine with more memory."
    )
    monkeypatch.setattr(tiles, "free_memory_bytes", lambda: codes + matrix)
    with pytest.raises(pytest.fail.Exception, match="encoded"):
        next(evaluator.matrices(None, split))


def test_a_batch_is_cut_to_the_items_but_not_below_what_splits_share(monkeypatch):
    sizes = []

    def eval_batches(source, size, **_):
        sizes.append(size)
        yield np.arange(1), np.ones(1, bool), source.gather(np.arange(1))

    monkeypatch.setattr(encoders, "eval_batches", eval_batches)
    inputs = regions_and_tokens(36, 8)["image"]
    for count, batch_size in ((8, 100_000), (301, 100_000), (301, 100), (2000, 1000)):
        pictures = Arrays({"regions": np.ones((count, 36, 8), np.float16)}, "image", inputs)
        evaluator = Evaluator(FragmentsOnly(), make_mesh(1), batch_size=batch_size)
        evaluator.encode(None, "image", pictures)
    assert sizes == [256, 301, 100, 1000]


def test_free_memory_is_known_here_and_plausible():
    free = tiles.free_memory_bytes()
    assert free is None or 2**20 < free < 2**50
