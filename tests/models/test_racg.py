"""RACG: the factored form equals the plain form, in value and gradient, for every option."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_racg
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.layers import pair_blocks
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import LocalAxis, Plan, Variables
from hmgr_jax.models.racg import RACG

IMAGES, REGIONS, CAPTIONS, LONGEST, FEATURES, DIM = 3, 5, 3, 6, 6, 8
COUNTS, LENGTHS = np.array([5, 3, 1]), np.array([6, 2, 4])
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(IMAGES))
SIDE = {"labels": (REGIONS,), "attributes": (REGIONS,), "boxes": (REGIONS, 4)}


def model_of(*side, name="racg", **options):
    sizes = {"image": {"regions": (REGIONS, FEATURES)}, "text": {}}
    sizes["image"] |= {key: SIDE[key] for key in side}
    given = {"dim": DIM, "word_dim": 4, "heads": 2} | options
    return get_model(name, **given).fit_to(Plan(10, 5, 20, sizes))


def items(**more):
    rng = np.random.default_rng(0)
    return {
        "image": {
            "regions": jnp.asarray(rng.standard_normal((IMAGES, REGIONS, FEATURES)), jnp.float16),
            "n_regions": jnp.asarray(COUNTS, jnp.int32),
        }
        | more,
        "text": {
            "tokens": jnp.asarray(rng.integers(4, 20, (CAPTIONS, LONGEST)), jnp.int32),
            "lengths": jnp.asarray(LENGTHS, jnp.int32),
        },
    }


def side_information():
    rng = np.random.default_rng(1)
    low = rng.random((IMAGES, REGIONS, 2))
    boxes = np.concatenate([low * 0.5, 0.5 + low * 0.4], axis=2)
    return {
        "boxes": jnp.asarray(boxes, jnp.float32),
        "labels": jnp.asarray(rng.integers(-1, 3, (IMAGES, REGIONS)), jnp.int16),
        "attributes": jnp.asarray(rng.integers(-1, 2, (IMAGES, REGIONS)), jnp.int16),
    }


def encoded(model, params, found=None):
    variables = Variables(params, None, None, None)
    return {
        m: model.encode(variables, m, own, train=True, keys=None)[0]
        for m, own in (found or items()).items()
    }


def drawn(model, seed=1):
    """Parameters of which none is zero or the identity, so that all affect the score."""
    params = model.init(jax.random.key(seed)).params
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    noise = [x + 0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, noise)


def fast(model, params):
    codes = encoded(model, params)
    variables = Variables(params, None, None, None)
    return model.score(variables, ("image", codes["image"]), ("text", codes["text"]))


def pair_by_pair(model, params):
    codes = encoded(model, params)
    i, j = np.indices((IMAGES, CAPTIONS)).reshape(2, -1)
    images = jax.tree.map(lambda x: x[i], codes["image"])
    texts = jax.tree.map(lambda x: x[j], codes["text"])
    scores = model.score_pairs(Variables(params, None, None, None), images, texts)
    return scores.reshape(IMAGES, CAPTIONS)


def at_once(model, params):
    """Scores of the first two images and captions, without blocks."""
    codes = jax.tree.map(lambda x: x[:2], encoded(model, params))
    return model.score_block(Variables(params, None, None, None), codes["image"], codes["text"])


def plain(model, params, count=IMAGES):
    codes = encoded(model, params)
    nodes = codes["image"]["nodes"][:count], codes["text"]["nodes"][:count]
    return plain_racg.scores(model, params, *nodes, COUNTS[:count], LENGTHS[:count])


def plain_of_two(model, params):
    return plain(model, params, 2)


def assert_same(model, forms=(plain, fast, pair_by_pair), tolerance=1e-5):
    """Every form has the values and the gradient of the first."""
    params = drawn(model)
    mix = jax.random.normal(jax.random.key(2), (IMAGES, CAPTIONS))
    found = []
    for form in forms:

        def mixed(p, form=form):
            scores = form(model, p)
            return jnp.sum(scores * mix[: len(scores), : len(scores)]), scores

        found.append(jax.jit(jax.value_and_grad(mixed, has_aux=True))(params))
    (_, expected), expected_gradient = found.pop(0)
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected_gradient))
    for (_, scores), gradient in found:
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("name", ["racg", "racg_strict"])
def test_factored_form_equals_the_plain_form(name):
    assert_same(model_of(name=name))


@pytest.mark.parametrize(
    "options",
    [
        {"inter_blocks": False},
        {"reconstruction": False},
        {"recon_source": "all"},
        {"recon_logit": "dot", "sharpness": 3.0},
        {"heads": 1},
        {"heads": 4},
        {"intra_graph": False},
    ],
)
def test_every_option_equals_the_plain_form_and_changes_the_score(options):
    model = model_of(**options)
    assert_same(model, (plain_of_two, at_once))
    usual = model_of()
    if jax.tree.structure(drawn(usual)) == jax.tree.structure(drawn(model)):
        off = at_once(usual, drawn(usual)) - at_once(model, drawn(model))
        assert float(jnp.abs(off).max()) > 1e-4


def test_block_sizes_do_not_change_the_score(monkeypatch):
    """Several blocks of captions, images and pairs, some of them filled up."""
    monkeypatch.setattr(pair_blocks, "CAPTIONS", {"cpu": 2})
    monkeypatch.setattr(pair_blocks, "IMAGES", {"cpu": 2})
    monkeypatch.setattr(pair_blocks, "PAIRS", 4)
    monkeypatch.setattr(pair_blocks, "WORDS", (2, 4, 5))
    assert_same(model_of())


def test_score_of_captions_and_images_is_the_transpose():
    model = model_of()
    params = drawn(model)
    variables, codes = Variables(params, None, None, None), encoded(model, params)
    a, b = ("image", codes["image"]), ("text", codes["text"])
    np.testing.assert_array_equal(model.score(variables, b, a), model.score(variables, a, b).T)


def test_padding_does_not_count_as_nodes():
    """Words count in N even without relations between the items."""
    model = model_of(inter_blocks=False)
    params = drawn(model)
    variables, codes = Variables(params, None, None, None), encoded(model, params)
    padded = jax.tree.map(
        lambda x: jnp.pad(x, ((0, 0), (0, 3), *[(0, 0)] * (x.ndim - 2))), codes["text"]
    )
    here = ("image", codes["image"])
    expected = model.score(variables, here, ("text", codes["text"]))
    np.testing.assert_allclose(
        model.score(variables, here, ("text", padded)), expected, rtol=1e-5, atol=1e-6
    )


def test_number_of_parameters_at_the_papers_sizes():
    """With 16 groups and without boxes and distances; labels and attributes add their tables."""

    def count(vocabulary, *side):
        found = {"regions": (36, 2048)} | dict.fromkeys(side, (36,))
        model = RACG().fit_to(Plan(10, 5, vocabulary, {"image": found, "text": {}}))
        shapes = jax.eval_shape(model.init, jax.random.key(0)).params
        return sum(x.size for x in jax.tree.leaves(shapes))

    assert count(8481) == 25_384_750
    assert count(11353) == 26_246_350
    assert count(8481, "labels", "attributes") == 25_384_750 + 1_215_000


def test_cost_of_a_pair_is_bounded():
    """XLA counts 8.8 (strict: 14.9) million operations at D = 1024, 36 regions and 14 words."""
    for name, most in (("racg", 10e6), ("racg_strict", 16e6)):
        sizes = {"image": {"regions": (36, 2048)}, "text": {}}
        model = get_model(name).fit_to(Plan(10, 5, 1000, sizes))
        variables = jax.eval_shape(model.init, jax.random.key(0))
        found = {
            "image": {"regions": _shape(1, 36, 2048), "n_regions": _shape(1)},
            "text": {"tokens": _shape(1, 14), "lengths": _shape(1)},
        }
        codes = {
            m: jax.eval_shape(
                lambda v, x, m=m, model=model: model.encode(v, m, x, train=False, keys=None)[0],
                variables,
                found[m],
            )
            for m in found
        }
        score = jax.jit(model.score_block).lower(variables, codes["image"], codes["text"])
        assert 0.8 * most < score.compile().cost_analysis()["flops"] < most


def _shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float16 if len(sizes) == 3 else jnp.int32)


def test_strict_preset_has_the_options_of_cgam():
    usual, strict = model_of(), model_of(name="racg_strict")
    assert (usual.recon_source, usual.recon_logit, usual.sharpness) == ("cross", "cos", 10.0)
    assert (strict.recon_source, strict.recon_logit, strict.sharpness) == ("all", "dot", 1.0)
    assert (usual.mask_same_image, strict.mask_same_image) == (True, False)
    assert usual.sum_warmup_steps == strict.sum_warmup_steps == 5  # an epoch


# --- classes, attributes and boxes of regions -----------------------------------------------------


def test_inputs_missing_from_the_data_are_optional():
    with_all = model_of("labels", "attributes", "boxes", object_classes=3, attribute_classes=2)
    image = with_all.inputs()["image"]
    for name in ("labels", "attributes", "boxes"):
        assert image[name].optional
    assert (image["labels"].num_classes, image["attributes"].num_classes) == (3, 2)
    assert "labels" not in model_of("boxes").inputs()["image"]
    assert model_of().inputs()["image"].keys() == {"regions", "n_regions"}
    off = model_of(*SIDE, boxes=False, object_classes=0, attribute_classes=0)
    assert off.inputs()["image"].keys() == {"regions", "n_regions"}
    assert "classes" not in off.init(jax.random.key(0)).params["image"]


@pytest.mark.parametrize("name", ["labels", "attributes", "boxes"])
def test_side_information_reaches_the_score(name):
    model = model_of(*SIDE, object_classes=3, attribute_classes=2)
    params, side = drawn(model), side_information()
    variables = Variables(params, None, None, None)

    def score(**found):
        codes = encoded(model, params, items(**found))
        return model.score(variables, ("image", codes["image"]), ("text", codes["text"]))

    whole = score(**side)
    changed = side | {name: side[name][:, ::-1]}
    assert float(jnp.abs(score(**changed) - whole)[0].max()) > 1e-4
    np.testing.assert_allclose(
        score(**changed)[2], whole[2], atol=1e-5
    ) if name == "boxes" else None
    without = {key: value for key, value in side.items() if key != name}
    if name == "boxes":
        assert float(jnp.abs(score(**without) - whole).max()) > 1e-4
    else:  # as if no region had a class
        none = jnp.full_like(side[name], -1)
        np.testing.assert_array_equal(score(**without), score(**side | {name: none}))


def test_classes_are_rows_of_their_tables():
    model = model_of("labels", object_classes=3, intra_graph=False)
    params, side = drawn(model), side_information()
    codes = encoded(model, params, items(labels=side["labels"]))["image"]["nodes"]
    own = params["image"]
    table = own["classes"]["labels"]["vectors"]
    assert table.shape == (4, 4)
    x = items()["image"]["regions"].astype(jnp.float32) @ own["regions"]["linear"]["kernel"]
    x = x + own["regions"]["linear"]["bias"][None, None]
    x = x + table[np.asarray(side["labels"], np.int32) + 1] @ own["classes"]["out"]["kernel"]
    expected = x / jnp.linalg.norm(x, axis=2, keepdims=True)
    for row, count in enumerate(COUNTS):
        np.testing.assert_allclose(codes[row, :count], expected[row, :count], atol=1e-5)


def test_distances_of_words_have_weights_up_to_a_limit():
    model = model_of(text_distance=2)
    params = drawn(model)
    weights = params["text"]["graph"]["distance"]["weights"]
    assert weights.shape == (5,)
    zero = jax.tree.map(lambda x: x, params)
    zero["text"]["graph"]["distance"]["weights"] = jnp.zeros(5)
    plain_model = model_of()
    found = encoded(plain_model, params)["text"]["nodes"]
    np.testing.assert_array_equal(encoded(model, zero)["text"]["nodes"], found)
    assert float(jnp.abs(encoded(model, params)["text"]["nodes"] - found).max()) > 1e-4


# --- the loss -------------------------------------------------------------------------------------


def loss_of(model, params, step, found=None):
    variables = Variables(params, None, None, None)
    codes = encoded(model, params, found)
    row = {"valid": jnp.ones(IMAGES, bool), "group": jnp.arange(IMAGES)}
    others = {"step": jnp.int32(step), "keys": KEYS, "axis": LocalAxis()}
    total, terms, _, _ = model.loss(variables, codes, row, **others)
    return total, terms


def test_warm_up_trains_on_all_negatives():
    model = model_of()
    params = drawn(model)
    scores = np.asarray(fast(model, params))
    positive = np.diag(scores)
    off = ~np.eye(IMAGES, dtype=bool)
    rows = np.where(off, np.maximum(0.2 + scores - positive[:, None], 0), 0)
    columns = np.where(off, np.maximum(0.2 + scores - positive[None], 0), 0)
    everything, before = loss_of(model, params, 4)
    hardest, terms = loss_of(model, params, 5)
    assert float(everything) == pytest.approx(rows.sum() + columns.sum(), rel=1e-4)
    assert float(hardest) == pytest.approx(rows.max(1).sum() + columns.max(0).sum(), rel=1e-4)
    assert terms.keys() == {"triplet", "hardest"}
    assert terms["triplet"] == terms["hardest"] == pytest.approx(float(before["hardest"]), rel=1e-4)


def test_reconstruction_loss_is_the_mean_distance_of_rebuilt_nodes():
    model = model_of(recon_weight=0.1)
    params = drawn(model)
    total, terms = loss_of(model, params, 5)
    nodes = [encoded(model, params)[m]["nodes"] for m in ("image", "text")]
    cut = zip(*nodes, COUNTS, LENGTHS, strict=True)
    each = [plain_racg.distance(model, params, v[:n], t[:m]) for v, t, n, m in cut]
    assert float(terms["reconstruction"]) == pytest.approx(np.mean(each), rel=1e-4)
    alone, _ = loss_of(dataclasses.replace(model, recon_weight=0.0), params, 5)
    assert float(total) == pytest.approx(float(alone) + 0.1 * np.mean(each), rel=1e-5)


@pytest.mark.parametrize("name", ["racg", "racg_strict"])
def test_gradients_are_finite_for_regions_of_zeros(name):
    model = model_of(name=name, recon_weight=0.1)
    params, found = model.init(jax.random.key(1)).params, items()
    found["image"]["regions"] = found["image"]["regions"].at[0].set(0)
    for step in (0, 5):
        gradient = jax.jit(jax.grad(lambda p, s=step: loss_of(model, p, s, found)[0]))(params)
        assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))


# --- explanations ---------------------------------------------------------------------------------


def test_explanation_shows_the_shares_of_rebuilt_nodes():
    model = model_of()
    params = drawn(model)
    codes = encoded(model, params)
    one = {m: jax.tree.map(lambda x: x[1:2], codes[m]) for m in codes}
    found = model.explain(Variables(params, None, None, None), one["image"], one["text"])
    np.testing.assert_allclose(found.scores[0], fast(model, params)[1, 1], rtol=1e-5)
    weights, cosines = found.attention["t2i"]
    assert weights.shape == (1, LONGEST, REGIONS)
    np.testing.assert_allclose(weights[0, : LENGTHS[1]].sum(axis=1), 1.0, rtol=1e-5)
    assert (weights[:, :, COUNTS[1] :] == 0).all()
    regions, words = one["image"]["nodes"][0, : COUNTS[1]], one["text"]["nodes"][0, : LENGTHS[1]]
    _, r = plain_racg.both_rebuilt(model, params, regions, words)
    expected = jnp.sum(words * r, axis=1) / jnp.linalg.norm(r, axis=1)
    np.testing.assert_allclose(cosines[0, : LENGTHS[1]], expected, rtol=1e-4)
    assert found.attention["i2t"].weights.shape == (1, REGIONS, LONGEST)


def test_strict_shares_from_the_other_item_sum_to_less_than_one():
    model = model_of(name="racg_strict")
    params = drawn(model)
    one = {m: jax.tree.map(lambda x: x[:1], c) for m, c in encoded(model, params).items()}
    found = model.explain(Variables(params, None, None, None), one["image"], one["text"])
    shares = np.asarray(found.attention["i2t"].weights)[0].sum(axis=1)
    assert ((shares > 0) & (shares < 1)).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recon_source": "both"}, "model.recon_source must be one of cross, all, got 'both'"),
        ({"recon_logit": "l2"}, "model.recon_logit must be one of cos, dot"),
        ({"dim": 10, "heads": 4}, "model.heads is 4, which does not divide model.dim, 10"),
        ({"recon_weight": -1.0}, "model.recon_weight must be at least 0"),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        RACG(**options)
