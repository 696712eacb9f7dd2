"""Generated worlds as a feature set: vectors, bags of words and kinds of scenes."""

import numpy as np
import pytest

from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.generated.worlds.scene import SHAPES, Backdrop, Scene, Thing
from hmgr_jax.data.text.captions import bags_of
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

SIZES = {"train": 16, "dev": 4, "test": 8}


@pytest.fixture(scope="module")
def worlds():
    return open_worlds(**SIZES, features=True)


def test_images_are_moments_of_their_regions(worlds):
    found = worlds.splits["test"].sources["image"].gather(np.array([5, 2]))
    for k in range(2):
        regions = found["regions"][k, : found["n_regions"][k]].astype(np.float64)
        wanted = np.concatenate([regions.mean(axis=0), regions.std(axis=0)])
        np.testing.assert_allclose(found["features"][k], wanted, atol=1e-3)
    assert found["features"].dtype == np.float32


def test_captions_are_bags_of_words(worlds):
    texts = worlds.splits["test"].sources["text"]
    found = texts.gather(np.arange(len(texts)))
    assert found["features"].shape == (40, len(worlds.vocabulary))
    for bag, tokens, length in zip(
        *(found[k] for k in ("features", "tokens", "lengths")), strict=True
    ):
        words, counts = np.unique(tokens[1 : length - 1], return_counts=True)
        np.testing.assert_array_equal(np.flatnonzero(bag), words)
        np.testing.assert_array_equal(bag[words], counts)
    sentence = texts.captions[3]
    own = open_sentences([sentence], worlds.vocabulary, {"features"}, 94)
    np.testing.assert_array_equal(own.gather(np.array([0]))["features"], found["features"][3:4])


def test_marks_are_no_words():
    tokens = np.array([[1, 3, 5, 5, 2, 0]])
    np.testing.assert_array_equal(bags_of(tokens, 6).toarray(), [[0, 0, 0, 0, 0, 2]])


def test_sentences_are_refused_where_texts_were_vectors():
    with pytest.raises(UserError, match="trained on text vectors, not on words: give arrays"):
        open_sentences(["a dog"], Vocabulary(MARKS), {"features"}, 94)


def test_kinds_are_those_of_families(worlds):
    for split in worlds.splits.values():
        kinds = split.labels["image"]
        assert kinds.shape == (len(split.sources["image"]), len(SHAPES))
        assert (kinds.sum(axis=1) == 1).all()
        for family in np.unique(split.families["image"]):
            assert len(np.unique(kinds[split.families["image"] == family], axis=0)) == 1
        np.testing.assert_array_equal(split.labels["text"], kinds[split.groups["text"]])


def test_a_kind_is_the_most_frequent_shape():
    def kind(*shapes_and_sizes):
        things = tuple(Thing(shape, 0, size, 0.5, 0.5) for shape, size in shapes_and_sizes)
        backdrop = Backdrop((0, 0, 0), (0, 0), (0, 0, 0))
        return Scene(0, "train", 0, things, backdrop).kind

    assert kind((5, 0), (2, 1), (5, 0), (1, 1)) == 5
    assert kind((5, 0), (2, 0), (5, 0), (2, 1)) == 2  # as frequent, and larger
    assert kind((5, 0), (2, 0), (7, 0)) == 2  # the first


def test_plain_worlds_are_as_they_were(worlds):
    plain = open_worlds(**SIZES)
    assert plain.fingerprint != worlds.fingerprint
    assert plain.splits["test"].labels == {}
    assert "features" not in plain.splits["test"].sources["text"].gather(np.array([0]))
    assert "features" not in plain.splits["test"].sources["image"].gather(np.array([0]))
    with pytest.raises(UserError, match="Generated worlds are pictures or features"):
        open_worlds(**SIZES, features=True, pictures=True)
