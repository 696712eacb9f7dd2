"""``prepare dependencies``: spaCy where it is installed (here one that knows a single rule)."""

import json
import sys
import types

import pytest
from preparing import prepare
from tiny_run import scan_folder

from hmgr_jax.data import text_graph
from hmgr_jax.data.scan import open_scan
from hmgr_jax.data.text_graph import parsed_arcs


class Token:
    def __init__(self, number, text, document):
        self.i, self.text, self.document = number, text, document
        self.is_space = text.isspace()
        self.dep_ = "dep" if number else "ROOT"

    @property
    def head(self):
        """Everything hangs on the first word."""
        return self.document[0]


class Document(list):
    def __init__(self, text):
        super().__init__()
        self.text = text
        self += [Token(k, word, self) for k, word in enumerate(text.split())]


class Parser:
    def pipe(self, texts):
        return (Document(text) for text in texts)


@pytest.fixture
def spacy(monkeypatch):
    """A spaCy of which one model is installed."""

    def load(name, disable):
        if name != "en_core_web_sm":
            raise OSError(name)
        return Parser()

    module = types.ModuleType("spacy")
    module.load = load
    monkeypatch.setitem(sys.modules, "spacy", module)
    text_graph._parser.cache_clear()
    yield
    text_graph._parser.cache_clear()


def test_a_file_beside_the_captions_of_every_split(spacy, tmp_path, capsys):
    root = scan_folder(tmp_path / "data")
    assert prepare("dependencies", "--root", root) == 0
    assert f"{root / 'train_caps.conllu'} holds the word graphs of 48 captions." in (
        capsys.readouterr().out
    )
    first = (root / "dev_caps.conllu").read_text().split("\n\n")[0].split("\n")
    assert first[0] == "# text = picture 0 of 0 words"
    assert first[1].split("\t") == ["1", "picture", *"____", "0", "ROOT", "_", "_"]
    assert first[2].split("\t")[6:8] == ["1", "dep"]
    item = open_scan(root).splits["test"].sources["text"].gather([3])
    assert item["heads"].tolist() == [[0, 0, 1, 1, 1, 1, 6]]


def test_the_splits_named(spacy, tmp_path):
    root = scan_folder(tmp_path / "data")
    assert prepare("dependencies", "--root", root, "--splits", "dev") == 0
    assert [path.name for path in root.glob("*.conllu")] == ["dev_caps.conllu"]


def test_a_prepared_folder_stays_whole(spacy, tmp_path):
    root = scan_folder(tmp_path / "data")
    out = tmp_path / "out"
    assert prepare("scan", "--source", root, "--out", out) == 0
    assert prepare("dependencies", "--root", out) == 0
    assert "dev_caps.conllu" in json.loads((out / "manifest.json").read_text())["files"]
    assert prepare("--verify", out) == 0


def test_without_a_parser(monkeypatch, tmp_path, refused):
    root = scan_folder(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "spacy", None)
    text_graph._parser.cache_clear()
    refused("need spaCy, which is not installed", "dependencies", "--root", root)
    assert not list(root.glob("*.conllu"))


def test_what_else_is_refused(spacy, tmp_path, refused):
    root = scan_folder(tmp_path / "data")
    unknown = ("dependencies", "--root", root, "--parser", "xx_none")
    refused("spaCy's model xx_none is not installed, and nothing is downloaded", *unknown)
    refused("--root is missing", "dependencies")
    refused("holds no file that ends in _caps.txt", "dependencies", "--root", tmp_path)
    refused("There is no flag '--rot'; did you mean --root?", "dependencies", "--rot", root)


def test_sentences_of_a_search(spacy):
    (arcs,) = parsed_arcs(["a red dog"])
    assert arcs.heads == (-1, 0, 0)
