"""HMGR's towers, sizes, parts and inference; its memory is tested in test_hmgr_bank.py."""

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
from hmgr_jax.models.hmgr import MOST_SLOTS

KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(B))


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


# --- sizes, parts, choices ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [("hmgr", 8481, 33_787_566), ("hmgr", 11353, 34_649_166), ("vse", 8481, 16_985_774)],
)
def test_parameters_of_the_published_size(name, words, expected):
    model = get_model(name, vocabulary_size=words, regions=36, region_dim=2048)
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    assert count(params) == expected
    if name == "hmgr":
        assert count(params["image"]["graph0"]) == 4_200_448
        assert count(params["text"]["pool"]) == 2_100_225


def test_each_modality_that_learns_to_read_has_a_map_a_gate_and_the_temperature():
    for gates, maps in (({}, 1), ({"visual_read": 0.2}, 2)):
        given = {"regions": 36, "region_dim": 2048, "vocabulary_size": 9}
        model = get_model("hmgr", learned_reads=True, slots=4, **given, **gates)
        params = jax.eval_shape(model.init, jax.random.key(0)).params
        assert count(params["memory"]) == maps * (1024 * 1024 + 1024) + 1


PLAN = Plan(
    steps=1000,
    steps_per_epoch=30,
    vocabulary_size=77,
    features={"image": {"regions": (5, 9)}},
    rows=600,
)


def test_the_plan_sets_sizes_and_warm_ups_that_are_open():
    model = get_model("hmgr").fit_to(PLAN)
    assert (model.vocabulary_size, model.regions, model.region_dim) == (77, 5, 9)
    assert (model.sum_warmup_steps, model.memory_warmup_steps, model.slots) == (30, 30, 600)
    given = {"vocabulary_size": 9, "sum_warmup_steps": 0, "memory_warmup_steps": 0, "regions": 3}
    given["slots"] = 11
    model = get_model("hmgr", **given).fit_to(PLAN)
    assert {key: getattr(model, key) for key in given} == given


def test_a_large_training_split_does_not_fit_the_bank():
    many = dataclasses.replace(PLAN, rows=MOST_SLOTS + 1)
    assert get_model("hmgr").fit_to(many).slots == MOST_SLOTS


def test_inputs_have_boxes_only_with_the_option():
    assert hmgr().inputs()["image"].keys() == {"regions", "n_regions"}
    assert hmgr(boxes=True).inputs()["image"]["boxes"].shape == (R, 4)


def test_parts_name_what_the_memory_and_the_objective_learn():
    assert not {"memory", "loss"} & hmgr().parts().keys()
    assert hmgr(learned_reads=True).parts()["memory"] == ("memory",)
    assert hmgr(objective="infonce").parts()["loss"] == ("loss",)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"memory": "joint"}, "model.memory must be one of bank, none"),
        ({"objective": "softmax"}, "model.objective must be one of triplet, infonce"),
        ({"pool": "median"}, "model.pool must be one of attention"),
        ({"region_scale": "log"}, "model.region_scale must be one of none"),
        ({"region_embedding": "conv"}, "model.region_embedding must be one of linear"),
        ({"read_top": 0}, "model.read_top must be at least 1, got 0: change it."),
        ({"read_temperature": 0.0}, "model.read_temperature must be above 0.0, got 0.0"),
        ({"text_read": -0.1}, "model.text_read must be at least 0.0"),
        ({"hops": 0}, "model.hops must be at least 1"),
        ({"slots": -1}, "model.slots must be at least 0"),
        ({"graph_layers": -1}, "model.graph_layers must be at least 0"),
        ({"pool_dropout": 1.0}, "model.pool_dropout must be in [0, 1), got 1.0"),
        ({"word_dropout": -0.1}, "model.word_dropout must be in [0, 1)"),
        ({"learned_reads": True, "memory": "none"}, "model.learned_reads needs a modality that"),
        ({"temperature": 2.0}, "model.temperature must be in [0.01, 1.0], got 2.0"),
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
        ("image", {"graph_gate": True}),
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


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_code_does_not_depend_on_its_batch(base, encode, modality):
    variables, _ = base
    together = encode(variables, modality, ITEMS[modality])
    alone = encode(variables, modality, pick(ITEMS[modality], [3]))
    np.testing.assert_allclose(alone[0], together[3], rtol=0, atol=1e-6)
    among_copies = encode(variables, modality, pick(ITEMS[modality], [0] * 5 + [3] + [1] * 10))
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


@pytest.mark.parametrize("modality", ["image", "text"])
def test_inference_reads_the_bank_only_if_it_is_awake(base, encode, modality):
    variables, found = base
    items, memory = ITEMS[modality], variables.memory
    asleep = variables.replace(memory=memory.replace(active=jnp.asarray(False)))
    # In training without dropout the codes are those before the memory.
    plain = found[modality]
    np.testing.assert_allclose(encode(asleep, modality, items), plain, rtol=0, atol=1e-6)
    awake = np.asarray(encode(variables, modality, items))
    assert np.abs(awake - plain).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(awake, axis=1), 1.0, atol=1e-5)


def test_a_modality_without_a_gate_reads_nothing(base):
    variables, found = base
    model = hmgr(visual_read=0.0)
    codes, _ = jax.jit(lambda x: model.encode(variables, "image", x, train=False, keys=None))(
        ITEMS["image"]
    )
    np.testing.assert_allclose(codes, found["image"], rtol=0, atol=1e-6)
