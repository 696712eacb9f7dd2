"""Names of classes and their word vectors."""

from types import SimpleNamespace

import numpy as np
import pytest

from hmgr_jax.data.split import DataSet
from hmgr_jax.data.text.vectors import class_vectors, read_class_names
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

OPENED = DataSet("toy", {}, Vocabulary((*MARKS, "dog", "hydrant")), "")


def written(tmp_path, text):
    path = tmp_path / "names.txt"
    path.write_text(text)
    return path


def test_the_first_of_several_names_counts(tmp_path):
    path = written(tmp_path, "dog,puppy\nFire hydrant\nstop_sign\n")
    assert read_class_names(path, 3) == [["dog"], ["fire", "hydrant"], ["stop", "sign"]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dog\ncat\n", "holds 2 names where the model has 3 classes"),
        ("dog\n\ncat\n", "names.txt:2 is empty"),
    ],
)
def test_rejects_bad_name_files(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_class_names(written(tmp_path, text), 3)
    with pytest.raises(UserError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt", 3)


def test_vectors_that_were_learnt(tmp_path):
    """Words that captions do not hold have none; the mean of those that do is the class's."""
    words = np.arange(12, dtype=np.float32).reshape(6, 2)
    names = [["zebra"], ["fire", "hydrant"], ["dog", "hydrant"]]
    with pytest.warns(RuntimeWarning, match="2 of 3 class names have a vector in the captions"):
        have, vectors = class_vectors(names, SimpleNamespace(vectors="captions"), OPENED, words)
    np.testing.assert_array_equal(have, [1, 2])
    np.testing.assert_array_equal(vectors, [[10, 11], [9, 10]])


def test_vectors_of_a_file_know_words_that_captions_do_not_hold(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("zebra 1 2\nfire 3 4\nhydrant 5 6\n")
    data = SimpleNamespace(vectors=str(file))
    have, vectors = class_vectors([["zebra"], ["fire", "hydrant"]], data, OPENED, None)
    np.testing.assert_array_equal(have, [0, 1])
    np.testing.assert_array_equal(vectors, [[1, 2], [4, 5]])


def test_words_that_a_file_does_not_hold_have_no_vector(tmp_path):
    """Though the reader gives them a small random one."""
    file = tmp_path / "glove.txt"
    file.write_text("hydrant 5 6\ndog 1 2\n")
    names = [["zebra"], ["fire", "hydrant"], ["dog"]]
    with pytest.warns(RuntimeWarning, match=r"2 of 3 class names .*glove.txt; the others start"):
        have, vectors = class_vectors(names, SimpleNamespace(vectors=str(file)), OPENED, None)
    np.testing.assert_array_equal(have, [1, 2])
    np.testing.assert_array_equal(vectors, [[5, 6], [1, 2]])
    assert vectors.dtype == np.float32


def test_names_none_of_which_has_a_vector_are_refused(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("hund 5 6\n")
    with pytest.raises(UserError, match=r"None of the 1 class names has a word in .*glove.txt"):
        class_vectors([["dog"]], SimpleNamespace(vectors=str(file)), OPENED, None)
    words = np.ones((6, 2), np.float32)
    with pytest.raises(UserError, match="None of the 2 class names has a word in the captions"):
        class_vectors([["a"], ["b"]], SimpleNamespace(vectors="captions"), OPENED, words)


def test_names_without_vectors_are_refused():
    with pytest.raises(UserError, match=r"data\.vectors is none"):
        class_vectors([["dog"]], SimpleNamespace(vectors="none"), OPENED, None)
