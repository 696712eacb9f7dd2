"""The vocabulary: build, encode, SCAN's JSON, and files that are wrong."""

import json

import pytest

from hmgr_jax.data.text.captions import CaptionSource, warn_cut, warn_unknown
from hmgr_jax.data.text.vocabulary import MARKS, UNKNOWN, Vocabulary
from hmgr_jax.errors import UserError

SMALL = Vocabulary((*MARKS, "dog", "a"))


def test_build_keeps_the_frequent_in_order_of_first_appearance():
    lists = [["the", "dog", "runs"], ["the", "cat", "runs"], ["a", "dog"], ["the", "a"]]
    assert Vocabulary.build(lists, threshold=2).words == (*MARKS, "the", "dog", "runs", "a")
    assert Vocabulary.build(lists, threshold=3).words == (*MARKS, "the")


def test_a_caption_cannot_bring_in_a_mark_twice():
    assert Vocabulary.build([["<pad>", "x"]] * 4).words == (*MARKS, "x")


def test_encode_and_decode():
    ids = SMALL.encode(["a", "dog", "sleeps"])
    assert ids == [1, 5, 4, UNKNOWN, 2]
    assert SMALL.decode([*ids, 0, 0]) == ["a", "dog", "<unk>"]
    assert "dog" in SMALL
    assert "sleeps" not in SMALL


def test_scan_layout_there_and_back(tmp_path):
    assert SMALL.to_scan()["idx2word"]["4"] == "dog"
    SMALL.save(tmp_path / "v.json")
    assert set(json.loads((tmp_path / "v.json").read_text())) == {"word2idx", "idx2word", "idx"}
    assert Vocabulary.load(tmp_path / "v.json") == SMALL


@pytest.mark.parametrize(("name", "size"), [("f8k", 3159), ("f30k", 8481), ("coco", 11353)])
def test_published_vocabularies(real_data, name, size):
    path = real_data / "vocab" / f"{name}_precomp_vocab.json"
    vocabulary = Vocabulary.load(path)
    assert len(vocabulary) == size
    assert vocabulary.to_scan() == json.loads(path.read_text("utf-8"))


def _layout(**changes):
    return SMALL.to_scan() | changes


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ([1, 2], "but has a list"),
        ({}, "an empty object"),
        ({"words": []}, "the keys words"),
        (_layout(word2idx={**SMALL.to_scan()["word2idx"], "dog": 9}), "'dog' the id 9"),
        (_layout(word2idx={**SMALL.to_scan()["word2idx"], "dog": 5}), "each once"),
        (_layout(word2idx={**SMALL.to_scan()["word2idx"], "dog": "4"}), "the id '4'"),
        (_layout(idx2word={**SMALL.to_scan()["idx2word"], "4": "cat"}), "other words"),
        (_layout(idx2word={}), "other words"),
        (_layout(idx=7), '"idx" says 7'),
        ({"word2idx": {"dog": 0, "a": 1}}, "must begin with <pad>"),
    ],
)
def test_malformed_layouts(layout, sentence):
    with pytest.raises(UserError, match=sentence):
        Vocabulary.from_scan(layout)


def test_malformed_files(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Vocabulary.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"word2idx": {')
    with pytest.raises(UserError, match=r"half\.json is not JSON"):
        Vocabulary.load(tmp_path / "half.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not JSON"):
        Vocabulary.load(tmp_path / "bytes.json")


def test_words_must_differ():
    with pytest.raises(UserError, match="'dog' twice"):
        Vocabulary((*MARKS, "dog", "dog"))


def test_unknown_words_are_counted_without_punctuation_and_warned_of():
    known = Vocabulary((*MARKS, "a", "dog"))
    assert known.unknown_words(["a", "cat", "!", "dog", "<unk>"]) == ["cat", "<unk>"]
    few = CaptionSource([["a", "dog", "a", "dog", "cat"]], known)
    many = CaptionSource([["a", "cat"], ["bird"]], known)
    assert (many.unknown, many.tokens) == (2, 3)
    warn_unknown({"train": few})
    with pytest.warns(RuntimeWarning, match=r"2 of 3 words of test \(66\.7%\)"):
        warn_unknown({"train": few, "test": many})


def test_captions_that_are_cut_are_counted():
    texts = CaptionSource([["a", "dog"], ["a", "dog", "."]], SMALL, max_words=2)
    assert texts.lengths.tolist() == [4, 4]
    warn_cut({"train": CaptionSource([["a", "dog"]], SMALL, max_words=2)})
    with pytest.warns(RuntimeWarning, match=r"1 of 2 texts of test \(50\.0%\) .* 2 words"):
        warn_cut({"test": texts})
