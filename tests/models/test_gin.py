"""GIN and SCKR: scores, sampled pairs, options, tables, sizes, and bags of words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.models.gin import on_vocabulary, words_in

WORDS, REGIONS, SIZE, BATCH = 20, 3, 6, 6
FEATURES = {
    "image": {"regions": (REGIONS, SIZE), "n_regions": ()},
    "text": {"tokens": (), "lengths": ()},
}
VECTORS = {"image": {"features": (SIZE,)}, "text": {"features": (WORDS,)}}
SMALL: dict = {"dim": 8, "word_dim": 5, "image_hidden": (7,), "pair_dropout": 0.0, "l2": 0.0}
RNG = np.random.default_rng(0)


def made(name="gin", features=FEATURES, **options):
    model = get_model(name, **(SMALL | options))
    return model.fit_to(Plan(10, 5, WORDS, features))


def items():
    tokens = RNG.integers(4, WORDS, (BATCH, 5)).astype(np.int32)
    tokens[:, 0], tokens[1, 3] = 1, 3
    return {
        "image": {
            "regions": RNG.standard_normal((BATCH, REGIONS, SIZE)).astype(np.float16),
            "n_regions": np.full(BATCH, REGIONS, np.int32),
        },
        "text": {"tokens": tokens, "lengths": np.arange(BATCH, dtype=np.int32) % 4 + 2},
    }


ITEMS = jax.tree.map(jnp.asarray, items())
BAGS = {
    "image": {"features": RNG.standard_normal((BATCH, SIZE)).astype(np.float32)},
    "text": {"features": RNG.poisson(0.5, (BATCH, WORDS)).astype(np.float32)},
}
BAGS = jax.tree.map(jnp.asarray, BAGS)
ROW = {
    "index": jnp.arange(BATCH, dtype=jnp.int32),
    "valid": jnp.ones(BATCH, bool),
    "group": jnp.asarray([0, 0, 1, 1, 2, 3]),
}
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), ROW["index"])


def codes_of(model, variables, given=ITEMS, train=False):
    keys = KEYS if train else None
    return {
        m: model.encode(variables, m, given[m], train=train, keys=keys)[0] for m in model.modalities
    }


def test_bags_count_neither_marks_nor_padding():
    tokens = jnp.asarray([[1, 5, 5, 3, 2, 7], [1, 6, 2, 0, 0, 0]])
    mask = words_in(tokens, jnp.asarray([5, 3]))
    bag = on_vocabulary(tokens, mask[:, :, None].astype(jnp.float32), 8)
    assert bag.shape == (8, 2, 1)
    np.testing.assert_array_equal(bag[:, 0, 0], [0, 0, 0, 0, 0, 2, 0, 0])
    np.testing.assert_array_equal(bag[:, 1, 0], [0, 0, 0, 0, 0, 0, 1, 0])


def test_score_and_coarse_equal_the_metric_pair_by_pair():
    model = made()
    variables = model.init(jax.random.key(0))
    variables.params["metric"]["bias"] = jnp.float32(0.7)
    codes = codes_of(model, variables)
    found = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    metric = jax.tree.map(np.float64, variables.params["metric"])
    image, text = (np.float64(codes[m]) for m in model.modalities)
    pairs = [[metric["weight"] @ (a * b) + metric["bias"] for b in text] for a in image]
    np.testing.assert_allclose(found, pairs, rtol=1e-5, atol=1e-6)
    vectors = [np.asarray(model.coarse(variables, m, codes[m])) for m in model.modalities]
    np.testing.assert_allclose(vectors[0] @ vectors[1].T, found, rtol=1e-5, atol=1e-6)


def test_dense_and_sparse_graphs_give_the_same_codes():
    tables = [made(graph=kind).init(jax.random.key(0)).tables for kind in ("dense", "sparse")]
    assert [set(t["graph"]) for t in tables] == [{"dense"}, {"senders", "receivers", "weight"}]
    model = made()
    codes = [codes_of(model, model.init(jax.random.key(0), t))["text"] for t in tables]
    assert np.abs(codes[0]).max() > 0.01
    np.testing.assert_allclose(*codes, rtol=1e-5, atol=1e-6)


def test_sampled_pairs_match_as_drawn():
    model = made(pair_mode="sampled", metric="cosine")
    variables = model.init(jax.random.key(0))
    codes = {m: jax.random.normal(jax.random.key(len(m)), (BATCH, 8)) for m in model.modalities}
    kinds = set()
    for step in range(8):
        keys = Keys.at(jnp.int32(0), jnp.int32(step), ROW["index"])
        scores, matching, counts = model._sampled(variables, codes, ROW, keys, LocalAxis())
        every = np.asarray(codes["text"] @ codes["image"].T)
        partner = np.abs(every - np.asarray(scores)[:, None]).argmin(axis=1)
        same = np.asarray(ROW["group"])[partner] == np.asarray(ROW["group"])
        np.testing.assert_array_equal(same, matching)
        assert np.asarray(counts).all()
        kinds |= {bool(kind) for kind in matching}
    assert kinds == {True, False}


def test_sampled_pairs_do_not_depend_on_padded_rows():
    model = made(pair_mode="sampled")
    variables = model.init(jax.random.key(0))
    codes = codes_of(model, variables)
    longer = {m: jnp.concatenate([x, x[:2] * 9]) for m, x in codes.items()}
    row = {
        "index": jnp.arange(BATCH + 2, dtype=jnp.int32),
        "valid": jnp.arange(BATCH + 2) < BATCH,
        "group": jnp.concatenate([ROW["group"], ROW["group"][:2]]),
    }
    losses = []
    for some, of in ((codes, ROW), (longer, row)):
        keys = Keys.at(jnp.int32(0), jnp.int32(0), of["index"])
        given = {"step": jnp.int32(0), "keys": keys, "axis": LocalAxis()}
        losses.append(model.loss(variables, some, of, **given)[0])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"node_feature": "tfidf"},
        {"node_feature": "bilstm50"},
        {"text_model": "mlp_bow"},
        {"text_model": "textcnn"},
        {"cheb_k": 1},
        {"filters": (2, 3), "cheb_k": 4},
        {"metric": "cosine", "image_hidden": ()},
        {"pair_mode": "sampled", "pair_dropout": 0.5, "l2": 0.1},
    ],
    ids=str,
)
def test_every_option_has_finite_gradients(options):
    model = made(**options)
    variables = model.init(jax.random.key(1))

    @jax.jit
    def slope(params):
        def loss(params):
            now = dataclasses.replace(variables, params=params)
            codes = codes_of(model, now, train=True)
            given = {"step": jnp.int32(0), "keys": KEYS, "axis": LocalAxis()}
            return model.loss(now, codes, ROW, **given)[0]

        return jax.value_and_grad(loss)(params)

    value, gradient = slope(variables.params)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    for path in (p for paths in model.parts().values() for p in paths):
        found = gradient
        for key in path.split("/"):
            found = found[key]
        assert jax.tree.leaves(found), path


@pytest.mark.parametrize("pair_mode", ["all_pairs", "sampled"])
def test_match_label_pairs_items_that_share_a_label(pair_mode):
    """One label an item equals groups; of several labels one common label is enough."""
    row = ROW | {"labels": jnp.eye(4, dtype=jnp.uint8)[ROW["group"]]}
    axis = LocalAxis()
    by_group, by_label = made(pair_mode=pair_mode), made(pair_mode=pair_mode, match="label")
    assert by_label.needs_labels
    assert not by_group.needs_labels
    variables = by_group.init(jax.random.key(0))
    codes = codes_of(by_group, variables, train=True)

    def loss(model, row):
        return model.loss(variables, codes, row, step=jnp.int32(0), keys=KEYS, axis=axis)[0]

    np.testing.assert_allclose(loss(by_label, row), loss(by_group, ROW), rtol=1e-6)
    two = row | {"labels": row["labels"].at[4, 3].set(1)}  # row 4 now shares a label with row 5
    found = loss(by_label, two)
    np.testing.assert_allclose(found, loss(by_group, ROW | {"group": ROW["group"].at[4].set(3)}))
    assert pair_mode == "sampled" or abs(found - loss(by_label, row)) > 1e-6
    none = row | {"labels": row["labels"].at[5].set(0)}  # nobody knows: its own pair matches
    np.testing.assert_allclose(loss(by_label, none), loss(by_group, ROW), rtol=1e-6)


def test_the_mlp_baseline_has_the_size_of_the_graph_path():
    def parameters(model):
        shapes = jax.eval_shape(model.init, jax.random.key(0)).params["text"]
        return sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))

    for options in ({}, {"filters": (8, 8)}):
        graph, mlp = (parameters(made(text_model=text, **options)) for text in ("gcn", "mlp_bow"))
        assert abs(graph - mlp) < WORDS + 1 + SMALL["dim"]


def test_sizes_of_the_sckr_paper():
    """SCKR on CMPlaces: 4,527,889 numbers for texts, 4,195,328 for pictures, 1,025 to compare."""
    features = {"image": {"features": (4096,)}, "text": {"features": (4412,)}}
    model = get_model("gin", image_hidden=()).fit_to(Plan(1, 1, 4, features))
    shapes = jax.eval_shape(model.init, jax.random.key(0)).params
    count = {k: sum(np.prod(x.shape) for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count["image"] == 4195328
    assert count["metric"] == 1025
    # One feature a node here, where SCKR has 50: 49 features less in three terms of one layer.
    assert count["text"] == 4527889 - 3 * 49


def test_feature_sets_replace_captions_and_regions():
    model = made(features=VECTORS)
    assert all(list(of) == ["features"] for of in model.inputs().values())
    variables = model.init(jax.random.key(0))
    codes = codes_of(model, variables, BAGS)
    assert codes["text"].shape == codes["image"].shape == (BATCH, SMALL["dim"])


class Corpus:
    """Six words in two clusters of three by vectors, and one edge of each other relation."""

    graph = None

    def usable(self):
        return np.arange(WORDS) >= 14

    def vectors(self, dim):
        found = np.zeros((WORDS, dim), np.float32)
        found[14:17, 0] = found[17:20, 1] = 1
        return found + 0.01 * RNG.standard_normal(found.shape).astype(np.float32)

    def together(self, least, information):
        return np.array([[14, 19]])

    def triples(self):
        return np.array([[15, 18]])

    def given_graph(self):
        return self.graph

    def inverse_frequencies(self):
        return np.arange(WORDS, dtype=np.float32)


@pytest.mark.parametrize(("relations", "more"), [("S", 0), ("SC", 1), ("SK", 1), ("SCK", 2)])
def test_relations_are_united(relations, more):
    model = made(word_relations=relations, knn_k=2, node_feature="tfidf")
    tables = model.tables_of(Corpus())
    matrix = tables["graph"]["dense"]
    assert np.count_nonzero(matrix) == 2 * (6 + more)  # two triangles, both directions
    assert not matrix[:14].any()
    assert (matrix[14, 19] != 0) == ("C" in relations)
    assert (matrix[15, 18] != 0) == ("K" in relations)
    np.testing.assert_array_equal(tables["rarity"], np.arange(WORDS))


def test_a_given_graph_replaces_the_relations():
    corpus = Corpus()
    corpus.graph = np.array([[4, 5]])
    matrix = made(word_relations="SCK").tables_of(corpus)["graph"]["dense"]
    np.testing.assert_array_equal(np.argwhere(matrix), [[4, 5], [5, 4]])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"word_relations": "SX"}, "S (similar)"),
        ({"word_relations": ""}, "S (similar)"),
        ({"filters": ()}, "at least one of filters"),
        ({"cheb_k": 0}, "model.cheb_k must be at least 1"),
        ({"metric": "dot"}, "model.metric must be one of"),
    ],
)
def test_invalid_options_raise(options, part):
    with pytest.raises(UserError) as refused:
        get_model("gin", **options)
    assert part in str(refused.value)


def test_sckr_raises_on_bags_of_words():
    with pytest.raises(UserError, match="read words in order"):
        made("sckr", features=VECTORS)


@pytest.mark.parametrize("pair_mode", ["all_pairs", "sampled"])
def test_the_bias_of_the_metric_gets_no_gradient(pair_mode):
    """The loss depends on differences of scores alone."""
    model = made(pair_mode=pair_mode)
    variables = model.init(jax.random.key(0))

    def loss(metric):
        own = dataclasses.replace(variables, params=variables.params | {"metric": metric})
        codes = codes_of(model, own, train=True)
        return model.loss(own, codes, ROW, step=jnp.int32(0), keys=KEYS, axis=LocalAxis())[0]

    metric = variables.params["metric"]
    assert jax.grad(loss)(metric)["bias"] == 0
    np.testing.assert_allclose(loss(metric | {"bias": jnp.float32(3)}), loss(metric), rtol=1e-4)
