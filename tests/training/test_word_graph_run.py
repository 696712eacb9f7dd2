"""A run on captions with word graphs: trained, explained, judged; and sentences of one's own."""

import sys

import numpy as np
import pytest
from explain_cases import BOX, explain, numbers
from tiny_run import run, scan_folder

import hmgr_jax
from hmgr_jax.data.text import text_graph
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.errors import UserError

pytestmark = pytest.mark.slow

ARCS = ((2, "amod"), (5, "nsubj"), (2, "prep"), (3, "pobj"), (0, "root"))
"""Head (from 1) and relation of the words "picture 3 of 7 words"."""
EPOCH = 6  # 48 captions by 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = scan_folder(tmp_path_factory.mktemp("graphs") / "data")
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        np.save(root / f"{name}_boxes.npy", np.tile(BOX, (count, 4, 1)).astype(np.float32))
        blocks = []
        for caption in (root / f"{name}_caps.txt").read_text().splitlines():
            rows = [
                "\t".join([str(i), word, *"____", str(head), relation, "_", "_"])
                for i, (word, (head, relation)) in enumerate(
                    zip(caption.split(), ARCS, strict=True), start=1
                )
            ]
            blocks.append("\n".join([f"# text = {caption}", *rows]) + "\n\n")
        (root / f"{name}_caps.conllu").write_text("".join(blocks))
    return root


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """(The folder of a run that goes past its first epoch, what it said.)"""
    workdir = tmp_path_factory.mktemp("graphs") / "run"
    chosen = {"data__source": "scan", "data__batching": "rows", "data__root": root}
    chosen |= {"eval__protocols": "plain", "eval__dev_protocols": "plain"}
    chosen |= {"train__steps": EPOCH + 1, "train__eval_steps": EPOCH + 1}
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(sys.stdout, "write", lambda text: said.append(text) or len(text))
        assert run(workdir, model="resg", **chosen) == 0
    return workdir, "".join(said)


def test_the_run_reports_its_word_graphs(trained):
    _, said = trained
    assert "The data has no labels and no attributes of image items: resg goes without." in said
    assert "After the first epoch: the quartiles of similarity are" in said


@pytest.mark.filterwarnings("default")
def test_the_graph_of_words_is_that_of_the_file(trained, tmp_path):
    workdir, _ = trained
    assert explain(workdir, "test3.jpg", "test3.jpg#1", tmp_path / "out") == 0
    found = numbers(tmp_path / "out")
    arcs = {(i, head) for i, (head, _) in enumerate(ARCS, start=1)}  # 0 is <start>
    both = arcs | {(head, i) for i, head in arcs}
    edges = {(edge["from"], edge["to"]) for edge in found["relations"]["text"]}
    assert edges == both


@pytest.mark.filterwarnings("default")
def test_a_sentence_of_ones_own_needs_a_parser(trained, tmp_path, monkeypatch, capsys):
    workdir, _ = trained
    monkeypatch.setitem(sys.modules, "spacy", None)
    text_graph._parser.cache_clear()
    assert explain(workdir, "test3.jpg", "picture 3 of words", tmp_path / "out") == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning")]
    assert error.startswith("error: ")
    assert "spaCy" in error
    text_graph._parser.cache_clear()


def test_sentences_without_graphs_need_no_parser(trained, monkeypatch):
    """Those of judged captions are made by the same function."""
    workdir, _ = trained
    monkeypatch.setitem(sys.modules, "spacy", None)
    text_graph._parser.cache_clear()
    words = hmgr_jax.load(workdir).vocabulary
    plain = open_sentences(["picture 3 of 7 words", "words"], words, ("tokens", "lengths"), 3)
    found = plain.gather(np.arange(2))
    assert found.keys() == {"tokens", "lengths"}
    assert found["lengths"].tolist() == [5, 3]
    with pytest.raises(UserError, match="spaCy"):
        open_sentences(["words"], words, ("tokens", "lengths", "heads"), 3)
    text_graph._parser.cache_clear()
