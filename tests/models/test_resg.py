"""ReSG equals the plain form for every option."""

import jax
import jax.numpy as jnp
import numpy as np
import plain_resg
import pytest

from hmgr_jax.errors import UserError
from hmgr_jax.layers import matching
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models.base import LocalAxis, Plan, Variables
from hmgr_jax.models.resg import ReSG
from hmgr_jax.training.flops import matmul_flops

COUNT, REGIONS, LONGEST, FEATURES, DIM, CLASSES = 3, 4, 5, 6, 8, 3
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(COUNT))
SHAPES = {
    "image": {"regions": (REGIONS, FEATURES), "boxes": (REGIONS, 4)},
    "text": {"tokens": (), "lengths": ()},
}
PARSED = SHAPES | {"text": SHAPES["text"] | {"heads": (), "relations": ()}}
SMALL = {"dim": DIM, "word_dim": 4, "edge_dim": 3, "graph_layers": 1, "object_classes": CLASSES}


def model_of(shapes=SHAPES, **options):
    fitted = ReSG(**(SMALL | {"sum_warmup_steps": 0} | options)).fit_to(Plan(10, 5, 20, shapes))
    assert isinstance(fitted, ReSG)
    return fitted


def all_items():
    """All inputs that data may have, with random numbers at padding."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.5, (COUNT, REGIONS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, corner.shape)], axis=2)
    heads = np.array([[0, 0, 1, 2, 4], [0, 1, 3, 1, 4], [0, 2, 0, 2, 0]])
    return {
        "image": {
            "regions": jnp.asarray(rng.standard_normal((COUNT, REGIONS, FEATURES)), jnp.float16),
            "n_regions": jnp.asarray([4, 2, 3], jnp.int32),
            "boxes": jnp.asarray(boxes, jnp.float32),
            "labels": jnp.asarray(rng.integers(-1, CLASSES, (COUNT, REGIONS)), jnp.int16),
        },
        "text": {
            "tokens": jnp.asarray(rng.integers(4, 20, (COUNT, LONGEST)), jnp.int32),
            "lengths": jnp.asarray([5, 2, 4], jnp.int32),
            "heads": jnp.asarray(heads, jnp.int32),
            "relations": jnp.asarray(rng.integers(0, 31, (COUNT, LONGEST)), jnp.int32),
        },
    }


def items(model):
    """The inputs of the model."""
    found = all_items()
    return {m: {k: found[m][k] for k in own} for m, own in model.inputs().items()}


def parameters(model):
    """Parameters of which none is zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0)).params
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda s: jnp.asarray(0.25 * rng.standard_normal(s.shape), jnp.float32), shapes
    )


def encoded(model, params):
    variables = Variables(params, None, None, None)
    return {
        m: model.encode(variables, m, found, train=True, keys=None)[0]
        for m, found in items(model).items()
    }


def matrix(model, params):
    codes = encoded(model, params)
    sides = ("image", codes["image"]), ("text", codes["text"])
    return model.score(Variables(params, None, None, None), *sides)


OF_ITEMS = {
    "two layers": {"graph_layers": 2},
    "no visual graph": {"visual_graph": False},
    "no text graph": {"text_graph": False},
    "neighbours": {"neighbours": 2},
    "no boxes": {"boxes": False},
    "labels": {"shapes": SHAPES | {"image": SHAPES["image"] | {"labels": (REGIONS,)}}},
    "window": {"text_support": "window"},
    "full": {"text_support": "full"},
    "dependencies": {"shapes": PARSED},
    "dependencies by distance": {"shapes": PARSED, "text_edges": "distance"},
    "kinds in a window": {"shapes": PARSED, "text_support": "window"},
}
OF_PAIRS = {
    "as it is": {},
    "no read-out": {"readout": "none", "center_weight": 0.0},
    "groups": {"match": "groups", "groups": 4},
    "μ and λ": {"global_weight": 0.5, "sharpness": 3.0},
}


def with_boxes(model):
    found = items(model)
    return found | {"image": found["image"] | {"boxes": all_items()["image"]["boxes"]}}


def both(ours, form, options):
    """The results of ``ours`` and of the form of `plain_resg`, which computes in float64."""
    model = model_of(**options)
    params = parameters(model)
    found, words = jax.jit(
        lambda p: (ours(model, p), plain_resg.states(model, p, items(model)["text"]))
    )(params)  # fmt: skip
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, words))
    return found, form(model, exact[0], jax.tree.map(np.asarray, with_boxes(model)), exact[1])


