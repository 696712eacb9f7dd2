"""XTRA: captions may be permuted, cut and swapped; the last word of the question is pooled."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import compilations, data_of, retrieved_tables

from hmgr_jax.errors import UserError
from hmgr_jax.layers.bert import Bert
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Plan, Variables
from hmgr_jax.training.experiment import classes_of, item_shapes

SMALL = {"width": 16, "layers": 2, "heads": 4, "intermediate": 24, "positions": 128, "word_dim": 8}
ITEMS = np.arange(8)


def model_of(**options):
    data = data_of(("question", "answer"))
    train = data.splits["train"]
    plan = Plan(10, 5, len(data.vocabulary), item_shapes(train), classes_of(train))
    return get_model("xtra", **SMALL, **{"k_train": 4, "k_test": 4, **options}).fit_to(plan)


@cache
def params_of(reader):
    """Parameters far from the small ones at the start, so that nothing is lost in rounding."""
    made = jax.jit(model_of(reader=reader).init)(jax.random.key(0)).params
    leaves, tree = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


@cache
def encoder(model, train=False):
    def encode(variables, items, keys):
        return model.encode(variables, "question", items, train=train, keys=keys)[0]

    return jax.jit(encode)


def read(model, tables, items=None, train=False):
    """Codes of the first questions of the test split."""
    variables = Variables(params_of(model.reader), {}, None, tables)
    items = questions() if items is None else items
    wanted = {name: items[name] for name in model.inputs()["question"]}
    keys = Keys.at(jnp.int32(0), jnp.int32(0), jnp.asarray(ITEMS, jnp.int32))
    return np.asarray(encoder(model, train)(variables, wanted, keys))


def questions(length=16):
    return data_of(("question", "answer")).splits["test"].sources["question"].gather(ITEMS, length)


def tables():
    """Four captions were retrieved for every picture."""
    found = retrieved_tables()
    return {**found, "retrieved": np.abs(found["retrieved"])}


def permuted(order):
    found = tables()
    return {**found, "retrieved": found["retrieved"][:, list(order)]}


@pytest.mark.parametrize("reader", ["visualbert", "mcan"])
def test_the_order_of_captions_does_not_matter_where_positions_restart(reader):
    model = model_of(reader=reader)
    found, other = read(model, tables()), read(model, permuted((2, 0, 3, 1)))
    np.testing.assert_allclose(other, found, atol=2e-5)
    assert np.abs(read(model, retrieved_from_the_end()) - found).max() > 0.01  # other captions do


def retrieved_from_the_end():
    found = tables()
    return {**found, "retrieved": found["retrieved"][::-1]}


def test_the_order_matters_where_positions_run_on():
    model = model_of(caption_positions="run_on")
    found, other = read(model, tables()), read(model, permuted((2, 0, 3, 1)))
    assert np.abs(found - other).max() > 0.01


@pytest.mark.parametrize("positions", ["restart", "run_on"])
def test_k_at_test_may_differ_from_k_in_training(positions):
    four = model_of(caption_positions=positions)
    two = model_of(caption_positions=positions, k_test=2)
    missing = tables()
    missing["retrieved"] = missing["retrieved"].copy()
    missing["retrieved"][:, 2:] = -1
    # Captions that are not there are as if they had not been asked for.
    np.testing.assert_allclose(read(two, tables()), read(four, missing), atol=2e-5)
    none = model_of(caption_positions=positions, k_test=0)
    missing["retrieved"][:] = -1
    np.testing.assert_allclose(read(none, None), read(four, missing), atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"caption_positions": "run_on"}, {"reader": "mcan"}])
def test_padding_of_captions_and_questions_does_not_matter(options):
    model = model_of(**options)
    found, dirty = tables(), tables()
    place = np.arange(found["captions"].shape[1])
    dirty["captions"] = np.where(place < found["lengths"][:, None], found["captions"], 9)
    clean = read(model, found)
    np.testing.assert_array_equal(read(model, dirty), clean)
    np.testing.assert_allclose(read(model, found, questions(length=20)), clean, atol=2e-5)


def test_the_last_word_of_the_question_is_pooled():
    """Where no place sees another, what is pooled depends on that word alone."""
    model, items = model_of(k_test=0), questions()
    variables = Variables(without_attention(params_of("visualbert")), {}, None, None)

    def codes(tokens):
        wanted = {n: items[n] for n in model.inputs()["question"]} | {"tokens": tokens}
        return np.asarray(encoder(model)(variables, wanted, None))

    found = codes(items["tokens"])
    for back, depends in ((1, False), (2, True), (3, False)):
        other = items["tokens"].copy()
        other[ITEMS, items["lengths"] - back] = 7
        assert (np.abs(codes(other) - found).max(axis=1) > 1e-3).any() == depends, back


def without_attention(params):
    """The same parameters with values of 0, so that no place sees another."""

    def changed(path, x):
        return jnp.zeros_like(x) if any(key.key == "value" for key in path) else x

    return jax.tree_util.tree_map_with_path(changed, params)


def test_a_bank_is_swapped_without_compiling():
    model = model_of()
    first = read(model, tables())
    swapped = tables()
    swapped["captions"] = swapped["captions"][::-1].copy()
    before = compilations()
    second = read(model, swapped)
    assert compilations() == before
    assert np.abs(second - first).max() > 0.01


def test_retrieval_dropout_leaves_out_whole_captions():
    still = {"dropout": 0.0, "head_dropout": 0.0}
    kept = read(model_of(**still, retrieval_dropout=0.0), tables(), train=True)
    np.testing.assert_allclose(kept, read(model_of(**still), tables()), atol=2e-5)
    dropped = read(model_of(**still, retrieval_dropout=0.9), tables(), train=True)
    none = read(model_of(**still, k_train=0), None, train=True)
    off = np.abs(dropped - none).max(axis=1)
    assert (off < 2e-5).any()  # all four were left out: 0.9 ** 4 of the questions
    assert np.abs(dropped - kept).max() > 0.01


def test_images_are_read_beside_captions_or_alone():
    for retrieve in ("images", "both"):
        model = model_of(retrieve=retrieve, picture_dim=5)
        params = jax.jit(model.init)(jax.random.key(0)).params

        def codes(given, model=model, params=params):
            variables = Variables(params, {}, None, given)
            items = {n: questions()[n] for n in model.inputs()["question"]}
            return np.asarray(encoder(model)(variables, items, None))

        other = {**tables(), "vectors": -tables()["vectors"]}
        captions = {**tables(), "captions": tables()["captions"][::-1]}
        found = codes(tables())
        assert np.abs(codes(other) - found).max() > 1e-6
        assert np.array_equal(codes(captions), found) == (retrieve == "images")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"heads": 3}, "model.heads must divide model.width, 16, got 3"),
        ({"retrieve": "images"}, "model.picture_dim must be the length"),
        ({"reader": "lstm"}, "model.reader must be one of visualbert, mcan, got 'lstm'"),
        ({"k_test": -1}, "model.k_test must be at least 0"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        get_model("xtra", **{**SMALL, **options})


def test_too_few_captions_or_positions_raise():
    with pytest.raises(UserError, match="reads 5 captions, but 4 were retrieved"):
        read(model_of(k_test=5), tables())
    with pytest.raises(UserError, match=r"need 96 positions, but model\.positions is 64: raise"):
        read(dataclasses.replace(model_of(caption_positions="run_on"), positions=64), tables())


def test_weights_of_a_bert_fit_into_the_reader():
    model, ids = model_of(), jnp.ones((1, 4), jnp.int32)
    own = jax.eval_shape(model.init, jax.random.key(0)).params["reader"]["bert"]
    plain = jax.eval_shape(Bert(model.sizes).init, jax.random.key(0), ids, ids > 0)["params"]
    assert jax.tree.map(lambda x: x.shape, own) == jax.tree.map(lambda x: x.shape, plain)
    assert model.parts()["bert"] == ("reader/bert",)
