"""Word vectors: what they know, that they repeat, and files that are wrong."""

import numpy as np
import pytest

from hmgr_jax.data.text import vectors
from hmgr_jax.data.text.flickr8k import read_flickr8k
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vectors import learn_vectors, read_vectors
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

WORDS = ("red", "blue", "ball", "dog", "cat", "runs", "sleeps", "never")
VOCABULARY = Vocabulary((*MARKS, *WORDS))


def _captions(count=400):
    """Colours stand before "ball", animals before what they do."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        if random.random() < 0.5:
            made.append([WORDS[random.integers(2)], "ball"])
        else:
            made.append([WORDS[3 + random.integers(2)], WORDS[5 + random.integers(2)]])
    return made


def _cosine(found, a, b):
    x, y = found[VOCABULARY.id(a)], found[VOCABULARY.id(b)]
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("dense", [0, 5000])
def test_words_in_the_same_places_are_alike(window, dense, monkeypatch):
    monkeypatch.setattr(vectors, "DENSE_BELOW", dense)
    found = learn_vectors(_captions(), VOCABULARY, dim=4, window=window)
    assert found.dtype == np.float32
    assert found.shape == (12, 4)
    assert _cosine(found, "red", "blue") > 0.9
    assert _cosine(found, "dog", "cat") > 0.9
    assert abs(_cosine(found, "red", "dog")) < 0.3


def test_equal_calls_give_equal_vectors_and_both_solvers_agree(monkeypatch):
    captions = _captions()
    first = learn_vectors(captions, VOCABULARY, dim=3, seed=1)
    np.testing.assert_array_equal(first, learn_vectors(captions, VOCABULARY, dim=3, seed=1))
    other = learn_vectors(captions, VOCABULARY, dim=3, seed=2)
    changed = [VOCABULARY.words[i] for i in np.flatnonzero((first != other).any(axis=1))]
    assert changed == ["<start>", "<end>", "<unk>", "never"]
    monkeypatch.setattr(vectors, "DENSE_BELOW", 0)
    sparse = learn_vectors(captions, VOCABULARY, dim=3, seed=1)
    np.testing.assert_allclose(sparse @ sparse.T, first @ first.T, atol=1e-5)


def test_sizes_of_seen_and_unseen_words():
    found = learn_vectors(_captions(), VOCABULARY, dim=50)
    squares = (found**2).sum(axis=1)
    assert not found[0].any()
    assert np.mean(squares[4:11]) == pytest.approx(1.0, rel=1e-5)
    assert 0 < squares[VOCABULARY.id("never")] < 0.05


def test_pmi_by_hand():
    """Counts: (red, ball) 2, (blue, ball) 1, both ways."""
    counts = vectors._cooccurrence([["red", "ball"]] * 2 + [["ball", "blue"]], VOCABULARY, None)
    red, blue, ball = (VOCABULARY.id(w) for w in ("red", "blue", "ball"))
    assert counts[red, ball] == counts[ball, red] == 2
    assert counts[blue, ball] == 1
    assert counts[ball, ball] == 0
    some = [red, blue, ball]
    found = vectors._ppmi(counts[some][:, some], 1.0).toarray()
    smooth = np.array([2.0, 1.0, 3.0]) ** 0.75
    assert found[0, 2] == pytest.approx(np.log(2 * smooth.sum() / (2 * smooth[2])))
    assert found[2, 1] == pytest.approx(np.log(1 * smooth.sum() / (3 * smooth[1])))
    shifted = vectors._ppmi(counts[some][:, some], 2.0).toarray()
    assert shifted[0, 2] == pytest.approx(max(0.0, found[0, 2] - np.log(2)))


def test_words_shared_by_captions_of_an_image_count_more():
    counts = vectors._cooccurrence([["dog", "ball", "dog", "red"]], VOCABULARY, None)
    red, ball, dog = (VOCABULARY.id(w) for w in ("red", "ball", "dog"))
    assert counts[dog, ball] == counts[ball, dog] == 2
    assert counts[red, ball] == 1
    assert counts[dog, dog] == 2  # each of the two stands with the other one
    assert counts[red, red] == 0


def test_a_window_ends_with_the_caption():
    counts = vectors._cooccurrence([["red", "ball", "dog"], ["cat"]], VOCABULARY, 1)
    stand = {
        (VOCABULARY.words[i], VOCABULARY.words[j]) for i, j in zip(*counts.nonzero(), strict=True)
    }
    assert stand == {("red", "ball"), ("ball", "red"), ("ball", "dog"), ("dog", "ball")}


def test_nothing_to_learn_from():
    for captions in ([], [["dog"], ["cat"]], [[]]):
        with pytest.raises(UserError, match="no two words"):
            learn_vectors(captions, VOCABULARY)


def test_real_captions_put_like_words_together(real_data):
    folder = real_data / "f8k_text"
    by_image = read_flickr8k(folder / "Flickr8k.token.txt", folder / "Flickr_8k.trainImages.txt")
    captions = [tokenize(c) for found in list(by_image.values())[:2000] for c in found]
    vocabulary = Vocabulary.build(captions, threshold=20)
    found = learn_vectors(captions, vocabulary, dim=50, window=2)
    unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    near = {}
    for word in ("red", "dog"):
        best = np.argsort(-(unit @ unit[vocabulary.id(word)]))[1:8]
        near[word] = {vocabulary.words[i] for i in best}
    assert len(near["red"] & {"blue", "yellow", "green", "orange", "pink", "purple"}) >= 4
    assert near["dog"] & {"puppy", "dogs", "poodle", "retriever", "labrador", "brown"}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "vectors.txt"


def test_words_that_the_file_has_in_another_spelling(file):
    """Without hyphens, dots and apostrophes, up to a slash; an exact word counts more."""
    words = Vocabulary((*VOCABULARY.words, "t-shirt", "his/her", "o'clock", "--"))
    file.write_text("tshirt 1 2\nhis 3 4\noclock 5 6\no'clock 7 8\n", "utf-8")
    found, known = read_vectors(file, words)
    for word, vector in (("t-shirt", [1, 2]), ("his/her", [3, 4]), ("o'clock", [7, 8])):
        np.testing.assert_array_equal(found[words.id(word)], vector)
    of_file = [words.id(word) for word in ("t-shirt", "his/her", "o'clock")]
    assert sorted(np.flatnonzero(known)) == sorted(of_file)


@pytest.mark.parametrize("header", ["", "3 2\n"])
def test_glove_and_word2vec_files(file, header):
    file.write_text(f"{header}dog 1 2\nzebra 5 6\nred -0.5 1e-2 \ndog 9 9\n. . 1 1\n", "utf-8")
    found, known = read_vectors(file, VOCABULARY)
    assert found.shape == (12, 2)
    np.testing.assert_array_equal(found[VOCABULARY.id("dog")], [1, 2])
    np.testing.assert_array_equal(found[VOCABULARY.id("red")], np.float32([-0.5, 0.01]))
    assert np.flatnonzero(known).tolist() == sorted(map(VOCABULARY.id, ("dog", "red")))
    assert not found[0].any()
    assert found[VOCABULARY.id("cat")].any()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no word vectors"),
        ("dog 1 2\ncat 1\n", "txt:2 has 1 numbers where 2"),
        ("dog 1 2\ncat 1 2 3\n", "txt:2 has more than 2 numbers"),
        ("dog 1 2\ncat 1 x\n", "txt:2 holds a field that is not a number"),
        ("dog 1 2\ncat 1 nan\n", "txt:2 holds NaN"),
        ("dog 1 2\n\ncat 1 2\n", "txt:2 has 0 numbers"),
        ("dog\n", "txt:1 has 0 numbers"),
    ],
)
def test_malformed_vector_files(file, text, sentence):
    file.write_text(text, "utf-8")
    with pytest.raises(UserError, match=sentence):
        read_vectors(file, VOCABULARY)


def test_rejects_unreadable_vector_files(file):
    with pytest.raises(UserError, match="cannot be read"):
        read_vectors(file, VOCABULARY)
    file.write_bytes(b"dog 1 2\ncaf\xe9 1 2\n")
    with pytest.raises(UserError, match="txt:2 is not UTF-8"):
        read_vectors(file, VOCABULARY)