@pytest.mark.parametrize("switch", OF_ITEMS)
def test_nodes_and_vectors_equal_the_plain_form(switch):
    codes, expected = both(encoded, plain_resg.encoded, OF_ITEMS[switch])
    for modality, plain in zip(("image", "text"), expected, strict=True):
        found = codes[modality]
        for k, (x, vector) in enumerate(plain):
            own = found["nodes"][k, : len(x)]
            np.testing.assert_allclose(own, plain_resg.unit(x), rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(found["vector"][k], vector, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("switch", OF_PAIRS)
def test_scores_equal_the_plain_form(switch):
    found, expected = both(matrix, plain_resg.scores, OF_PAIRS[switch])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradient_equals_that_of_the_plain_form():
    model = model_of(PARSED)
    params, captions = parameters(model), items(model)["text"]
    given = jax.tree.map(np.asarray, with_boxes(model))
    mix = jax.random.normal(jax.random.key(2), (COUNT, COUNT))

    def plain(p):
        return plain_resg.scores(model, p, given, plain_resg.states(model, p, captions))

    own, expected = (
        jax.jit(jax.grad(lambda p, f=form: jnp.sum(f(p) * mix)))(params)
        for form in (lambda p: matrix(model, p), plain)
    )
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("match", ["cosine", "groups"])
def test_given_pairs_score_as_in_the_matrix(match, monkeypatch):
    monkeypatch.setattr(matching, "IMAGES", {"cpu": 2})
    model = model_of(match=match, groups=4)
    params = parameters(model)
    variables, codes = Variables(params, None, None, None), encoded(model, params)
    scores = matrix(model, params)
    a, b = np.array([0, 1, 2, 2]), np.array([1, 1, 0, 2])
    pairs = [jax.tree.map(lambda x, i=i: x[i], codes[m]) for m, i in (("image", a), ("text", b))]
    found = model.score_pairs(variables, *pairs)
    np.testing.assert_allclose(found, scores[a, b], rtol=1e-5, atol=1e-6)
    turned = model.score(variables, ("text", codes["text"]), ("image", codes["image"]))
    np.testing.assert_array_equal(turned, scores.T)


def test_number_of_parameters_at_the_papers_sizes():
    """With the vocabularies of Flickr30K and COCO."""
    for words, expected in ((8481, 39_062_188), (11353, 39_923_788)):
        plan = Plan(10, 5, words, {"image": {"regions": (36, 2048)}, "text": {}})
        shapes = jax.eval_shape(ReSG().fit_to(plan).init, jax.random.key(0)).params
        assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def test_cost_of_a_pair_is_bounded():
    """2 to 4 million operations at D = 1024, 36 regions and 14 words: no context is built."""
    model, images, captions, words = ReSG(), 16, 72, 14

    def codes(count, nodes):
        f32 = jnp.float32
        return {
            "nodes": jax.ShapeDtypeStruct((count, nodes, 1024), f32),
            "mask": jax.ShapeDtypeStruct((count, nodes), bool),
            "gram": jax.ShapeDtypeStruct((count, nodes, nodes), f32),
            "vector": jax.ShapeDtypeStruct((count, 1024), f32),
        }

    none = Variables({}, None, None, None)
    flops = matmul_flops(
        lambda a, b: model.score(none, ("image", a), ("text", b)),
        codes(images, 36),
        codes(captions, words),
    )
    assert 1.9e6 < flops / (images * captions) < 4e6


def loss_of(model, codes, group=None, axis=None):
    row = {
        "valid": jnp.ones(COUNT, bool),
        "group": jnp.arange(COUNT) if group is None else group,
    }
    others = {"step": jnp.int32(0), "keys": KEYS, "axis": axis or LocalAxis()}
    params = {} if model.match == "cosine" else parameters(model)
    total, terms, _, _ = model.loss(Variables(params, None, None, None), codes, row, **others)
    return float(total), {name: float(value) for name, value in terms.items()}


def toy(model, apart):
    """Items with orthogonal nodes if ``apart``, else equal items."""
    rows = jnp.eye(COUNT, DIM) if apart else jnp.ones((COUNT, DIM)) / DIM**0.5
    nodes = jnp.repeat(rows[:, None], 2, axis=1)
    gram = jnp.einsum("bnd,bmd->bnm", nodes, nodes)
    one = {"nodes": nodes, "mask": jnp.ones((COUNT, 2), bool), "gram": gram, "vector": rows}
    return {"image": one, "text": one}


def test_every_loss_is_zero_for_orthogonal_items():
    model = model_of()
    total, terms = loss_of(model, toy(model, apart=True))
    assert total == 0
    assert {n: v for n, v in terms.items() if not n.startswith("similarity")} == {
        "triplet": 0,
        "hardest": 0,
        "thresholds": 0,
        "centers": 0,
    }
    assert terms["similarity/positive_p50"] == pytest.approx(1)
    assert terms["similarity/hardest_p75"] == pytest.approx(0, abs=1e-6)


def test_losses_of_a_collapse_are_at_their_plateau():
    """The triplet loss is 2 · margin · B where all similarities are 1."""
    model = model_of()
    total, terms = loss_of(model, toy(model, apart=False))
    assert terms["triplet"] == terms["hardest"] == pytest.approx(2 * 0.2 * COUNT, rel=1e-5)
    assert terms["thresholds"] == pytest.approx(2 * COUNT * 0.5, rel=1e-5)
    assert terms["centers"] == pytest.approx(2 * COUNT * 0.2, rel=1e-5)
    expected = terms["triplet"] + 0.5 * terms["thresholds"] + 0.1 * terms["centers"]
    assert total == pytest.approx(expected, rel=1e-6)


def test_losses_of_weight_zero_are_off():
    options = {"triplet_weight": 0.0, "center_weight": 0.0, "threshold_weight": 0.0}
    model = model_of(**options)
    total, terms = loss_of(model, toy(model, apart=False))
    assert total == 0
    assert not {"thresholds", "centers"} & terms.keys()
    assert model.first_epoch_message(terms) is None
    only = model_of(**(options | {"center_weight": 2.0}))
    total, terms = loss_of(only, toy(only, apart=False))
    assert total == pytest.approx(2 * terms["centers"])


@pytest.mark.parametrize("warmup", [0, 5])
def test_no_loss_term_is_negative(warmup):
    model = model_of(sum_warmup_steps=warmup)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((2, COUNT, 2, DIM))
        nodes /= np.linalg.norm(nodes, axis=-1, keepdims=True)
        codes = {
            m: {
                "nodes": jnp.asarray(x, jnp.float32),
                "mask": jnp.ones((COUNT, 2), bool),
                "gram": jnp.asarray(np.einsum("bnd,bmd->bnm", x, x), jnp.float32),
                "vector": jnp.asarray(x[:, 0], jnp.float32),
            }
            for m, x in zip(("image", "text"), nodes, strict=True)
        }
        for group in (None, jnp.array([0, 0, 1])):
            _, terms = loss_of(model, codes, group)
            assert all(terms[n] >= 0 for n in ("triplet", "hardest", "thresholds", "centers"))


def test_message_suggests_thresholds():
    report = {f"similarity/positive_p{q}": v for q, v in ((25, 0.5), (50, 0.6), (75, 0.71))}
    report |= {f"similarity/hardest_p{q}": v for q, v in ((25, 0.3), (50, 0.42), (75, 0.5))}
    said = model_of().first_epoch_message(report)
    assert "0.500, 0.600, 0.710 for positives and 0.300, 0.420, 0.500 for hardest" in said
    assert "thresholds of 0.71 and 0.42 would fit" in said
    report["similarity/hardest_p50"] = 0.8
    assert "they overlap, so no thresholds fit yet" in model_of().first_epoch_message(report)


def test_inputs_follow_options_and_data():
    inputs = model_of().inputs()
    assert inputs["image"]["boxes"].optional
    assert inputs["text"].keys() == {"tokens", "lengths"}
    assert model_of(PARSED).inputs()["text"].keys() == {"tokens", "lengths", "heads", "relations"}
    distance = model_of(PARSED, text_edges="distance").inputs()["text"]
    assert distance.keys() == {"tokens", "lengths", "heads"}
    assert "heads" not in model_of(PARSED, text_graph=False).inputs()["text"]
    assert "boxes" not in model_of(boxes=False).inputs()["image"]
    model = model_of()
    params = parameters(model)
    without = items(model)["image"]
    del without["boxes"]
    variables = Variables(params, None, None, None)
    codes, _ = model.encode(variables, "image", without, train=False, keys=None)
    assert np.isfinite(codes["nodes"]).all()
    assert not np.allclose(codes["nodes"], encoded(model, params)["image"]["nodes"])


def test_relations_are_edge_weights():
    model = model_of(PARSED, graph_layers=2)
    variables = Variables(parameters(model), None, None, None)
    for m, (nodes, counts) in {"image": (REGIONS, [4, 2, 3]), "text": (LONGEST, [5, 2, 4])}.items():
        weights = model.relations(variables, m, items(model)[m])
        assert weights.shape == (COUNT, 2, nodes, nodes)
        for k, count in enumerate(counts):
            np.testing.assert_allclose(weights[k, :, :count].sum(axis=-1), 1, rtol=1e-5)
            assert not np.any(weights[k, :, :, count:])
    plain = model_of(visual_graph=False)
    assert plain.relations(variables, "image", items(plain)["image"]) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"readout": "last"}, "model.readout must be one of gru, none, got 'last'"),
        ({"text_support": "near"}, "model.text_support must be one of auto, dependency"),
        ({"neighbours": -1}, "model.neighbours must be at least 0"),
        ({"match": "groups", "groups": 5}, "model.groups is 5, which does not divide model.dim, 8"),
        ({"readout": "none"}, "model.readout is none, so the center loss has no vectors"),
        (
            {"negative_threshold": 0.8},
            "model.negative_threshold is 0.8, above model.positive_threshold, 0.7",
        ),
    ],
)
def test_invalid_options_raise(options, sentence):
    with pytest.raises(UserError, match=sentence):
        ReSG(**(SMALL | options))
