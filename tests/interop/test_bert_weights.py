"""BERT from folders of Hugging Face: names old and new, sizes, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from bert_files import CONFIG, SIZES, written
from layer_cases import mask_of, random_params

from hmgr_jax.errors import UserError
from hmgr_jax.interop import bert
from hmgr_jax.layers.bert import Bert
from hmgr_jax.training import recipe_file
from hmgr_jax.training.pretrained import runs_and_files

LENGTHS = [9, 5, 1]
IDS = jnp.asarray(np.random.default_rng(0).integers(0, SIZES.vocabulary, (3, 9)), jnp.int32)


@pytest.fixture(scope="module")
def params():
    return jax.device_get(random_params(Bert(SIZES), IDS, mask_of(LENGTHS, 9)))


def old(name):
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return f"bert.{name.replace('LayerNorm.bias', 'LayerNorm.beta')}"


@pytest.mark.parametrize("rename", [str, old, lambda name: f"bert.{name}"])
def test_a_folder_in_and_out(params, tmp_path, rename):
    folder = written(tmp_path / "bert", params, rename)
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    prefix = "" if rename is str else "bert."
    more = {
        f"{prefix}pooler.dense.weight": np.ones((8, 8), np.float32),
        f"{prefix}embeddings.position_ids": np.arange(32),
    }
    if prefix:
        more["cls.predictions.bias"] = np.ones(3, np.float32)
    safetensors.numpy.save_file(state | more, folder / "model.safetensors")
    assert bert.read_sizes(folder) == SIZES
    found = bert.read_bert(folder, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_names_are_those_of_bert_base():
    names = {n for entry in bert.names(12) for n in entry.official}
    assert len(names) == 5 + 12 * 16
    assert "encoder.layer.11.attention.output.LayerNorm.bias" in names
    assert "embeddings.token_type_embeddings.weight" in names
    base = jax.eval_shape(
        lambda: Bert(bert.Sizes(30522)).init(jax.random.key(0), IDS, mask_of(LENGTHS, 9))
    )
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(base["params"]))
    assert count == 109_482_240 - 768 * 769  # what is known of BERT-base, less its pooler


def test_weights_of_another_network_are_refused(params, tmp_path):
    folder = written(tmp_path / "bert", params)
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    query = "encoder.layer.1.attention.self.query.weight"
    state["adapter.weight"] = state.pop(query)
    state["encoder.layer.0.output.dense.bias"] = np.ones(9, np.float32)
    safetensors.numpy.save_file(state, folder / "model.safetensors")
    sentence = rf"missing: {query}; extra: adapter\.weight; misshaped: .*output\.dense\.bias is"
    with pytest.raises(UserError, match=sentence):
        bert.read_bert(folder, params)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        bert.read_bert(folder, params)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list instead of an object"),
        (json.dumps(CONFIG | {"model_type": "roberta"}), "model_type 'roberta', not 'bert'"),
        (json.dumps(CONFIG | {"hidden_act": "relu"}), "hidden_act 'relu'"),
        (json.dumps(CONFIG | {"num_attention_heads": 3}), "3 heads do not divide"),
        (json.dumps(CONFIG | {"vocab_size": "many"}), "vocab_size is 'many', no positive"),
        (json.dumps(CONFIG | {"vocab_size": 10**12}), "vocab_size is 1000000000000, no positive"),
        (json.dumps(CONFIG | {"num_hidden_layers": 10**5}), "integer up to 1,000"),
        (json.dumps(CONFIG | {"hidden_size": 2 * 10**6}), "it describes .* parameters"),
        (json.dumps(CONFIG | {"hidden_dropout_prob": "x"}), "hidden_dropout_prob is 'x'"),
        (json.dumps({"model_type": "bert"}), "gives no sizes of a BERT"),
    ],
)
def test_other_configurations_are_refused(tmp_path, text, sentence):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        bert.read_sizes(tmp_path)


def test_a_folder_given_once_brings_sizes_and_pieces(params, tmp_path):
    folder = str(written(tmp_path / "bert", params))
    given = {"init.bert": folder, "model.bert_dropout": "0.0"}
    config = recipe_file.load("configs/worlds.py:vse", given)
    assert (config.model.text, config.data.pieces) == ("bert", folder)
    assert (config.model.bert_width, config.model.bert_positions) == (8, 32)
    assert (config.model.vocabulary_size, config.model.bert_dropout) == (SIZES.vocabulary, 0.0)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    of_run = recipe_file.load("configs/worlds.py:dxr", {"init.bert": str(run)})
    assert of_run.data.pieces == ""
    assert runs_and_files({"bert": str(run)}) == ({"bert": str(run)}, {})
    assert runs_and_files({"bert": folder}) == ({}, {"bert": folder})


def test_states_are_those_of_transformers(params, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = written(tmp_path / "bert", params)
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    mask = mask_of(LENGTHS, 9)
    with torch.no_grad():
        expected = theirs(
            torch.tensor(np.asarray(IDS, np.int64)), torch.tensor(np.asarray(mask, np.int64))
        ).last_hidden_state.numpy()
    ours = jax.jit(Bert(SIZES).apply)({"params": bert.read_bert(folder, params)}, IDS, mask)
    found, expected = np.asarray(ours)[np.asarray(mask)], expected[np.asarray(mask)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
