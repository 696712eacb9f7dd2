"""The loss over mined pairs equals the loss over all pairs, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.losses.mined import hardest_of, mined_scores, warmed_ranking
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import LocalAxis

SIZE, FEATURES = 8, 3
VALID = jnp.arange(SIZE) < 7
CASES = {
    "all": (VALID, None),
    "groups": (VALID, jnp.asarray([0, 1, 1, 2, 3, 3, 4, 5])),
    "one pair": (jnp.arange(SIZE) < 1, None),
}


def score(w, a, b):
    return jnp.tanh(jnp.einsum("ad,de,be->ab", a, w, b))


def score_pairs(w, a, b):
    return jnp.tanh(jnp.einsum("pd,de,pe->p", a, w, b))


def batch():
    rng = np.random.default_rng(3)
    draw = [rng.standard_normal(s) for s in ((FEATURES, FEATURES), *[(SIZE, FEATURES)] * 2)]
    return [jnp.asarray(x, jnp.float32) for x in draw]


def of_all(w, a, b, is_negative):
    return triplet(score(w, a, b), is_negative)


def mined(w, a, b, is_negative, axis):
    return mined_scores(score, score_pairs, w, a, b, is_negative, axis).triplet(0.2)


@pytest.mark.parametrize("case", CASES)
def test_mined_loss_has_the_value_and_gradient_of_the_whole_matrix(case):
    is_negative = negatives(*CASES[case])
    expected, gradient = jax.value_and_grad(of_all, (0, 1, 2))(*batch(), is_negative)
    found, own = jax.value_and_grad(mined, (0, 1, 2))(*batch(), is_negative, LocalAxis())
    assert (float(expected) > 0) == (case != "one pair")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for x, y in zip(own, gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_mined_loss_on_devices_equals_that_on_one():
    """The hardest image of a caption may be on another device."""
    is_negative = negatives(VALID)
    expected, gradient = jax.value_and_grad(of_all, (0, 1, 2))(*batch(), is_negative)

    def device(w, a, b):
        found, own = jax.value_and_grad(mined, (0, 1, 2))(w, a, b, is_negative, MappedAxis())
        return found, jax.lax.pmean(own[0], DATA), own[1] / 4, own[2] / 4

    rows = P(DATA)
    mapped = jax.shard_map(
        device,
        mesh=make_mesh(4),
        in_specs=(P(), rows, rows),
        out_specs=(P(), P(), rows, rows),
        check_vma=False,
    )
    found, *own = jax.jit(mapped)(*batch())
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for x, y in zip(own, gradient, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_nan_scores_reach_the_loss():
    w, a, b = batch()
    a = a.at[2].set(jnp.nan)
    assert not jnp.isfinite(mined(w, a, b, negatives(VALID), LocalAxis()))


def test_mined_scores_are_the_hardest_of_the_matrix():
    """Rows without negatives are marked and excluded from the loss."""
    w, a, b = batch()
    is_negative = negatives(*CASES["groups"])
    found = mined_scores(score, score_pairs, w, a, b, is_negative, LocalAxis())
    expected = hardest_of(score(w, a, b), is_negative)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        some = np.asarray(expected.some[0])
        np.testing.assert_allclose(np.asarray(one)[some], np.asarray(other)[some], rtol=1e-6)
    np.testing.assert_array_equal(expected.some[0], VALID)
    np.testing.assert_allclose(
        expected.triplet(0.2), triplet(score(w, a, b), is_negative), rtol=1e-6
    )


@pytest.mark.parametrize("hard", [False, True])
def test_warm_up_on_all_negatives_returns_the_hardest_too(hard):
    """With a traced or a static step."""
    w, a, b = batch()
    is_negative = negatives(VALID)
    expected = triplet(score(w, a, b), is_negative, hard=hard)

    def run(step, warmup):
        given = score, score_pairs, (w, a, b), is_negative, LocalAxis()
        return warmed_ranking(*given, margin=0.2, step=step, warmup=warmup)

    traced = jax.jit(run, static_argnums=1)(jnp.int32(5 if hard else 4), 5)
    known = run(jnp.int32(4), 0 if hard else 10**9)
    for total, found in (traced, known):
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        hardest = triplet(score(w, a, b), is_negative)
        np.testing.assert_allclose(found.triplet(0.2), hardest, rtol=1e-6)
