"""Word graphs: CoNLL-U read, its words mapped to our tokens, and whatever does not fit refused."""

import numpy as np
import pytest
from scan_folders import captions_of, write_folder

from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.conllu import read_conllu
from hmgr_jax.data.text.text_graph import (
    RELATIONS,
    find_word_graphs,
    read_word_graphs,
    relation_number,
)
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError


def block(*words, text=None, ranges=()):
    """CoNLL-U of (form, head from 1, relation); ranges are rows (before word, "1-2", form)."""
    rows = [] if text is None else [f"# text = {text}"]
    for number, (form, head, relation) in enumerate(words, start=1):
        for before, ident, surface in ranges:
            if before == number:
                rows.append("\t".join([ident, surface, *"________"]))
        rows.append("\t".join([str(number), form, *"____", str(head), relation, "_", "_"]))
    return "\n".join(rows) + "\n\n"


def arcs_of(tmp_path, caption, text):
    path = tmp_path / "train_caps.conllu"
    path.write_text(text, "utf-8")
    (arcs,) = read_word_graphs(path, [caption])
    tokens = tokenize(caption)
    assert len(arcs.heads) == len(arcs.relations) == len(tokens)
    names = {
        token: (tokens[head] if head >= 0 else None, RELATIONS[relation])
        for token, head, relation in zip(tokens, arcs.heads, arcs.relations, strict=True)
    }
    return names


DOG = (("A", 2, "det"), ("dog", 3, "nsubj"), ("runs", 0, "root"), (".", 3, "punct"))


def test_words_that_are_our_tokens(tmp_path):
    found = arcs_of(tmp_path, "A dog runs .", block(*DOG, text="A dog runs ."))
    assert found == {
        "a": ("dog", "det"),
        "dog": ("runs", "nsubj"),
        "runs": (None, "root"),
        ".": ("runs", "punct"),
    }


def test_a_full_stop_without_a_space_and_another_case(tmp_path):
    assert arcs_of(tmp_path, "A  DOG runs.", block(*DOG))["."] == ("runs", "punct")


def test_several_words_in_one_of_our_tokens(tmp_path):
    """We keep hyphens inside words: the token takes the arc that leaves it."""
    words = (
        ("a", 4, "det"),
        ("t", 3, "compound"),
        ("-", 2, "punct"),
        ("shirt", 0, "root"),
    )
    found = arcs_of(tmp_path, "a t-shirt", block(*words))
    assert found == {"a": ("t-shirt", "det"), "t-shirt": (None, "root")}


def test_a_word_in_several_of_our_tokens(tmp_path):
    """The token of most letters has the arc; the other belongs to it."""
    words = (("they", 2, "nsubj"), ("cannot", 3, "aux"), ("see", 0, "root"))
    found = arcs_of(tmp_path, "they cannot see", block(*words))
    assert found["can"] == ("see", "aux")
    assert found["not"] == ("can", "fixed")
    assert found["they"] == ("can", "nsubj")


def test_ranges_of_words(tmp_path):
    """Of a range that its words do not spell, all words stand for all of it."""
    words = (("it", 4, "nsubj"), ("does", 4, "aux"), ("not", 4, "advmod"), ("move", 0, "root"))
    found = arcs_of(
        tmp_path, "it doesn't move", block(*words, ranges=[(2, "2-3", "doesn't")])
    )  # fmt: skip
    assert found["does"] == ("move", "aux")
    assert found["n't"] == ("does", "fixed")
    spelt = (("it", 4, "nsubj"), ("does", 4, "aux"), ("n't", 4, "advmod"), ("move", 0, "root"))
    found = arcs_of(
        tmp_path, "it doesn't move", block(*spelt, ranges=[(2, "2-3", "doesn't")])
    )  # fmt: skip
    assert found["n't"] == ("move", "advmod")


def test_quotes_and_empty_nodes(tmp_path):
    words = (('"', 2, "punct"), ("stop", 0, "root"), ('"', 2, "punct"), ("sign", 2, "dep"))
    text = block(*words).replace("4\tsign", "3.1\tis\t_\t_\t_\t_\t_\t_\t_\t_\n4\tsign")
    found = arcs_of(tmp_path, '"stop" sign', text)
    assert found["``"] == found["''"] == ("stop", "punct")


def test_relations_by_name():
    assert RELATIONS[relation_number("nsubj:pass")] == "nsubj"
    assert RELATIONS[relation_number("dobj")] == "obj"
    assert RELATIONS[relation_number("ROOT")] == "root"
    assert RELATIONS[relation_number("vocative")] == "dep"


def ranged(ident):
    return block(*DOG, text="A dog runs .", ranges=[(2, ident, "dog")])


