"""Batches: a pure function of (seed, step), whatever the start, processes, padding and threads."""

import dataclasses
import pickle
from itertools import pairwise

import numpy as np
import pytest

from hmgr_jax.data.order import steps_per_epoch
from hmgr_jax.data.pipeline import Batches, batches, eval_batches
from hmgr_jax.data.split import Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

IMAGES, CAPTIONS = 12, 3
BUCKETS = (8, 12, 24)


class Numbers:
    """A source whose item i is the number i."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return self.count

    def gather(self, items: np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        return {"number": np.asarray(items, np.int32)}


def make_split(images: int = IMAGES, family: int = 0, captions: int = CAPTIONS) -> Split:
    """Images of ``captions`` captions each, of 3 to 20 tokens; families of ``family`` images."""
    number = np.arange(images, dtype=np.int32)
    image = np.repeat(number, captions)
    lists = [["word"] * (1 + (7 * i) % 18) for i in range(len(image))]
    return Split(
        name="train",
        sources={
            "image": Numbers(images),
            "text": CaptionSource(lists, Vocabulary((*MARKS, "word"))),
        },
        groups={"image": number, "text": image},
        rows={"image": image, "text": np.arange(len(image), dtype=np.int32)},
        ids={"image": [], "text": []},
        families={"image": number % (images // family)} if family else {},
    )


def _equal(a, b):
    assert a.keys() == b.keys()
    for part in a:
        assert a[part].keys() == b[part].keys()
        for name in a[part]:
            assert a[part][name].dtype == b[part][name].dtype
            np.testing.assert_array_equal(a[part][name], b[part][name])


def _read(split, **options):
    options = {"batch_size": 5, "seed": 3, "steps": 20, "buckets": BUCKETS} | options
    return list(batches(split, **options))


@pytest.mark.parametrize("batching", ["rows", "groups"])
def test_every_start_gives_the_same_rest(batching):
    """Over three epochs (7 steps of rows, 2 of groups), edges included."""
    split = make_split()
    whole = _read(split, batching=batching)
    assert len(whole) == 20
    for start in range(21):
        rest = _read(split, batching=batching, start=start)
        assert len(rest) == 20 - start
        for a, b in zip(whole[start:], rest, strict=True):
            _equal(a, b)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_the_order(threads):
    split = make_split()
    for a, b in zip(_read(split), _read(split, threads=threads), strict=True):
        _equal(a, b)


def test_seed_and_step_are_the_only_arguments():
    split = make_split()
    of_step = Batches(split, batch_size=5, seed=3, buckets=BUCKETS)
    for step, batch in reversed(list(enumerate(_read(split)))):
        _equal(of_step[step], batch)
    other = Batches(split, batch_size=5, seed=4, buckets=BUCKETS)
    assert (other[0]["row"]["item"] != of_step[0]["row"]["item"]).any()


def test_an_epoch_has_every_row_at_most_once_and_is_shuffled_anew():
    split = make_split()
    assert steps_per_epoch(split, 5) == 7
    items = [b["row"]["item"] for b in _read(split, steps=21)]
    epochs = [np.concatenate(items[i : i + 7]) for i in (0, 7, 14)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 35
    for a, b in pairwise(epochs):
        assert (a != b).any()
    assert len({frozenset(epoch.tolist()) for epoch in epochs}) > 1  # the rest dropped varies


def test_rows_pair_the_modalities():
    split = make_split()
    for batch in _read(split):
        item = batch["row"]["item"]
        np.testing.assert_array_equal(batch["image"]["number"], item // CAPTIONS)
        np.testing.assert_array_equal(batch["row"]["group"], item // CAPTIONS)
        np.testing.assert_array_equal(batch["text"]["lengths"], split.sources["text"].lengths[item])
        np.testing.assert_array_equal(batch["row"]["index"], np.arange(5))
        assert batch["row"]["valid"].all()
        assert batch["row"]["item"].dtype == batch["row"]["group"].dtype == np.int32


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("pad_to", [4, 8])
def test_processes_together_read_the_global_batch(count, pad_to):
    """The bucket comes from the global batch: each share has the shape of the whole."""
    split = make_split()
    options = {"batch_size": 6, "pad_to": pad_to, "buckets": range(3, 21)}
    whole = _read(split, **options)
    shares = [_read(split, **options, process=(i, count)) for i in range(count)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        joined = {
            part: {k: np.concatenate([p[part][k] for p in parts]) for k in batch[part]}
            for part in batch
        }
        _equal(joined, batch)
    assert len({batch["text"]["tokens"].shape for batch in whole}) > 1


def test_padding_repeats_the_first_row_as_invalid():
    split = make_split()
    for plain, padded in zip(_read(split), _read(split, pad_to=8), strict=True):
        np.testing.assert_array_equal(padded["row"]["index"], np.arange(8))
        np.testing.assert_array_equal(padded["row"]["valid"], np.arange(8) < 5)
        for part, fields in plain.items():
            for name, values in fields.items():
                np.testing.assert_array_equal(padded[part][name][:5], values)
                if name not in ("index", "valid"):
                    expected = np.repeat(values[:1], 3, axis=0)
                    np.testing.assert_array_equal(padded[part][name][5:], expected)


def test_buckets_are_the_smallest_that_hold_the_batch():
    for batch in _read(make_split(), batch_size=2):
        length = batch["text"]["tokens"].shape[1]
        assert length == next(b for b in BUCKETS if b >= batch["text"]["lengths"].max())


def test_groups_give_every_image_once_with_one_of_its_captions():
    split = make_split()
    assert steps_per_epoch(split, 4, "groups") == 3
    found = [b["row"]["item"] for b in _read(split, batch_size=4, steps=60, batching="groups")]
    chosen = set()
    for epoch in range(20):
        rows = np.concatenate(found[3 * epoch : 3 * epoch + 3])
        assert sorted((rows // CAPTIONS).tolist()) == list(range(IMAGES))
        chosen |= set(rows.tolist())
    assert chosen == set(range(IMAGES * CAPTIONS))


def test_whole_families_lie_interleaved():
    split = make_split(family=4)
    for batch in _read(split, batch_size=8, batching="groups"):
        families = split.families["image"][batch["image"]["number"]]
        assert len(set(batch["image"]["number"].tolist())) == 8
        assert families[0] != families[1]
        for start in (0, 2, 4, 6):
            assert families[start : start + 2].tolist() == families[:2].tolist()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 37}, "the batch size is 37 rows but train has only 36"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 13, "batching": "groups"}, "only 12: lower"),
        ({"batching": "images"}, r'"rows", "groups" or "classes"'),
        (
            {"buckets": (8, 16)},
            "train's text holds an item of length 20, but the last bucket is 16",
        ),
    ],
)
def test_rejects_bad_batch_settings(options, sentence):
    with pytest.raises(UserError, match=sentence):
        _read(make_split(), **options)


def test_families_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"families of .* have 4 members"):
        _read(make_split(family=4), batch_size=6, batching="groups")
    uneven = make_split()
    uneven.families["image"] = np.arange(IMAGES) // 5  # type: ignore[index]
    with pytest.raises(UserError, match="2 to 5 members"):
        _read(uneven, batching="groups")
    lonely = make_split()
    lonely.sources["image"].count += 1
    with pytest.raises(UserError, match="image 12 of train has no caption"):
        _read(lonely, batching="groups")


def test_pickled_batches_go_on():
    split = make_split()
    of_step = Batches(split, batch_size=5, seed=3, buckets=BUCKETS, batching="groups")
    copy = pickle.loads(pickle.dumps(of_step))
    for step in (0, 9):
        _equal(copy[step], of_step[step])
    stream = pickle.loads(pickle.dumps(batches(split, batch_size=5, seed=3, steps=4)))
    assert len(list(stream)) == 4


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_evaluation_sees_every_item_once(batch_size):
    source = make_split().sources["text"]
    seen = []
    for items, valid, found in eval_batches(source, batch_size, buckets=BUCKETS):
        assert items.shape == valid.shape == (batch_size,)
        assert found["tokens"].shape in {(batch_size, bucket) for bucket in BUCKETS}
        np.testing.assert_array_equal(found["lengths"], source.lengths[items])
        assert (items[~valid] == items[0]).all()
        seen += items[valid].tolist()
    assert sorted(seen) == list(range(IMAGES * CAPTIONS))


def test_evaluation_of_items_without_lengths_goes_in_order():
    found = list(eval_batches(Numbers(7), 3))
    assert [items.tolist() for items, _, _ in found] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert found[-1][1].tolist() == [True, False, False]
    assert list(eval_batches(Numbers(0), 3)) == []


def _classes(sizes):
    """Images of classes of these sizes, dealt out in turns, three captions each."""
    split = make_split(sum(sizes))
    group = np.repeat(np.arange(len(sizes)) * 10, sizes).astype(np.int32)
    group = group[np.random.default_rng(0).permutation(len(group))]
    groups = {"image": group, "text": group[split.rows["image"]]}
    return dataclasses.replace(split, groups=groups)


def test_class_balanced_batches_hold_one_row_a_class():
    split = _classes([2, 5, 3])
    found = _read(split, batching="classes", batch_size=3, steps=40)
    assert steps_per_epoch(split, 3, "classes") == 10
    for batch in found:
        assert sorted(batch["row"]["group"].tolist()) == [0, 10, 20]
    assert len({tuple(batch["row"]["group"].tolist()) for batch in found}) > 1
    for number, size in ((0, 6), (10, 15), (20, 9)):
        items = [int(b["row"]["item"][b["row"]["group"] == number][0]) for b in found]
        for start in range(0, 40 - size, size):
            assert len(set(items[start : start + size])) == size  # all, before any comes again
        assert items[:size] != items[size : 2 * size]


def test_smaller_class_balanced_batches_take_turns():
    split = _classes([2, 3, 2, 3])
    found = _read(split, batching="classes", batch_size=2, steps=8)
    for a, b in zip(found[::2], found[1::2], strict=True):
        both = [*a["row"]["group"].tolist(), *b["row"]["group"].tolist()]
        assert sorted(both) == [0, 10, 20, 30]
    for k, batch in enumerate(_read(split, batching="classes", batch_size=2, steps=8, start=3)):
        _equal(batch, found[3 + k])
    with pytest.raises(UserError, match=r"does not divide the 4 classes .* or a divisor of it"):
        _read(split, batching="classes", batch_size=3)


def test_rows_of_a_split_with_labels_have_theirs():
    split = make_split()
    labels = np.eye(IMAGES, dtype=np.uint8)
    first = next(iter(split.sources))
    labelled = dataclasses.replace(split, labels={first: labels})
    batch = Batches(labelled, batch_size=4, seed=0, pad_to=3, buckets=BUCKETS)[1]
    images = split.rows[first][batch["row"]["item"]]
    np.testing.assert_array_equal(batch["row"]["labels"], labels[images])
    assert "labels" not in Batches(split, batch_size=4, seed=0, buckets=BUCKETS)[1]["row"]
