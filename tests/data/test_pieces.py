"""WordPieces: what captions are cut into, and a run that needs vocab.txt no more."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_files import PIECES, SIZES, written
from layer_cases import random_params

from hmgr_jax.data.open import open_data
from hmgr_jax.data.text.pieces import Pieces, vocabulary_from_json
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.layers.bert import Bert
from hmgr_jax.modes import train_run as train
from hmgr_jax.training import recipe_file
from hmgr_jax.training.experiment import build

pytest.importorskip("tokenizers")
# Their vocabularies are a few pieces.
pytestmark = pytest.mark.filterwarnings("ignore:.*not in the vocabulary")


@pytest.fixture
def folder(tmp_path):
    ids = jnp.zeros((1, 3), jnp.int32)
    params = random_params(Bert(SIZES), ids, ids == 0)
    return written(tmp_path / "bert", jax.device_get(params))


def test_words_are_cut_into_pieces():
    pieces = Pieces(PIECES)
    tokens = pieces.tokenize("The RÉD squares, 7 left")
    assert tokens == ["the", "red", "square", "##s", "[UNK]", "[UNK]", "left"]
    ids = pieces.encode(tokens)
    assert [PIECES[i] for i in ids] == ["[CLS]", *tokens, "[SEP]"]
    assert pieces.decode([*ids, 0, 0]) == tokens
    assert pieces.id("elephant") == PIECES.index("[UNK]")


def test_case_is_kept_where_the_file_says_so(folder):
    assert Pieces.load(folder).lower
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert Pieces.load(folder).tokenize("The red") == ["[UNK]", "red"]


def test_checkpoints_hold_words_or_pieces():
    for vocabulary in (Pieces(PIECES), Pieces(PIECES, lower=False), Vocabulary((*MARKS, "dog"))):
        assert vocabulary_from_json(json.loads(json.dumps(vocabulary.saved()))) == vocabulary


def test_a_long_sentence_is_cut_between_its_marks():
    source = open_sentences(["the red squares left of the circle"], Pieces(PIECES), {"tokens"}, 3)
    found = source.gather(np.array([0]), 6)
    assert [PIECES[i] for i in found["tokens"][0]] == [
        *("[CLS]", "the", "red", "square", "[SEP]", "[PAD]")
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: [x for x in lines if x != "[CLS]"], r"vocab\.txt: .* lacks \[CLS\]"),
        (lambda lines: [*lines, "red"], r"vocab\.txt: the vocabulary holds 'red' twice"),
    ],
)
def test_other_files_are_refused(folder, change, sentence):
    path = folder / "vocab.txt"
    path.write_text("\n".join(change(path.read_text().split("\n")[:-1])))
    with pytest.raises(UserError, match=sentence):
        Pieces.load(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"vocab\.txt cannot be read \(No such file"):
        Pieces.load(folder)


def test_a_folder_with_a_tokenizer_file_alone_is_read(folder):
    (folder / "vocab.txt").unlink()
    path = folder / "tokenizer.json"
    ids = {piece: number for number, piece in reversed(list(enumerate(PIECES)))}
    path.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    assert Pieces.load(folder) == Pieces(PIECES)
    for content, found in (
        ("{", "Expecting"),
        (json.dumps({"model": {"type": "BPE", "vocab": ids}}), "a vocabulary of BPE kind"),
        (json.dumps({"model": {"type": "WordPiece", "vocab": ids | {"red": 99}}}), "with gaps"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"tokenizer\.json holds no vocabulary.*{found}"):
            Pieces.load(folder)


SMALL = {
    "data.worlds.train": "16",
    "data.worlds.dev": "8",
    "data.worlds.test": "8",
    "data.buckets": "32",
    "train.steps": "1",
    "train.batch_size": "8",
    "model.dim": "8",
    "model.region_hidden": "8",
}


@pytest.mark.slow
def test_a_run_goes_on_without_the_folder(folder, tmp_path):
    given = SMALL | {"init.bert": str(folder)}
    config = recipe_file.load("configs/worlds.py:dxr", given)
    data = open_data(config.data)
    first = data.splits["train"].sources["text"]
    assert data.vocabulary == Pieces(PIECES)
    assert train(config, tmp_path / "run")
    shutil.rmtree(folder)
    retriever = Retriever.load(tmp_path / "run")
    assert retriever.vocabulary == Pieces(PIECES)
    codes = retriever.encode("text", list(first.captions[:2]))
    assert codes.shape == (2, 8)
    read = retriever.read(first.captions[:1])["tokens"]
    np.testing.assert_array_equal(read, first.gather(np.array([0]))["tokens"])


def test_systems_that_read_words_refuse_pieces(folder):
    config = recipe_file.load("configs/worlds.py:vse", SMALL_OF_VSE | {"data.pieces": str(folder)})
    with pytest.raises(
        UserError, match=r"for BERT or CLIP, but vse reads words: .*model\.text to bert"
    ):
        build(config)
    both = {"data.pieces": str(folder), "data.vocabulary": "vocab.json"}
    with pytest.raises(UserError, match="leave one of them empty"):
        build(recipe_file.load("configs/worlds.py:vse", SMALL_OF_VSE | both))


def test_texts_may_not_be_longer_than_bert_can_tell(folder):
    given = SMALL | {"init.bert": str(folder), "data.buckets": "64"}
    with pytest.raises(
        UserError, match=r"data\.buckets reach 64, but the text tower has 32 positions"
    ):
        build(recipe_file.load("configs/worlds.py:dxr", given))


SMALL_OF_VSE = {key: text for key, text in SMALL.items() if key != "model.region_hidden"}
