"""``prepare dependencies``: spaCy where it is installed (here one that knows a single rule)."""

import hashlib
import json
import sys
import types

import pytest
from preparing import prepare
from test_prepare_scan import chained
from tiny_run import scan_folder

from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text import text_graph
from hmgr_jax.data.text.text_graph import parsed_arcs
from hmgr_jax.errors import UserError


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


BY_HAND = ("en_core_web_sm", "by hand", "spaCy's model releases")


def test_without_a_parser(monkeypatch, tmp_path, refused):
    root = scan_folder(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "spacy", None)
    text_graph._parser.cache_clear()
    told = ("need spaCy, which is not installed: pip install '.[parse]'", "CoNLL-U", *BY_HAND)
    refused(told, "dependencies", "--root", root)
    assert not list(root.glob("*.conllu"))
    with pytest.raises(UserError) as refusal:
        parsed_arcs(["a red dog"])
    sentence = str(refusal.value)
    assert sentence.startswith("Word graphs of new sentences need spaCy")
    assert all(part in sentence for part in ("pip install '.[parse]'", *BY_HAND))
    assert "CoNLL-U" not in sentence


def test_rejects_other_sources_and_flags(spacy, tmp_path, refused):
    root = scan_folder(tmp_path / "data")
    unknown = ("dependencies", "--root", root, "--parser", "xx_none")
    told = ("spaCy's model xx_none, which is not installed, and nothing is downloaded", *BY_HAND)
    refused((*told, "CoNLL-U"), *unknown)
    with pytest.raises(UserError) as refusal:
        parsed_arcs(["a red dog"], "xx_none")
    assert all(part in str(refusal.value) for part in told)
    assert "CoNLL-U" not in str(refusal.value)
    refused("--root is missing", "dependencies")
    refused("holds no file that ends in _caps.txt", "dependencies", "--root", tmp_path)
    refused("There is no flag '--rot'; did you mean --root?", "dependencies", "--rot", root)


def test_sentences_of_a_search(spacy):
    (arcs,) = parsed_arcs(["a red dog"])
    assert arcs.heads == (-1, 0, 0)


@pytest.fixture
def prepared(tmp_path):
    """A prepared folder without word graphs."""
    out = tmp_path / "out"
    assert prepare("scan", "--source", scan_folder(tmp_path / "data"), "--out", out) == 0
    return out


def test_files_made_by_hand_are_checked_and_listed(prepared, capsys, refused):
    plain = open_scan(prepared).fingerprint
    chained(prepared)
    unlisted = open_scan(prepared).fingerprint
    refused((".conllu is not in manifest.json", "--check list it"), "--verify", prepared)
    assert prepare("dependencies", "--root", prepared, "--check") == 0
    told = f"{prepared / 'train_caps.conllu'} fits its 48 captions, and is listed in the manifest."
    assert told in capsys.readouterr().out
    assert prepare("--verify", prepared) == 0
    listed = open_scan(prepared).fingerprint
    manifest = (prepared / "manifest.json").read_bytes()
    assert listed == hashlib.sha256(manifest).hexdigest()
    assert len({plain, unlisted, listed}) == 3
    path = prepared / "dev_caps.conllu"
    path.write_text(path.read_text().replace("\tdep\t", "\tdet\t"))
    refused("dev_caps.conllu has sha256", "--verify", prepared)
    assert prepare("dependencies", "--root", prepared, "--check") == 0
    assert prepare("--verify", prepared) == 0
    assert open_scan(prepared).fingerprint != listed


def test_a_raw_folder_is_checked_too(tmp_path, capsys):
    root = scan_folder(tmp_path / "data")
    chained(root)
    assert prepare("dependencies", "--root", root, "--check", "--splits", "dev") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{root / 'dev_caps.conllu'} fits its ")
    assert line.endswith(" captions.")
    assert not (root / "manifest.json").exists()


def test_files_that_do_not_fit_are_not_listed(prepared, refused):
    check = ("dependencies", "--root", prepared, "--check")
    refused("holds no dev_caps.conllu to check", *check)
    refused("--parser has no effect", *check, "--parser", "en_core_web_sm")
    before = (prepared / "manifest.json").read_bytes()
    chained(prepared)
    path = prepared / "train_caps.conllu"
    path.write_text(path.read_text().replace("picture 0", "picture 1"))
    refused("sentence 1, reads 'picture 1", *check)
    path.unlink()
    refused("has no counterpart train_caps.conllu", *check)
    assert (prepared / "manifest.json").read_bytes() == before
