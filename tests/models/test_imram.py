"""IMRAM: the fast form equals the plain form, in value and gradient, for every option."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_imram
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.layers import matching
from hmgr_jax.layers.cross_attention import RAW_NORMS, Attention, Contexts, Queries
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.packing import pack
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan, Variables
from hmgr_jax.models.imram import IMRAM, UNITS

IMAGES, REGIONS, CAPTIONS, LONGEST, FEATURES, DIM = 3, 4, 3, 5, 6, 8
LENGTHS = np.array([5, 2, 4])
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(IMAGES))


def model_of(**options):
    sizes = {"image": {"regions": (REGIONS, FEATURES)}, "text": {}}
    fitted = IMRAM(dim=DIM, word_dim=4, **options).fit_to(Plan(10, 5, 20, sizes))
    assert isinstance(fitted, IMRAM)
    return fitted


def items():
    rng = np.random.default_rng(0)
    return {
        "image": {
            "regions": jnp.asarray(rng.standard_normal((IMAGES, REGIONS, FEATURES)), jnp.float16),
            "n_regions": jnp.full(IMAGES, REGIONS, jnp.int32),
        },
        "text": {
            "tokens": jnp.asarray(rng.integers(4, 20, (CAPTIONS, LONGEST)), jnp.int32),
            "lengths": jnp.asarray(LENGTHS, jnp.int32),
        },
    }


def encoded(model, params):
    variables = Variables(params, None, None, None)
    return {
        m: model.encode(variables, m, found, train=True, keys=None)[0]
        for m, found in items().items()
    }


def fast(model, params):
    codes = encoded(model, params)
    return model.step_scores(Variables(params, None, None, None), codes["image"], codes["text"])


def pair_by_pair(model, params):
    """Each step's scores of all pairs by the form for given pairs."""
    codes = encoded(model, params)
    variables = Variables(params, None, None, None)
    i, j = np.indices((IMAGES, CAPTIONS)).reshape(2, -1)
    images = jax.tree.map(lambda x: x[i], codes["image"])
    texts = jax.tree.map(lambda x: x[j], codes["text"])
    steps = [
        dataclasses.replace(model, score_step=k + 1).score_pairs(variables, images, texts)
        for k in range(model.steps)
    ]
    return jnp.stack(steps).reshape(model.steps, IMAGES, CAPTIONS)


def plain(model, params):
    codes = encoded(model, params)
    nodes = codes["image"]["nodes"], codes["text"]["nodes"]
    units = params.get("units", {})
    return plain_imram.step_scores(model, units, *nodes, LENGTHS)


def assert_same(model, tolerance=1e-5):
    params = model.init(jax.random.key(1)).params
    mix = jax.random.normal(jax.random.key(2), (model.steps, IMAGES, CAPTIONS))
    found = []
    for form in (fast, plain, pair_by_pair):

        def mixed(p, form=form):
            scores = form(model, p)
            return jnp.sum(scores * mix), scores

        found.append(jax.jit(jax.value_and_grad(mixed, has_aux=True))(params))
    (_, expected), expected_gradient = found.pop(1)
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected_gradient))
    for (_, scores), gradient in found:
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    ("variant", "steps"), [("full", 1), ("full", 3), ("text", 3), ("image", 3)]
)
def test_every_variant_and_step_equals_the_plain_form(variant, steps):
    assert_same(model_of(variant=variant, steps=steps))


@pytest.mark.parametrize("raw_norm", RAW_NORMS[1:])
def test_every_raw_norm_equals_the_plain_form(raw_norm):
    assert_same(model_of(raw_norm=raw_norm, steps=1))


def test_softmax_norm_of_a_caption_ignores_other_captions_of_the_row():
    """Two captions of two words share a row; the second has far smaller products."""
    raw = jnp.asarray([[[900.0, 902.0, 1.0, 3.0], [901.0, 900.0, 2.0, -90.0]]])
    caption = jnp.asarray([70, 70, 71, 71])
    contexts = Contexts(jnp.zeros((1, 2, 1)), jnp.ones((1, 2), bool), jnp.zeros((1, 2, 2)), ())
    queries = Queries(
        jnp.zeros((4, 1)),
        jnp.ones(4, bool),
        (),
        sum_within=lambda x: jnp.einsum(
            "byq,qp->byp", x, jnp.float32(caption[:, None] == caption[None])
        ),
        max_within=lambda x: matching.max_within_captions(x, caption),
    )
    found = Attention(raw_norm="softmax").weights(raw, contexts, queries)
    each = [jax.nn.softmax(raw[:, :, i : i + 2], axis=2) for i in (0, 2)]
    expected = jax.nn.softmax(9.0 * jnp.concatenate(each, axis=2), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS[1:])
def test_every_unit_equals_the_plain_form(unit):
    # Of mlp the plain form itself is 3e-5 from its value in float64.
    assert_same(model_of(unit=unit, steps=2), tolerance=4e-5 if unit == "mlp" else 1e-5)


@pytest.mark.slow
def test_memory_norm_equals_the_plain_form():
    assert_same(model_of(memory_norm=True, variant="text", steps=2))


@pytest.mark.slow
def test_relu_equals_the_plain_form():
    assert_same(model_of(slope=0.0, sharpness=4.0, steps=1))


