"""Edges between words: of captions, of triples, and of graph files, good and bad."""

import numpy as np
import pytest

from hmgr_jax.data.text import word_relations as relations
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError

VOCABULARY = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "a", "dog", "hound", "runs", "sits"))
CAPTIONS = ("a dog runs", "a hound runs", "a dog runs fast", "a dog sits", "a a cat")
A, DOG, HOUND, RUNS, SITS = range(4, 9)


@pytest.fixture(scope="module")
def texts():
    source = CaptionSource([c.split() for c in CAPTIONS], VOCABULARY)
    return relations.caption_words(source, len(VOCABULARY))


def test_counts_of_words(texts):
    found = texts.toarray()
    assert found.shape == (5, 9)
    assert not found[:, :4].any()  # marks, and words that nobody knows
    np.testing.assert_array_equal(found[4], [0, 0, 0, 0, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.sum(0)[4:], [6, 3, 1, 3, 1])


def test_captions_are_read_in_chunks(texts, monkeypatch):
    monkeypatch.setattr(relations, "CHUNK", 2)
    source = CaptionSource([c.split() for c in CAPTIONS], VOCABULARY)
    chunked = relations.caption_words(source, len(VOCABULARY))
    np.testing.assert_array_equal(chunked.toarray(), texts.toarray())


def pairs(edges):
    return {frozenset(edge) for edge in np.asarray(edges).tolist()}


def test_words_together_by_hand(texts):
    # dog and runs: 2 of 5 captions, 3 each: log(2 * 5 / 9) = 0.105; hound and runs log(5 / 3).
    assert pairs(relations.together(texts, least=2, information=0.1)) == {frozenset((DOG, RUNS))}
    assert pairs(relations.together(texts, least=2, information=0.11)) == set()
    once = pairs(relations.together(texts, least=1, information=0.3))
    assert once == {frozenset((HOUND, RUNS)), frozenset((DOG, SITS))}


def test_rarity(texts):
    found = relations.inverse_frequencies(texts)
    np.testing.assert_allclose(found[[A, DOG, SITS]], np.log([6 / 6, 6 / 4, 6 / 2]) + 1, rtol=1e-6)


def refusal(call, *given):
    with pytest.raises(UserError) as refused:
        call(*given)
    return str(refused.value)


def test_triples(tmp_path):
    file = tmp_path / "known.tsv"
    file.write_text("Dog\tis a\thound\ncat\tlikes\tdog\nruns\tsits\n")
    found = relations.read_triples(file, VOCABULARY)
    np.testing.assert_array_equal(found, [[DOG, HOUND], [RUNS, SITS]])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dog\tis\thound\ndog is hound\n", (":2 has 1 fields", "tab")),
        ("dog\t\thound\n", (":1 has", "tab")),
        ("cat\tis\tpet\n", ("1 triples", "none joins")),
    ],
)
def test_bad_triples(tmp_path, text, parts):
    file = tmp_path / "known.tsv"
    file.write_text(text)
    said = refusal(relations.read_triples, file, VOCABULARY)
    assert str(file) in said
    assert all(part in said for part in parts), said


def test_a_graph_file(tmp_path):
    file = tmp_path / "graph.txt"
    file.write_text("1 2\n\n0\n")
    found = relations.read_neighbours(file, 3)
    np.testing.assert_array_equal(found, [[0, 1], [0, 2], [2, 0]])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1\n3\n\n", (":2 names node 3", "0 to 2")),
        ("1\n0\n-1\n", (":3 names node -1", "0 to 2")),
        ("1\n0\nword\n", (":3", "not a node number", "word")),
        ("1\n0\n", ("2 lines", "3 words")),
        ("1\n0\n2\n1\n", ("4 lines", "3 words")),
    ],
)
def test_bad_graph_files(tmp_path, text, parts):
    file = tmp_path / "graph.txt"
    file.write_text(text)
    said = refusal(relations.read_neighbours, file, 3)
    assert str(file) in said
    assert all(part in said for part in parts), said
    assert "\n" not in said


def test_a_graph_file_that_is_missing(tmp_path):
    assert "cannot be read" in refusal(relations.read_neighbours, tmp_path / "none.txt", 3)
