"""IMRAM's official names: known answers of the released code, exact inverses, and what is said."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from imram_cases import DIRECTIONS, IN, WORD, D, V, golden, official, template

from hmgr_jax.errors import UserError
from hmgr_jax.interop import imram, names
from hmgr_jax.interop.names import from_params, to_params
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.leaves import by_name
from hmgr_jax.models import defaults, get_model
from hmgr_jax.models.base import Plan

NAMES = imram.names({"region_embedding": "linear"})


def _equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype == np.float32
        assert x.tobytes() == y.tobytes()


def _params(seed=0, **options):
    shapes = template(**options)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(rng.standard_normal(x.shape)), shapes)


def _golden_params(case):
    meta, state, arrays = golden(case)
    sizes = (meta["embed_dim"], meta["word_dim"], arrays["images"].shape[2], meta["vocab"])
    return meta, to_params(NAMES, state, template(sizes=sizes)), arrays


# --- against the released code ----------------------------------------------------------------


@pytest.mark.parametrize("case", ["imram_full_k1", "imram_text_k2_l2norm_wide"])
def test_embeddings(case):
    meta, params, arrays = _golden_params(case)
    params, size = jax.tree.map(jnp.asarray, params), meta["embed_dim"]
    linear = {"params": params["image"]["regions"]["linear"]}
    image = l2n(Linear(size).apply(linear, jnp.asarray(arrays["images"])))
    np.testing.assert_allclose(image, arrays["image_emb"], rtol=1e-4, atol=1e-5)
    encoder = WordEncoder(meta["vocab"], meta["word_dim"], size)
    tokens, lengths = (jnp.asarray(arrays[n], jnp.int32) for n in ("captions", "lengths"))
    text, mask = encoder.apply({"params": params["text"]["words"]}, tokens, lengths, None)
    wanted = np.where(mask[..., None], arrays["caption_emb"], 0)
    np.testing.assert_allclose(l2n(text), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["text", "image"])
def test_units(variant):
    """Which linear is which, and in what order it takes query and context, two steps tell."""
    meta, params, arrays = _golden_params(f"imram_{variant}_k2")
    (unit,) = (params["units"][name] for name in DIRECTIONS[variant])
    images, texts = arrays["image_emb"], arrays["caption_emb"]
    scores = np.zeros((len(images), len(texts)))
    for i, image in enumerate(images):
        for j, length in enumerate(arrays["lengths"]):
            pair = (texts[j, :length], image)
            query, context = pair if variant == "text" else pair[::-1]
            scores[i, j] = _match(query, context, unit, meta["lambda_softmax"])
    np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-4, atol=1e-5)


def _match(query, context, unit, smooth):
    """Two steps of recurrent attention memory in plain numpy (specification 2.2 to 2.4)."""
    x, score = query, 0.0
    for _ in range(2):
        z = context @ x.T
        z = np.where(z > 0, z, 0.1 * z)
        z = z / (np.sqrt(np.sum(z**2, axis=1, keepdims=True)) + 1e-8)
        attention = np.exp(smooth * z.T)
        c = attention / attention.sum(1, keepdims=True) @ context
        norms = np.linalg.norm(query, axis=1) * np.linalg.norm(c, axis=1)
        score += np.mean(np.sum(query * c, axis=1) / np.maximum(norms, 1e-8))
        both = np.concatenate([x, c], axis=1)
        gate = 1 / (1 + np.exp(-both @ unit["gate"]["kernel"] - unit["gate"]["bias"]))
        out = np.tanh(both @ unit["out"]["kernel"] + unit["out"]["bias"])
        x = gate * x + (1 - gate) * out
    return score


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("embedding", ["linear", "weight_norm"])
@pytest.mark.parametrize("variant", DIRECTIONS)
def test_the_model_has_this_tree(variant, embedding, steps):
    sizes = {"dim": D, "word_dim": WORD, "variant": variant, "steps": steps}
    model = get_model("imram", **sizes, region_embedding=embedding)
    plan = Plan(1, 1, V, {"image": {"regions": (3, IN), "n_regions": ()}})
    found = jax.eval_shape(lambda: model.fit_to(plan).init(jax.random.key(0))).params
    wanted = template(variant, embedding == "weight_norm")
    if steps == 1:
        del wanted["units"]
    assert names.covers(imram.names(model.hyperparameters()), found)
    assert {n: x.shape for n, x in by_name(found).items()} == {
        n: x.shape for n, x in by_name(wanted).items()
    }


# --- there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("variant", DIRECTIONS)
def test_export_and_import_are_exact_inverses(variant, weight_norm):
    mapping = imram.names({"region_embedding": "weight_norm" if weight_norm else "linear"})
    params = _params(variant=variant, weight_norm=weight_norm)
    gru = params["text"]["words"]["gru"]["forward"]
    gru["inputs"]["bias"][0] = -0.0
    state = from_params(mapping, params)
    wanted = official(weight_norm=weight_norm)
    others = {n for n in wanted if any(d in n for d in {"t2i", "i2t"} - {*DIRECTIONS[variant]})}
    assert {n: x.shape for n, x in state.items()} == {
        n: x.shape for n, x in wanted.items() if n not in others
    }
    assert sorted(names.unused(mapping, params)) == sorted(others)
    _equal(to_params(mapping, state, template(variant, weight_norm)), params)


@pytest.mark.parametrize("variant", DIRECTIONS)
def test_import_and_export(variant):
    """All but the biases that PyTorch holds twice come back as they were; those as a sum."""
    state = official()
    back = from_params(NAMES, to_params(NAMES, state, template(variant)))
    for suffix in ("", "_reverse"):
        pair = [f"txt_enc.rnn.bias_{kind}_l0{suffix}" for kind in ("ih", "hh")]
        inputs, hidden = (back.pop(name) for name in pair)
        np.testing.assert_allclose(inputs + hidden, sum(state[n] for n in pair), rtol=1e-6)
        np.testing.assert_array_equal(hidden[2 * D :], state[pair[1]][2 * D :])
    for name, x in back.items():
        assert x.tobytes() == state[name].tobytes()
        assert x.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_floating_types(dtype):
    state = {n: x.astype(dtype) for n, x in official().items()}
    params = to_params(NAMES, state, template())
    wanted = to_params(NAMES, {n: x.astype(np.float32) for n, x in state.items()}, template())
    _equal(params, wanted)


def test_the_template_is_left_alone():
    params = to_params(NAMES, official(), template())
    assert {n: x.shape for n, x in by_name(params).items()} == {
        n: x.shape for n, x in by_name(template()).items()
    }
    params["text"]["words"]["vectors"][:] = 0  # a copy that may be written
    np.testing.assert_array_equal(
        official()["txt_enc.embed.weight"], official(0)[NAMES[2].official[0]]
    )


# --- what does not fit ------------------------------------------------------------------------


def test_another_vocabulary():
    sentence = "holds vectors of 8 words, but the vocabulary has 9: give the vocabulary"
    with pytest.raises(UserError, match=sentence):
        to_params(NAMES, official(words=8), template())


def test_all_that_does_not_fit_is_listed():
    state = official(words=8)
    state["extra.weight"] = state.pop("gate_t2i.bias")
    state["linear_t2i.weight"] = state["linear_t2i.weight"].T
    state["img_enc.fc_local.bias"] = np.zeros(D, np.int64)
    with pytest.raises(UserError) as error:
        to_params(NAMES, state, template())
    said = str(error.value)
    assert "missing: gate_t2i.bias; extra: extra.weight; misshaped: " in said
    assert "linear_t2i.weight is float32[10, 5] and should be [5, 10]" in said
    assert "txt_enc.embed.weight is float32[8, 4] and should be [9, 4]" in said
    assert "img_enc.fc_local.bias is int64[5] and should be [5]" in said


def test_the_state_dict_of_another_model():
    state = {f"blocks.{i}.weight": np.zeros(3, np.float32) for i in range(11)}
    with pytest.raises(UserError) as error:
        to_params(NAMES, state, template())
    said = str(error.value)
    assert said.startswith("The weights are not those of this model (missing: img_enc.fc_local.")
    assert "txt_enc.rnn.weight_ih_l0_reverse and 11 more; extra: blocks.0.weight" in said
    assert "blocks.7.weight and 3 more" in said


def test_units_of_the_other_variant_are_not_missed():
    state = {n: x for n, x in official().items() if "i2t" not in n}
    to_params(NAMES, state, template("text"))
    with pytest.raises(UserError, match=r"missing: linear_i2t\.weight, linear_i2t\.bias, gate_i2t"):
        to_params(NAMES, state, template("image"))


def test_not_finite():
    state = official()
    state["gate_t2i.bias"][2] = np.nan
    with pytest.raises(UserError, match=r"gate_t2i\.bias holds NaN or infinity"):
        to_params(NAMES, state, template())


def test_parameters_without_an_official_name():
    shapes = template()
    shapes["image"]["regions"]["hidden"] = shapes["image"]["regions"]["linear"]
    assert names.covers(NAMES, template())
    assert not names.covers(NAMES, shapes)
    with pytest.raises(
        UserError, match="image/regions/hidden/bias, image/regions/hidden/kernel of"
    ):
        to_params(NAMES, official(), shapes)
    with pytest.raises(UserError, match="have no counterpart in the official one"):
        from_params(NAMES, shapes)


# --- what the released script says ------------------------------------------------------------


def test_options():
    given = {
        "model_mode": "text_IMRAM",
        "iteration_step": 2,
        "lambda_softmax": 11,
        "raw_feature_norm": "softmax",
        "no_IMRAM_norm": False,
        "batch_size": 128,
    }
    read = {
        "variant": "text",
        "steps": 2,
        "sharpness": 11.0,
        "raw_norm": "softmax",
        "memory_norm": True,
    }
    always = {"region_scale": "none", "slope": 0.1, "unit": "gate_full", "score_step": 0}
    state = official()
    assert imram.options(given, state) == always | read
    assert imram.options({"batch_size": 128}, state) == always
    assert imram.options(given, state).keys() <= defaults("imram").keys()


def test_units_of_one_direction_tell_the_variant():
    """Whatever the options say: the other one could not be filled."""
    for direction, left_out, variant in (("t2i", "i2t", "text"), ("i2t", "t2i", "image")):
        state = {n: x for n, x in official().items() if left_out not in n}
        assert any(direction in n for n in state)
        for given in ({}, {"model_mode": "full_IMRAM"}):
            assert imram.options(given, state)["variant"] == variant


def test_features():
    wanted = {"regions": (36, 7), "n_regions": ()}
    assert imram.features(official())["image"] == wanted
    assert imram.features(official(weight_norm=True))["image"] == wanted
    assert imram.features({})["image"]["regions"] == (36, 2048)
