"""HMGR on clips: frames, masks, lengths and times; parameter names of images are unchanged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import ITEMS, B, D, F, captions, hmgr, memory_of, variables_of

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Plan

T = 9
KEYS = Keys.at(jnp.int32(0), jnp.int32(0), jnp.arange(B))


def video(name="hmgr", **overrides):
    return hmgr(name, **({"visual": "video", "regions": T} | overrides))


def clips():
    rng = np.random.default_rng(5)
    lengths = rng.integers(3, T + 1, B)
    frames = rng.standard_normal((B, T, F)) * (np.arange(T)[None, :, None] < lengths[:, None, None])
    return {
        "frames": jnp.asarray(frames, jnp.float16),
        "n_frames": jnp.asarray(lengths, jnp.int32),
    }


CLIPS = clips()


def encode(model, variables, items=CLIPS, *, train=False, keys=None):
    def of(variables, items):
        return model.encode(variables, "video", items, train=train, keys=keys)[0]

    return np.asarray(jax.jit(of)(variables, items))


def reversed_in_time(items):
    place = np.arange(T)[None, :]
    lengths = np.asarray(items["n_frames"])[:, None]
    order = np.where(place < lengths, lengths - 1 - place, place)
    turned = np.take_along_axis(np.asarray(items["frames"]), order[:, :, None], axis=1)
    return {"frames": jnp.asarray(turned), "n_frames": items["n_frames"]}


# --- names and sizes ----------------------------------------------------------------------------


def test_clips_are_the_modality_video():
    model = video()
    assert model.modalities == ("video", "text")
    inputs = model.inputs()
    assert inputs["video"].keys() == {"frames", "n_frames"}
    assert (inputs["video"]["frames"].shape, inputs["video"]["frames"].dtype) == ((T, F), "float16")
    params = jax.eval_shape(model.init, jax.random.key(0)).params
    assert params.keys() == {"video", "text"}
    assert model.parts()["video"] == ("video",)
    assert model.parts()["graphs"] == ("video/graph0", "text/graph0")
    assert "image" not in model.parts()


def test_images_keep_their_parameter_names_and_codes():
    """Checkpoints of images fit: the same paths and shapes."""
    model = hmgr()
    assert model.modalities == ("image", "text")
    assert model.parts().keys() == {"image", "text", "words", "graphs"}
    shapes = jax.eval_shape(model.init, jax.random.key(0)).params
    assert shapes.keys() == {"image", "text"}
    of_video = jax.eval_shape(video(regions=6).init, jax.random.key(0)).params
    assert jax.tree.map(lambda x: x.shape, shapes["image"]) == jax.tree.map(
        lambda x: x.shape, of_video["video"]
    )
    # Frames without times are regions to the same tower.
    variables = variables_of(video())
    params = {"image": variables.params["video"], "text": variables.params["text"]}
    as_image = hmgr(regions=T)
    items = {"regions": CLIPS["frames"], "n_regions": CLIPS["n_frames"]}
    memory = memory_of(as_image)
    given = variables.replace(params=params, memory=memory)
    found = as_image.encode(given, "image", items, train=False, keys=None)[0]
    np.testing.assert_allclose(encode(video(), variables), found, rtol=0, atol=1e-6)


def test_the_plan_sets_the_sizes():
    plan = Plan(1000, 30, 77, {"video": {"frames": (20, 11)}, "text": {}})
    model = get_model("vse", visual="video").fit_to(plan)
    assert (model.regions, model.region_dim, model.vocabulary_size) == (20, 11, 77)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"visual": "film"}, "model.visual must be one of image, video, got 'film'"),
        ({"frame_sampling": "best"}, "model.frame_sampling must be one of uniform, random"),
        ({"frames": -1}, "model.frames must be at least 0, got -1"),
        ({"boxes": True}, "model.boxes needs model.visual image, got video"),
    ],
)
def test_invalid_options_raise_one_sentence(wrong, sentence):
    with pytest.raises(UserError) as error:
        video(**wrong)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


# --- padding, lengths, order --------------------------------------------------------------------

SWITCHES = [
    {},
    {"graph_gate": True, "frame_positions": True},
    {"frames": 4, "frame_times": True},
    {"pool": "mean"},
    {"visual_graph": False, "pool": "gru"},
]
ids = [" ".join(map(str, switch)) or "plain" for switch in SWITCHES]


@pytest.mark.parametrize("switch", SWITCHES, ids=ids)
def test_codes_do_not_depend_on_padding(switch):
    """Neither values nor the amount of padding change a code."""
    model = video(**switch)
    variables = variables_of(model)
    clean = encode(model, variables)
    true = np.arange(T)[None, :, None] < np.asarray(CLIPS["n_frames"])[:, None, None]
    dirty = CLIPS | {"frames": jnp.where(true, CLIPS["frames"], jnp.float16(7))}
    np.testing.assert_allclose(encode(model, variables, dirty), clean, rtol=0, atol=1e-6)
    room = CLIPS | {"frames": jnp.pad(dirty["frames"], ((0, 0), (0, 3), (0, 0)))}
    longer = dataclasses.replace(model, regions=T + 3)
    np.testing.assert_allclose(encode(longer, variables, room), clean, rtol=0, atol=1e-6)
    for b in (0, 7):
        n = int(CLIPS["n_frames"][b])
        alone = {"frames": CLIPS["frames"][b : b + 1, :n], "n_frames": jnp.asarray([n])}
        short = dataclasses.replace(model, regions=n)
        np.testing.assert_allclose(encode(short, variables, alone)[0], clean[b], rtol=0, atol=1e-6)


@pytest.mark.parametrize("switch", [{}, {"pool": "mean"}, {"visual_graph": False}], ids=str)
def test_without_times_a_reversed_clip_has_the_same_code(switch):
    model = video(**switch)
    variables = variables_of(model)
    found = encode(model, variables)
    np.testing.assert_allclose(
        encode(model, variables, reversed_in_time(CLIPS)), found, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "switch",
    [
        {"frame_positions": True},
        {"frame_times": True},
        {"frame_times": True, "pool": "mean"},
        {"frame_positions": True, "visual_graph": False},
    ],
    ids=lambda switch: " ".join(switch),
)
def test_with_times_a_reversed_clip_has_another_code(switch):
    model = video(**switch)
    variables = variables_of(model)
    # Codes before the memory, which could hide the difference.
    turned = encode(model, variables, reversed_in_time(CLIPS), train=True)
    moved = np.abs(turned - encode(model, variables, train=True)).max(axis=1)
    assert np.mean(moved > 1e-3) > 0.8  # weights this large leave some clips one edge


def test_mean_pooling_does_not_depend_on_the_order():
    model = video("vse", pool="mean", frame_positions=True)
    variables = variables_of(model)
    np.testing.assert_allclose(
        encode(model, variables, reversed_in_time(CLIPS)), encode(model, variables), atol=1e-5
    )


def test_sampled_frames_are_those_of_linspace():
    model = video(frames=4)
    variables = variables_of(model)
    lengths = np.asarray(CLIPS["n_frames"])
    chosen = np.stack(
        [np.round(np.linspace(0, n - 1, 4)).astype(int) if n > 4 else np.arange(4) for n in lengths]
    )
    frames = np.take_along_axis(np.asarray(CLIPS["frames"]), chosen[:, :, None], axis=1)
    few = {
        "frames": jnp.asarray(frames),
        "n_frames": jnp.minimum(CLIPS["n_frames"], 4),
    }
    np.testing.assert_allclose(
        encode(model, variables), encode(video(regions=4), variables, few), rtol=0, atol=1e-6
    )


def test_frames_are_random_in_training_only():
    even, random = video(frames=3), video(frames=3, frame_sampling="random")
    variables = variables_of(even)
    np.testing.assert_array_equal(encode(even, variables), encode(random, variables))
    quiet = {"pool_dropout": 0.0}
    even, random = (dataclasses.replace(m, **quiet) for m in (even, random))
    drawn = encode(random, variables, train=True, keys=KEYS)
    assert np.abs(drawn - encode(even, variables, train=True, keys=KEYS)).max() > 0.01
    np.testing.assert_array_equal(drawn, encode(random, variables, train=True, keys=KEYS))
    rows = slice(4, 8)
    part = jax.tree.map(lambda x: x[rows], CLIPS)
    keys = KEYS.replace(rows=KEYS.rows[rows])
    np.testing.assert_allclose(
        encode(random, variables, part, train=True, keys=keys), drawn[rows], rtol=0, atol=1e-6
    )


def test_text_codes_equal_those_of_the_image_model():
    variables = variables_of(video())
    found, _ = video().encode(variables, "text", captions(), train=True, keys=None)
    as_before = hmgr().encode(variables, "text", ITEMS["text"], train=True, keys=None)[0]
    np.testing.assert_array_equal(found, as_before)
    assert found.shape == (B, D)
