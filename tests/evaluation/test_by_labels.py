"""Precision-recall curves, and queries whose gallery are the training items."""

from types import SimpleNamespace

import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import by_labels
from hmgr_jax.evaluation.evaluate import Scored
from hmgr_jax.metrics.precision import average_precisions
from hmgr_jax.reports import precision_recall

SIZES = {"image": 6, "text": 9}


def split(count, labelled=True, seed=0):
    rng = np.random.default_rng(seed)
    sources = {m: np.zeros(count + k) for k, m in enumerate(SIZES)}
    labels = {m: np.eye(3, dtype=np.uint8)[rng.integers(0, 3, len(s))] for m, s in sources.items()}
    return SimpleNamespace(sources=sources, labels=labels if labelled else {})


class FakeEvaluator:
    """Codes are the source and its side; scores are drawn for the two sizes."""

    model = SimpleNamespace(modalities=("image", "text"))

    def encode(self, variables, modality, source):
        return len(source)

    def scores(self, variables, a, codes_a, b, codes_b):
        assert (a, b) == ("image", "text")
        return drawn(codes_a, codes_b)


def drawn(rows, columns):
    return np.random.default_rng(rows * columns).random((rows, columns)).astype(np.float32)


def test_test_items_search_training_items():
    queries, train = split(5), split(11, seed=1)
    found = by_labels.against_train(
        FakeEvaluator(), None, queries, train, ("plain", "map", "map_relevant")
    )
    right = queries.labels["image"] @ train.labels["text"].T > 0
    wanted = average_precisions(drawn(5, 12), lambda i, j: right[i:j], (None,))[0].mean()
    assert found["train_gallery/i2t/mAP"] == pytest.approx(100 * wanted)
    right = queries.labels["text"] @ train.labels["image"].T > 0
    wanted = average_precisions(drawn(11, 6).T, lambda i, j: right[i:j], (None,))[0].mean()
    assert found["train_gallery/t2i/mAP"] == pytest.approx(100 * wanted)
    assert "train_gallery/map_relevant/t2i/mAP@50" in found
    assert len(found) == 12


@pytest.mark.parametrize("lacking", ["protocol", "labels"])
def test_train_galleries_need_labels_and_their_protocol(lacking):
    protocols = ("plain",) if lacking == "protocol" else ("map",)
    train = split(11, labelled=lacking != "labels")
    with pytest.raises(UserError, match=r"eval\.train_gallery needs labels of test and train"):
        by_labels.against_train(FakeEvaluator(), None, split(5), train, protocols)


def test_curves_are_drawn_where_labels_are_asked_for(tmp_path):
    own = split(5)
    scored = Scored(("image", "text"), drawn(5, 6), {})
    for protocols, expected in ((("plain",), False), (("plain", "map"), True)):
        report = precision_recall.reporter(tmp_path, own, protocols, title="gpldan on worlds, test")
        assert report(scored) == {}
        assert (tmp_path / "precision_recall.png").is_file() == expected
    found = precision_recall.curves(scored, own)
    assert list(found) == ["i2t", "t2i"]
    for values in found.values():
        assert values.shape == precision_recall.LEVELS.shape
        assert (np.diff(values) <= 1e-9).all()  # interpolated precision never rises
        assert 0 <= values.min() <= values.max() <= 100
