"""HMGR's towers, sizes, parts and inference; its memory is tested in test_hmgr_memory.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import ITEMS, B, D, R, hmgr, variables_of

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model, list_models
from hmgr_jax.models.base import Plan

KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(B))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


# --- sizes, parts, choices ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [("hmgr", 8481, 47_696_817), ("hmgr", 11353, 48_558_417), ("vse", 8481, 16_985_774)],
)
def test_parameters_of_the_published_size(name, words, expected):
    model = get_model(name, vocabulary_size=words, regions=36, region_dim=2048)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert count(shapes.params) == expected
    if name == "hmgr":
        assert count(shapes.params["memory"]) == 13_909_251
        assert count(shapes.params["image"]["graph0"]) == 4_200_448
        assert count(shapes.params["text"]["pool"]) == 2_100_225
        assert shapes.memory.slots.shape == (1, 128, 1024)


PLAN = Plan(
    steps=1000, steps_per_epoch=30, vocabulary_size=77, features={"image": {"regions": (5, 9)}}
)


def test_the_plan_sets_sizes_and_warm_ups_that_are_open():
    model = get_model("hmgr").fit_to(PLAN)
    assert (model.vocabulary_size, model.regions, model.region_dim) == (77, 5, 9)
    assert model.sum_warmup_steps == 30
    assert model.memory_warmup_steps == 100  # a tenth of the steps is more than an epoch
    few = get_model("hmgr").fit_to(dataclasses.replace(PLAN, steps=200))
    assert few.memory_warmup_steps == 30
    given = {"vocabulary_size": 9, "sum_warmup_steps": 0, "memory_warmup_steps": 0, "regions": 3}
    model = get_model("hmgr", **given).fit_to(PLAN)
    assert {key: getattr(model, key) for key in given} == given


def test_inputs_have_boxes_only_with_the_option():
    assert hmgr().inputs()["image"].keys() == {"regions", "n_regions"}
    assert hmgr(boxes=True).inputs()["image"]["boxes"].shape == (R, 4)


def test_parts_of_each_memory():
    assert "memory" not in hmgr(memory="none").parts()
    assert hmgr().parts()["memory"] == ("memory",)
    assert hmgr(memory="learned").parts()["memory"] == ("memory", "slots")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"memory": "joined"}, "model.memory must be one of joint, none"),
        ({"write_rule": "lstm"}, "model.write_rule must be one of slotwise, hme"),
        ({"write_address": "hard"}, "model.write_address must be one of"),
        ({"affinity": "cosine"}, "model.affinity must be one of dot, softmax"),
        ({"pool": "median"}, "model.pool must be one of attention"),
        ({"region_scale": "log"}, "model.region_scale must be one of none"),
        ({"region_embedding": "conv"}, "model.region_embedding must be one of linear"),
        ({"memory_groups": 0}, "model.memory_groups must be at least 1, got 0: change it."),
        ({"hops": 0}, "model.hops must be at least 1"),
        ({"slots": 0}, "model.slots must be at least 1"),
        ({"graph_layers": -1}, "model.graph_layers must be at least 0"),
        ({"pool_dropout": 1.0}, "model.pool_dropout must be in [0, 1), got 1.0"),
        ({"word_dropout": -0.1}, "model.word_dropout must be in [0, 1)"),
        ({"write_rate": 1.5}, "model.write_rate must be in [0, 1], got 1.5"),
        ({"slotz": 4}, "There is no hyper-parameter of hmgr 'slotz'; did you mean 'slots'"),
    ],
)
def test_invalid_options_raise_one_sentence(wrong, sentence):
    with pytest.raises(UserError) as error:
        hmgr(**wrong)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_an_unknown_system_raises_with_a_hint():
    assert "hmgr" in list_models()
    with pytest.raises(UserError, match="There is no model 'hgmr'; did you mean 'hmgr'"):
        get_model("hgmr")


# --- towers -------------------------------------------------------------------------------------


def learn(model, variables, modality, keys=None):
    """(codes, gradient of a function of them) of one tower in training."""

    def value(params):
        x, stats = model.encode(
            variables.replace(params=params), modality, ITEMS[modality], train=True, keys=keys
        )
        assert stats is None
        return jnp.sum(x * jnp.cos(jnp.arange(B * D, dtype=jnp.float32)).reshape(B, D)), x

    (_, x), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(variables.params)
    return np.asarray(x), gradient[modality]


@pytest.fixture(scope="module")
def base():
    """Codes of the default towers, {modality: [B, D]}."""
    variables = variables_of(hmgr())
    found = {m: learn(hmgr(), variables, m)[0] for m in ("image", "text")}
    return variables, found


@pytest.mark.parametrize(
    ("modality", "switch"),
    [
        ("image", {"visual_graph": False}),
        ("image", {"graph_layers": 2}),
        ("image", {"affinity": "softmax", "graph_gate": True}),
        ("image", {"boxes": True}),
        ("image", {"region_embedding": "mlp", "region_scale": "l2"}),
        ("image", {"region_scale": "sqrt"}),
        ("image", {"pool": "mean"}),
        ("image", {"pool": "max"}),
        ("image", {"pool": "gru"}),
        ("text", {"text_graph": False}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value,
)
def test_an_option_changes_its_tower_and_trains(base, modality, switch):
    variables, found = base
    model = hmgr(**switch)
    own = variables_of(model, base=variables)
    codes, gradient = learn(model, own, modality)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-5)
    assert np.abs(codes - found[modality]).max() > 0.01
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # The softmax of the pool does not feel a bias common to all its logits.
        assert np.any(leaf) or name.endswith("['weight']['bias']"), name


def test_each_dropout_acts_in_training_only(base):
    variables, found = base
    for modality, switch in (
        ("image", "feature_dropout"),
        ("image", "region_dropout"),
        ("text", "word_dropout"),
        ("text", "vector_dropout"),
        ("image", "pool_dropout"),
    ):
        model = hmgr(**({"pool_dropout": 0.0} | {switch: 0.5}))
        encode = jax.jit(
            lambda items, keys, model=model, modality=modality: model.encode(
                variables, modality, items, train=True, keys=keys
            )[0]
        )
        dropped = np.asarray(encode(ITEMS[modality], KEYS))
        assert np.abs(dropped - found[modality]).max() > 0.01, switch


# --- inference ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encode():
    """``encode(variables, modality, items)`` of the default model at inference, compiled."""
    model = hmgr()
    return jax.jit(
        lambda variables, modality, items: model.encode(
            variables, modality, items, train=False, keys=KEYS
        )[0],
        static_argnums=1,
    )


def pick(items, rows):
    return jax.tree.map(lambda x: x[jnp.asarray(rows)], items)


def test_the_code_of_an_image_does_not_depend_on_its_batch(base, encode):
    variables, _ = base
    together = encode(variables, "image", ITEMS["image"])
    alone = encode(variables, "image", pick(ITEMS["image"], [3]))
    np.testing.assert_allclose(alone[0], together[3], rtol=0, atol=1e-6)
    among_copies = encode(variables, "image", pick(ITEMS["image"], [0] * 5 + [3] + [1] * 10))
    np.testing.assert_array_equal(among_copies[5], together[3])


def test_permuted_captions_permute_scores_and_not_image_codes(base, encode):
    variables, _ = base
    order = np.random.default_rng(0).permutation(B)
    image, text = (encode(variables, m, ITEMS[m]) for m in ("image", "text"))
    other_text = encode(variables, "text", pick(ITEMS["text"], order))
    again = encode(variables, "image", ITEMS["image"])
    np.testing.assert_array_equal(again, image)
    scores = hmgr().score(variables, ("image", image), ("text", text))
    permuted = hmgr().score(variables, ("image", again), ("text", other_text))
    np.testing.assert_array_equal(permuted, scores[:, order])


def test_inference_reads_the_memory_only_if_it_is_active(base, encode):
    variables, found = base
    asleep = variables.replace(memory=variables.memory.replace(active=jnp.asarray(False)))
    for m in ("image", "text"):
        # In training without dropout the codes are those before the memory.
        np.testing.assert_allclose(encode(asleep, m, ITEMS[m]), found[m], rtol=0, atol=1e-6)
        awake = np.asarray(encode(variables, m, ITEMS[m]))
        assert np.abs(awake - found[m]).max() > 0.01
        np.testing.assert_allclose(np.linalg.norm(awake, axis=1), 1.0, atol=1e-5)
        other = variables.memory.replace(slots=-variables.memory.slots)
        assert np.abs(encode(variables.replace(memory=other), m, ITEMS[m]) - awake).max() > 0.01
