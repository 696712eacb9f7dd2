"""Schedules by hand, clipping, factors on parts, and the updates against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmgr_jax.training.optimizer import KINDS, Optimizer, Schedule, Stage

PARAMS = {
    "image": {"kernel": jnp.asarray([[1.0, -2.0]]), "bias": jnp.asarray([0.5])},
    "text": {"words": {"vectors": jnp.asarray([3.0, -1.0])}, "out": jnp.asarray([2.0])},
    "text2": jnp.asarray([1.0]),
}
PARTS = {
    "image": ("image",),
    "text": ("text",),
    "words": ("text/words/vectors",),
    "all_text": ("text", "text2"),
}
GRADIENT = jax.tree.map(jnp.ones_like, PARAMS)
FLAT = Schedule(0.1, 100, decay="none")


def rates(schedule, *steps):
    return [float(schedule(jnp.int32(step))) for step in steps]


# --- schedules ------------------------------------------------------------------------------------


def test_warm_up_is_linear_and_reaches_the_rate_at_its_last_step():
    schedule = Schedule(0.8, 100, warmup=4, decay="none")
    np.testing.assert_allclose(rates(schedule, 0, 1, 2, 3, 4, 99), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    np.testing.assert_allclose(rates(Schedule(0.8, 100, decay="none"), 0, 1), [0.8, 0.8])


def test_a_step_down_to_a_tenth():
    schedule = Schedule(0.8, 10, decay="step", decay_at=0.5)
    np.testing.assert_allclose(rates(schedule, 0, 4, 5, 9), [0.8, 0.8, 0.08, 0.08], rtol=1e-6)
    # 0.75 of 10 steps are over after step 7.
    late = Schedule(0.8, 10, decay="step", decay_at=0.75)
    np.testing.assert_allclose(rates(late, 7, 8), [0.8, 0.08], rtol=1e-6)


def test_a_tenth_again_and_again():
    schedule = Schedule(0.8, 10, decay="steps", decay_at=0.3)
    found = rates(schedule, 0, 2, 3, 5, 6, 9)
    np.testing.assert_allclose(found, [0.8, 0.8, 0.08, 0.08, 0.008, 0.0008], rtol=1e-5)
    paper = Schedule(1e-3, 27500, decay="steps", decay_at=10000 / 27500)
    found = rates(paper, 9999, 10000, 19999, 20000, 27499)
    np.testing.assert_allclose(found, [1e-3, 1e-4, 1e-4, 1e-5, 1e-5], rtol=1e-5)


def test_a_cosine_after_the_warm_up():
    schedule = Schedule(0.8, 10, warmup=2, decay="cosine")
    found = rates(schedule, 0, 1, 2, 4, 6, 10, 11)
    quarter = 0.8 * (1 + np.cos(np.pi / 4)) / 2
    np.testing.assert_allclose(found, [0.4, 0.8, 0.8, quarter, 0.4, 0, 0], rtol=1e-6, atol=1e-8)
    assert all(np.isfinite(rates(Schedule(0.8, 2, warmup=5, decay="cosine"), 0, 1, 2, 9)))


def test_a_schedule_that_begins_later():
    whole, late = Schedule(0.8, 10, 2, "cosine"), Schedule(0.8, 10, 2, "cosine", first=7)
    np.testing.assert_allclose(rates(late, 7, 9, 12), rates(whole, 0, 2, 5), rtol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="linear"):
        rates(Schedule(0.8, 10, decay="linear"), 0)
    with pytest.raises(ValueError, match="lion"):
        Optimizer(FLAT, PARTS, kind="lion").init(PARAMS)


# --- updates --------------------------------------------------------------------------------------


def train(optimizer, gradients, params=PARAMS, first=0):
    """Parameters, norm and rate after updates with the gradients in turn."""
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step, gradient in enumerate(gradients, start=first):
        params, state, norm, rate = update(gradient, state, params, jnp.int32(step))
    return params, float(norm), float(rate)


def gradients(count=4):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), PARAMS)
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "adamp"])
def test_updates_are_those_of_optax(kind):
    theirs = {
        "adam": optax.adam(FLAT.lr),
        "adamw": optax.adamw(FLAT.lr, weight_decay=0.3),
        # PyTorch's: the decay goes into the momentum.
        "sgd": optax.chain(optax.add_decayed_weights(0.3), optax.sgd(FLAT.lr, momentum=0.9)),
    }[kind]
    expected, state = PARAMS, theirs.init(PARAMS)
    for gradient in gradients():
        with jax.numpy_dtype_promotion("standard"):
            updates, state = theirs.update(gradient, state, expected)
        expected = optax.apply_updates(expected, updates)
    found, _, _ = train(Optimizer(FLAT, PARTS, kind, clip=0.0, weight_decay=0.3), gradients())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def moved(found):
    return jax.tree.map(lambda a, b: np.asarray(b - a), found, PARAMS)


def test_the_norm_is_clipped_and_reported_unclipped():
    big = jax.tree.map(lambda g: 3.0 * g, GRADIENT)  # seven entries of 3
    found, norm, rate = train(Optimizer(FLAT, PARTS, "sgd", clip=2.0), [big])
    np.testing.assert_allclose(norm, 3 * np.sqrt(7), rtol=1e-6)
    assert rate == pytest.approx(0.1)
    length = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(moved(found))))
    np.testing.assert_allclose(length, 0.1 * 2.0, rtol=1e-6)
    small = jax.tree.map(lambda g: 0.1 * g, GRADIENT)
    for clip, gradient, size in ((2.0, small, 0.1), (0.0, big, 3.0)):
        found, _, _ = train(Optimizer(FLAT, PARTS, "sgd", clip=clip), [gradient])
        for x in jax.tree.leaves(moved(found)):
            np.testing.assert_allclose(x, 0.1 * size, rtol=1e-5)


def test_parts_that_are_not_clipped():
    """Their gradients stay as they are, and the others are clipped by their own norm."""
    big = jax.tree.map(lambda g: 3.0 * g, GRADIENT)
    optimizer = Optimizer(FLAT, PARTS, "sgd", clip=2.0, unclipped=("text", "all_text"))
    found, norm, _ = train(optimizer, [big])
    np.testing.assert_allclose(norm, 3 * np.sqrt(7), rtol=1e-6)  # of all, so that NaN is seen
    change = moved(found)
    for x in jax.tree.leaves((change["text"], change["text2"])):
        np.testing.assert_allclose(x, 0.3, rtol=1e-5)
    length = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(change["image"])))
    np.testing.assert_allclose(length, 0.2, rtol=1e-5)


def test_parts_by_plain_gradient_steps():
    """Neither momentum nor decay, at their own factor on the rate; the others are as ever."""
    stage = Stage(0, lr_factors={"words": 0.5})
    common = {"clip": 0.0, "weight_decay": 0.3, "stage": stage}
    for kind in KINDS:
        found, _, _ = train(Optimizer(FLAT, PARTS, kind, **common, plain=("text",)), [GRADIENT] * 3)
        change = moved(found)
        np.testing.assert_allclose(change["text"]["words"]["vectors"], 3 * 0.05, rtol=1e-5)
        np.testing.assert_allclose(change["text"]["out"], 3 * 0.1, rtol=1e-5)
        others, _, _ = train(Optimizer(FLAT, PARTS, kind, **common), [GRADIENT] * 3)
        jax.tree.map(np.testing.assert_array_equal, found["image"], others["image"])


def test_a_gradient_of_zero_moves_nothing():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    found, norm, _ = train(Optimizer(FLAT, PARTS), [zero])
    assert norm == 0
    assert not any(x.any() for x in jax.tree.leaves(moved(found)))


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parts_stay_and_are_not_in_the_norm(kind):
    optimizer = Optimizer(FLAT, PARTS, kind, weight_decay=0.3, stage=Stage(0, frozen=("text",)))
    worse = GRADIENT | {"text": jax.tree.map(lambda x: x * jnp.nan, GRADIENT["text"])}
    found, norm, _ = train(optimizer, [worse, worse])
    jax.tree.map(np.testing.assert_array_equal, found["text"], PARAMS["text"])
    assert all(x.all() for x in jax.tree.leaves(moved(found)["image"]))
    np.testing.assert_allclose(norm, np.sqrt(4), rtol=1e-6)  # image has three entries, text2 one


def test_moments_of_frozen_parts_are_kept():
    before = Optimizer(FLAT, PARTS)
    _, state, *_ = before.update(GRADIENT, before.init(PARAMS), PARAMS, jnp.int32(0))
    frozen = Optimizer(FLAT, PARTS, stage=Stage(0, frozen=("text",)))
    _, after, *_ = frozen.update(GRADIENT, state, PARAMS, jnp.int32(1))
    for moments in ("mu", "nu"):
        old, new = getattr(state, moments), getattr(after, moments)
        jax.tree.map(np.testing.assert_array_equal, new["text"], old["text"])
        assert (new["image"]["kernel"] != old["image"]["kernel"]).all()


def test_gradients_of_frozen_parts_are_not_computed():
    """The square root has an infinite slope at 0, which would show in the gradient."""
    zero = jax.tree.map(jnp.zeros_like, PARAMS)

    def root(params, stage):
        params = Optimizer(FLAT, PARTS, stage=stage).hold_frozen(params)
        return sum(jnp.sqrt(x).sum() for x in jax.tree.leaves(params))

    found = jax.grad(root)(zero, Stage(0, frozen=("text",)))
    assert not any(x.any() for x in jax.tree.leaves(found["text"]))
    assert np.isinf(found["text2"]).all()
    assert np.isinf(jax.grad(root)(zero, Stage(0))["text"]["out"]).all()


def factors(**stage):
    return Optimizer(FLAT, PARTS, stage=Stage(0, **stage)).factors(PARAMS)


def test_the_longest_path_decides():
    found = factors(lr_factors={"words": 0.5, "text": 0.1})
    assert found["text"] == {"words": {"vectors": 0.5}, "out": 0.1}
    assert found["text2"] == 1.0  # "text" is no path to it
    assert found["image"] == {"kernel": 1.0, "bias": 1.0}
    assert factors(lr_factors={"text": 0.1, "words": 0.5}) == found
    assert factors(frozen=("text",), lr_factors={"words": 0.5})["text"]["words"]["vectors"] == 0.5
    assert factors(frozen=("words",), lr_factors={"words": 0.5})["text"]["words"]["vectors"] == 0


def test_a_part_of_several_paths():
    found = factors(frozen=("all_text",))
    assert jax.tree.leaves(found) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_factor_scales_the_rate_of_its_part():
    stage = Stage(0, lr_factors={"words": 0.25})
    found, _, _ = train(Optimizer(FLAT, PARTS, "sgd", clip=0.0, stage=stage), [GRADIENT])
    change = moved(found)
    np.testing.assert_allclose(change["text"]["words"]["vectors"], 0.025, rtol=1e-5)
    np.testing.assert_allclose(change["text"]["out"], 0.1, rtol=1e-5)


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="'imag'; known: image, text"):
        factors(frozen=("imag",))


def test_the_rate_is_that_of_the_step_not_of_the_updates_so_far():
    schedule = Schedule(0.8, 10, decay="step", decay_at=0.5)
    assert train(Optimizer(schedule, PARTS), [GRADIENT], first=5)[2] == pytest.approx(0.08)
    assert train(Optimizer(schedule, PARTS), [GRADIENT], first=4)[2] == pytest.approx(0.8)
