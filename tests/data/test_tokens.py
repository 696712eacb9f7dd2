"""Tokens against a fixture made with NLTK on captions written for it."""

import json
from pathlib import Path

import pytest

from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import UNKNOWN, Vocabulary
from hmgr_jax.errors import UserError

FIXTURE = json.loads((Path(__file__).parent / "treebank_fixture.json").read_text("utf-8"))


@pytest.mark.parametrize("caption", FIXTURE["captions"], ids=lambda pair: pair[0][:40])
def test_same_tokens_as_nltk(caption):
    text, tokens = caption
    assert tokenize(text) == tokens


def test_bytes_are_refused():
    with pytest.raises(UserError, match="decode it as UTF-8"):
        tokenize(b"a dog runs .")


def test_spaces_of_any_kind_and_nothing():
    assert tokenize("  a\tdog\u00a0runs \r\n") == ["a", "dog", "runs"]
    assert tokenize("   ") == []


def test_full_stop_depends_on_the_word_before():
    assert tokenize("it stops. then it goes")[:3] == ["it", "stops", "."]
    assert tokenize("mr. hill goes")[0] == "mr."
    assert tokenize("the u.s. flag")[1] == "u.s."
    assert tokenize("a flag of the u.s.")[-2:] == ["u.s", "."]


def test_words_of_real_captions_are_in_the_published_vocabulary(real_data):
    """98 % of the alphabetic tokens were found when the data was put together."""
    vocabulary = Vocabulary.load(real_data / "vocab" / "f8k_precomp_vocab.json")
    captions = (real_data / "flickr8k" / "dev_caps.txt").read_text("utf-8").splitlines()
    words = [t for caption in captions for t in tokenize(caption) if t.isalpha()]
    known = sum(vocabulary.id(word) != UNKNOWN for word in words)
    assert 0.975 < known / len(words) < 0.99


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("两只狗在打闹。", list("两只狗在打闹。")),
        ("一只dog，3个boy!", ["一", "只", "dog", "，", "3", "个", "boy", "!"]),
        ("ありがとうカメラ", list("ありがとうカメラ")),
        ("ม้าและวัว", ["ม้", "า", "แ", "ล", "ะ", "วั", "ว"]),
        ("ຫມາ", list("ຫມາ")),
        ("개가 달린다", ["개가", "달린다"]),
        ("кот и пёс", ["кот", "и", "пёс"]),
    ],
)
def test_scripts_without_spaces_are_split_by_character(caption, tokens):
    assert tokenize(caption) == tokens


def test_chinese_captions_have_a_vocabulary(real_data):
    captions = {
        name: (real_data / "flickr8k" / f"{name}_caps_zh.txt").read_text("utf-8").splitlines()
        for name in ("train", "test")
    }
    vocabulary = Vocabulary.build(map(tokenize, captions["train"]))
    tokens = [token for caption in captions["test"] for token in tokenize(caption)]
    assert len(vocabulary.unknown_words(tokens)) < 0.1 * len(tokens)
