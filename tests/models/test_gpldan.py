"""GPLDAN: sizes, options, standardisation, and the kNN marginal similarity."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.data.split import ArraySource
from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.losses import graph_pattern
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan
from hmgr_jax.models.gpldan import (
    MASKED_SHARES,
    Neighbourhood,
    _mask_columns,
    diversity,
    measure_moments,
    reversed_gradient,
    standardise,
)

ROWS = 6
SIZES = {"image": 5, "text": 3}
PLAN = Plan(10, 5, 4, {m: {"features": (n,)} for m, n in SIZES.items()})
SMALL = {"dim": 8, "gate_dim": 4, "views": 2}


def items(seed=0):
    rng = np.random.default_rng(seed)
    return {m: {"features": jnp.float32(rng.normal(size=(ROWS, n)))} for m, n in SIZES.items()}


ROW = {"index": jnp.arange(ROWS), "group": jnp.arange(ROWS), "valid": jnp.ones(ROWS, bool)}


def made(**options):
    model = get_model("gpldan", **SMALL | options).fit_to(PLAN)
    return model, jax.jit(model.init)(jax.random.key(0))


def keys(step=0):
    return Keys.at(jnp.int32(0), jnp.int32(step), ROW["index"])


def terms_of(model, variables):
    @jax.jit
    def loss(variables, given):
        codes, _ = model.encode_batch(variables, given, ROW, keys=keys(), axis=LocalAxis())
        return model.loss(variables, codes, ROW, step=jnp.int32(0), keys=keys(), axis=LocalAxis())[
            :2
        ]

    total, terms = loss(variables, items())
    return float(total), {name: float(value) for name, value in terms.items()}


def encode(model, variables, modality, given, train=False):
    """Codes of one modality."""

    @jax.jit
    def codes(variables, given):
        return model.encode(variables, modality, given, train=train, keys=keys())[0]

    return codes(variables, given)


@pytest.mark.parametrize(("text", "count"), [(3000, 16_720_898), (300, 13_956_098)])
def test_parameters_at_the_published_feature_sizes(text, count):
    features = {"image": {"features": (4096,)}, "text": {"features": (text,)}}
    model = get_model("gpldan").fit_to(Plan(10, 5, 4, features))
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_the_total_is_the_weighted_sum_of_its_terms(monkeypatch):
    monkeypatch.setattr(graph_pattern, "SELF_MARGIN", 0.01)
    options = {"edges": ("pair", "het", "homo", "self"), "lambda_self": 0.4}
    total, terms = terms_of(*made(**options, lambda_rec=0.5))
    weights = {"pair": 2, "het": 0.6, "homo": 0.6, "self": 0.4, "modality": 0.1, "diversity": 0.1}
    weights["reconstruction"] = 0.5
    assert terms.keys() == weights.keys()
    assert min(terms.values()) > 0
    assert total == pytest.approx(sum(weights[name] * x for name, x in terms.items()), rel=1e-5)


SWITCHES = {
    "views": {"views": 3},
    "interaction": {"interaction": "none"},
    "batch_cross": {"interaction": "batch_cross"},
    "linear": {"projector": "linear", "views": 1},
    "edges": {"edges": ("pair",)},
    "one partner": {"all_pairs": False},
    "classifier": {"modality_cls": "off"},
    "mean": {"fusion": "mean"},
    "concat": {"fusion": "concat"},
    "input mask": {"input_mask": True},
    "reconstruction": {"lambda_rec": 0.1},
    "triplet": {"objective": "triplet"},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_option_changes_the_loss(switch):
    model, variables = made(**SWITCHES[switch])
    total, _ = terms_of(model, variables)
    plain, _ = terms_of(*made())
    assert np.isfinite(total)
    assert total != pytest.approx(plain, rel=1e-6)
    covered = {path for paths in model.parts().values() for path in paths}
    assert covered == set(variables.params)


def test_gradient_reversal_reverses_the_gradient_of_the_views_only():
    def gradient(kind):
        model, variables = made(modality_cls=kind, edges=("pair",), lambda_div=0.0)

        def modality(params):
            mine = dataclasses.replace(variables, params=params)
            codes, _ = model.encode_batch(mine, items(), ROW, keys=keys(), axis=LocalAxis())
            found = model.loss(mine, codes, ROW, step=jnp.int32(0), keys=keys(), axis=LocalAxis())
            return found[1]["modality"]

        return jax.jit(jax.grad(modality))(variables.params)

    coop, grl = gradient("coop"), gradient("grl")
    for name in ("image", "text", "interaction"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, -b, atol=1e-7), coop[name], grl[name]
        )
    jax.tree.map(np.testing.assert_array_equal, coop["classifier"], grl["classifier"])
    assert float(reversed_gradient(jnp.float32(3.0))) == 3.0


def test_batch_cross_uses_the_paired_item_in_training_only():
    model, variables = made(interaction="batch_cross")
    ours, theirs = items(0), {**items(0), "text": items(1)["text"]}

    @jax.jit
    def views(given):
        codes, _ = model.encode_batch(variables, given, ROW, keys=keys(), axis=LocalAxis())
        return codes["image"]["views"]

    assert np.abs(views(ours) - views(theirs)).max() > 1e-4
    code = encode(model, variables, "image", ours["image"])
    np.testing.assert_allclose(np.linalg.norm(code, axis=1), 1.0, rtol=1e-5)


def test_the_input_mask_is_the_same_for_all_rows():
    model, variables = made(input_mask=True)
    codes = encode(model, variables, "image", items()["image"], train=True)
    np.testing.assert_array_equal(codes["inputs"], items()["image"]["features"])  # targets see all
    assert MASKED_SHARES.keys() == SIZES.keys()
    x = np.asarray(_mask_columns(jnp.ones((ROWS, 5), jnp.float32), 0.4, keys()))
    assert (x == x[:1]).all()
    assert x[0].sum() == 3


def test_diversity_is_the_mean_squared_cosine_of_gates():
    gates = jnp.float32(np.random.default_rng(0).random((2, 3, 7)))
    off = np.asarray(gates) - np.asarray(gates).mean(axis=1, keepdims=True)
    off /= np.linalg.norm(off, axis=-1, keepdims=True)
    cosines = np.einsum("bkd,bld->bkl", off, off) ** 2
    wanted = (cosines.sum(axis=(1, 2)) - 3) / 6
    np.testing.assert_allclose(diversity(gates), wanted, rtol=1e-5)
    np.testing.assert_array_equal(diversity(gates[:, :1]), np.zeros(2))


# --- standardisation ----------------------------------------------------------------------------


def test_images_are_standardised_by_the_training_items():
    rng = np.random.default_rng(0)
    train = {
        m: ArraySource({"features": np.float32(3 + 2 * rng.random((50, n)))})
        for m, n in SIZES.items()
    }
    train["image"].arrays["features"][:, 1] = 7.0  # a constant is only moved
    model, variables = made()
    stats = model.observe(variables.stats, train)
    assert jax.tree.structure(stats) == jax.tree.structure(variables.stats)
    assert list(stats) == ["image"]
    x = standardise(jnp.asarray(train["image"].arrays["features"]), stats["image"])
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), [1, 0, 1, 1, 1], atol=1e-4)
    given = {"features": jnp.asarray(train["image"].arrays["features"][:ROWS])}
    codes = encode(model, dataclasses.replace(variables, stats=stats), "image", given, train=True)
    np.testing.assert_allclose(codes["inputs"], x[:ROWS], atol=1e-6)


def test_moments_equal_those_of_numpy(monkeypatch):
    monkeypatch.setattr("hmgr_jax.models.gpldan.MEASURED_ROWS", 7)
    x = np.float32(1000 + np.random.default_rng(0).random((30, 4)))
    found = measure_moments(ArraySource({"features": x}))
    np.testing.assert_allclose(found["mean"], x.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["deviation"], x.astype(np.float64).std(axis=0), rtol=1e-5)


# --- kNN marginal similarity --------------------------------------------------------------------


def unit(x):
    return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))


def plain_marginal(queries, gallery, images, texts, owner, count):
    """P_v H P_tᵀ with dense matrices."""
    train = np.concatenate([images, texts]).astype(np.float64)
    h = (1 + train @ train.T) / 2
    for text, image in enumerate(owner):
        h[image, len(images) + text] = h[len(images) + text, image] = 1
    each = []
    for x in (queries, gallery):
        close = (1 + x.astype(np.float64) @ train.T) / 2
        p = np.zeros_like(close)
        for row, values in enumerate(close):
            near = np.argsort(-values)[:count]
            p[row, near] = values[near] / values[near].sum()
        each.append(p)
    return each[0] @ h @ each[1].T


@pytest.mark.parametrize("count", [1, 4, 21])
def test_marginal_similarity_is_an_inner_product(count):
    rng = np.random.default_rng(count)
    images, texts, v, t = (unit(rng.normal(size=(n, 4))) for n in (9, 12, 5, 7))
    owner = np.concatenate([np.arange(9), [0, 4, 4]]).astype(np.int32)  # some have two texts
    table = Neighbourhood.of(images, texts, owner)
    a = table.vectors(jnp.asarray(v), count, first=True)
    b = table.vectors(jnp.asarray(t), count, first=False)
    wanted = plain_marginal(v, t, images, texts, owner, count)
    np.testing.assert_allclose(np.asarray(a) @ np.asarray(b).T, wanted, rtol=1e-5)


def test_finalize_stores_the_training_vectors():
    model, variables = made(similarity="knn", neighbours=3)
    assert model.needs_train
    assert not made()[0].needs_train
    codes = {m: np.asarray(encode(model, variables, m, items()[m])) for m in SIZES}
    rows = dict.fromkeys(SIZES, np.arange(ROWS))
    final = model.finalize(variables, codes, rows)
    given = items(5)
    found, plain = (
        {m: encode(model, with_tables, m, given[m]) for m in SIZES}
        for with_tables in (final, variables)
    )
    scores = model.score(final, ("image", found["image"]), ("text", found["text"]))
    wanted = plain_marginal(
        *(np.asarray(plain[m]) for m in SIZES), codes["image"], codes["text"], np.arange(ROWS), 3
    )
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)
    with pytest.raises(UserError, match="neighbours is 13, and there are only 12 training items"):
        dataclasses.replace(model, neighbours=13).finalize(variables, codes, rows)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"edges": ("pair", "near")}, "model.edges must be one of pair, het, homo, self"),
        ({"edges": ()}, "model.edges is empty: name at least one of"),
        ({"projector": "linear"}, "linear has one view, got model.views 4: set it to 1"),
        ({"modality_cls": "no"}, "model.modality_cls must be one of coop, grl, off"),
        ({"lambda_1": -0.1}, "model.lambda_1 must be at least 0, got -0.1"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        get_model("gpldan", **options)