def test_masked_regions_do_not_change_the_score():
    model = model_of()
    params = model.init(jax.random.key(1)).params
    whole = encoded(model, params)
    fewer = {k: whole["image"][k] for k in ("nodes", "mask", "gram", "context", "query")}
    fewer["mask"] = jnp.arange(REGIONS)[None, :] < jnp.array([[2], [REGIONS], [1]])
    variables = Variables(params, None, None, None)
    scores = model.step_scores(variables, fewer, whole["text"])
    for image, count in ((0, 2), (2, 1)):
        cut = jax.tree.map(lambda x, i=image, n=count: x[i : i + 1, :n], whole["image"])
        cut["gram"] = cut["gram"][:, :, :count]
        alone = model.step_scores(variables, cut, whole["text"])
        np.testing.assert_allclose(scores[:, image], alone[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_block_sizes_do_not_change_the_score(monkeypatch):
    """Several rows of words, and blocks of captions and images, some of them filled up."""
    monkeypatch.setattr(matching, "ROW", 7)
    monkeypatch.setattr(matching, "CAPTIONS", {"cpu": 2})
    monkeypatch.setattr(matching, "IMAGES", {"cpu": 2})
    assert_same(model_of(steps=2))


@pytest.mark.parametrize("options", [{}, {"variant": "text", "score_step": 2}])
def test_given_pairs_score_as_in_the_matrix(monkeypatch, options):
    """Pairs that do not fill their block, with repeated images."""
    monkeypatch.setattr(matching, "PAIRS", 3)
    model = model_of(**options)
    params = model.init(jax.random.key(1)).params
    variables = Variables(params, None, None, None)
    codes = encoded(model, params)
    matrix = model.score(variables, ("image", codes["image"]), ("text", codes["text"]))
    images, texts = np.array([0, 1, 2, 2, 0]), np.array([0, 1, 2, 0, 2])
    found = model.score_pairs(
        variables,
        jax.tree.map(lambda x: x[images], codes["image"]),
        jax.tree.map(lambda x: x[texts], codes["text"]),
    )
    np.testing.assert_allclose(found, matrix[images, texts], rtol=1e-5)


def test_captions_are_packed_whole_and_in_order():
    packing = jax.jit(pack, static_argnums=(1, 2))(jnp.asarray([3, 4, 2, 5, 1]), 5, 8)
    assert packing.valid.shape == (5, 8)
    np.testing.assert_array_equal(packing.valid.sum(axis=1), [7, 8, 0, 0, 0])
    np.testing.assert_array_equal(packing.caption[0], [0, 0, 0, 1, 1, 1, 1, -1])
    np.testing.assert_array_equal(packing.caption[1], [2, 2, 3, 3, 3, 3, 3, 4])
    np.testing.assert_array_equal(packing.source[1], [10, 11, 15, 16, 17, 18, 19, 20])
    full = pack(jnp.full(6, 4), 4, 8)
    assert full.valid.shape == (3, 8)
    assert full.valid.all()


def test_one_step_and_add_have_no_unit_parameters():
    assert "units" not in model_of(steps=1).init(jax.random.key(0)).params
    assert "units" not in model_of(unit="add").init(jax.random.key(0)).params
    assert set(model_of(variant="text").init(jax.random.key(0)).params["units"]) == {"t2i"}
    assert get_model("scan").steps == 1


def test_number_of_parameters_is_that_of_the_paper():
    """With the vocabulary of Flickr30K, in our layout of the GRU."""
    plan = Plan(10, 5, 8481, {"image": {"regions": (36, 2048)}, "text": {}})
    for variant, expected in (("full", 21_178_028), ("text", 16_981_676), ("image", 16_981_676)):
        model = IMRAM(variant=variant).fit_to(plan)
        shapes = jax.eval_shape(model.init, jax.random.key(0)).params
        assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def test_score_step_scores_by_one_step():
    model = model_of()
    params = model.init(jax.random.key(1)).params
    variables = Variables(params, None, None, None)
    codes = encoded(model, params)
    a, b = ("image", codes["image"]), ("text", codes["text"])
    steps = model.step_scores(variables, codes["image"], codes["text"])
    np.testing.assert_allclose(model.score(variables, a, b), steps.sum(axis=0), rtol=1e-6)
    second = dataclasses.replace(model, score_step=2)
    np.testing.assert_array_equal(second.score(variables, a, b), steps[1])
    np.testing.assert_array_equal(second.score(variables, b, a), steps[1].T)


def test_weight_norm_has_one_length_for_the_whole_matrix():
    model = model_of(region_embedding="weight_norm", variant="text", steps=1)
    params = model.init(jax.random.key(1)).params
    own = params["image"]["regions"]["linear"]
    assert float(own["scale"]) == pytest.approx(float(jnp.linalg.norm(own["kernel"])))
    nodes = encoded(model, params)["image"]["nodes"]
    longer = own | {"kernel": own["kernel"] * 3.0}
    again = params | {"image": {"regions": {"linear": longer}}}
    np.testing.assert_allclose(encoded(model, again)["image"]["nodes"], nodes, atol=1e-6)


def test_gradients_are_finite_for_regions_of_zeros():
    for raw_norm in ("clipped_l2norm", "softmax", "l1norm"):
        model = model_of(raw_norm=raw_norm, steps=2)
        params = model.init(jax.random.key(1)).params
        found = items()
        found["image"]["regions"] = found["image"]["regions"].at[0].set(0)

        def loss(p, model=model, found=found):
            v = Variables(p, None, None, None)
            codes = {m: model.encode(v, m, x, train=True, keys=None)[0] for m, x in found.items()}
            row = {"valid": jnp.ones(IMAGES, bool), "group": jnp.arange(IMAGES)}
            others = {"step": jnp.int32(0), "keys": KEYS, "axis": LocalAxis()}
            return model.loss(v, codes, row, **others)[0]

        gradient = jax.jit(jax.grad(loss))(params)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient)), raw_norm


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "both"}, "model.variant must be one of full, text, image, got 'both'"),
        ({"steps": 0}, "model.steps must be at least 1"),
        ({"score_step": 4}, "model.score_step is 4, but model.steps is 3"),
        ({"unit": "gru"}, "model.unit must be one of gate_full"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        IMRAM(**options)