def test_blocks_of_comments_alone(tmp_path):
    """A file may begin or end with them, and have them between sentences."""
    path = tmp_path / "train_caps.conllu"
    text = block(*DOG, text="A dog runs .")
    path.write_text(
        f"# of a corpus\n# made by hand\n\n{text}# between\n\n\n{text}# the end", "utf-8"
    )
    assert len(list(read_conllu(path))) == 2
    assert len(read_word_graphs(path, ["A dog runs ."] * 2)) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (block(*DOG[:3]), ", sentence 1, holds words that do not spell 'A dog runs .'"),
        (block(*DOG, text="A cat runs ."), "reads 'A cat runs .' where the caption is 'A dog"),
        (block(*DOG) * 2, "holds 2 sentences for 1 captions"),
        ("", "holds 0 sentences for 1 captions"),
        (block(*DOG).replace("3\truns", "4\truns"), "word number 4 where 3 was expected"),
        (block(*DOG).replace("\t_\t_\n", "\t_\n"), "sentence 1, has a line of 9 columns"),
        (block(*DOG).replace("\t_\t_\n", "\t_\t_\t_\n"), "a line of more than 10 columns"),
        (block(("a", 7, "det")), "has the head 7 for word 1"),
        (block(("a", "_", "det")), "has the head _ for word 1"),
        (block(("a", "x", "det")), "sentence 1, is not CoNLL-U (Failed parsing field 'head'"),
        (block(("a", -1, "det")), "has the head -1 for word 1"),
        (
            block(*DOG).replace("2\tdog\t_\t_\t_\t_\t3", "2\tdog\t_\t_\t_\t_\t2"),
            "head 2 for word 2",
        ),
        (block(("a", "9" * 9, "det")), "has the head 999999999 for word 1"),
        (block(("a", "9" * 5000, "det")), "sentence 1, is not CoNLL-U"),
        (block(*DOG) + block(("a", 7, "det")), ", sentence 2, has the head 7"),
        (ranged("5-9"), "has a range beyond its 4 words"),
        (ranged("4-5"), "has a range beyond its 4 words"),
        (ranged("0-0"), "'0-0' is not a valid ID"),
        (ranged("3-1"), "'3-1' is not a valid ID"),
        (ranged("1-" + "9" * 5000), "sentence 1, is not CoNLL-U"),
        (ranged("1-"), "'1-' is not a valid ID"),
    ],
)
def test_rejects_bad_graphs(tmp_path, text, sentence):
    path = tmp_path / "train_caps.conllu"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as refusal:
        read_word_graphs(path, ["A dog runs ."])
    assert sentence in str(refusal.value)
    assert "train_caps.conllu" in str(refusal.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "train_caps.conllu"
    path.write_bytes(b"1\t\xff\n\n")
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_conllu(path))


def test_a_source_with_arcs(tmp_path):
    """Positions count <start>; a root hangs on it, and what lost its head on nothing."""
    vocabulary = Vocabulary((*MARKS, "a", "dog", "runs", "."))
    path = tmp_path / "train_caps.conllu"
    path.write_text(block(*DOG), "utf-8")
    arcs = read_word_graphs(path, ["A dog runs ."])
    source = CaptionSource([tokenize("A dog runs .")], vocabulary, arcs=arcs)
    item = source.gather(np.array([0]), 8)
    np.testing.assert_array_equal(item["heads"], [[0, 2, 3, 0, 3, 5, 0, 0]])
    kinds = [RELATIONS.index(name) for name in ("det", "nsubj", "root", "punct")]
    np.testing.assert_array_equal(item["relations"], [[0, *kinds, 0, 0, 0]])
    cut = CaptionSource([tokenize("A dog runs .")], vocabulary, max_words=2, arcs=arcs)
    item = cut.gather(np.array([0]))
    np.testing.assert_array_equal(item["heads"], [[0, 2, 2, 3]])
    np.testing.assert_array_equal(item["relations"], [[0, kinds[0], 0, 0]])


def parse_folder(root, counts, *, left_out=()):
    """Each word of a caption hangs on the one before it."""
    for name, images in counts.items():
        if name in left_out:
            continue
        blocks = []
        for caption in (c for image in range(images) for c in captions_of(image)):
            words = [(w, k, "dep") for k, w in enumerate(caption.split())]
            blocks.append(block(*words, text=caption))
        (root / f"{name}_caps.conllu").write_text("".join(blocks), "utf-8")


COUNTS = {"train": 6, "dev": 3, "test": 4}


def test_a_folder_with_word_graphs(tmp_path):
    plain = open_scan(write_folder(tmp_path))
    assert "heads" not in plain.splits["dev"].sources["text"].gather(np.array([0]))
    parse_folder(tmp_path, COUNTS)
    data = open_scan(tmp_path)
    for split in data.splits.values():
        item = split.sources["text"].gather(np.array([0]))
        length = int(item["lengths"][0])
        expected = [0, *range(length - 2), length - 1]
        np.testing.assert_array_equal(item["heads"][0], expected)
    assert data.fingerprint != plain.fingerprint


def test_word_graphs_of_some_splits_only(tmp_path):
    parse_folder(write_folder(tmp_path), COUNTS, left_out=("dev",))
    with pytest.raises(UserError, match=r"train_caps.conllu has no counterpart dev_caps.conllu"):
        open_scan(tmp_path)
    assert find_word_graphs({"train": tmp_path / "nothing_caps.txt"}) == {}
