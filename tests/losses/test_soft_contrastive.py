"""PCME's losses against plain loops in float64, at sizes where exponentials over- and underflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.losses.soft_contrastive import (
    Match,
    log_match_probability,
    soft_contrastive,
    uniformity,
    vib,
)

MATCH = Match(jnp.float32(4.0), jnp.float32(5.0))


def draws(*shape, seed=0, scale=0.3):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def probability(a, b, scale, shift, factor=2.0):
    """Probabilities of every pair, by loops."""
    found = np.zeros((len(a), len(b)))
    for i, x in enumerate(a):
        for k, y in enumerate(b):
            distances = [np.sqrt(((v - t) ** 2).sum() + 1e-6) for v in x for t in y]
            z = factor * (shift - scale * np.array(distances))
            found[i, k] = np.mean(1 / (1 + np.exp(-z)))
    return found


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_probabilities_and_losses_equal_loops():
    a, b = draws(4, 3, 5), draws(6, 2, 5, seed=1, scale=0.5)
    expected = probability(a, b, 4.0, 5.0)
    assert 0.001 < expected.min() < expected.max() < 0.999
    found = log_match_probability(MATCH, f32(a), f32(b))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    positive = np.random.default_rng(2).random((4, 6)) < 0.3
    counts = np.random.default_rng(3).random((4, 6)) < 0.8
    near, far = soft_contrastive(MATCH, f32(a), f32(b), jnp.asarray(positive), jnp.asarray(counts))
    np.testing.assert_allclose(near, -np.log(expected)[positive & counts].sum(), rtol=1e-5)
    np.testing.assert_allclose(far, -np.log(1 - expected)[~positive & counts].sum(), rtol=1e-5)
    turned = soft_contrastive(MATCH, f32(b), f32(a), jnp.asarray(positive.T), jnp.asarray(counts.T))
    np.testing.assert_allclose(turned, (near, far), rtol=1e-6)


def test_the_start_of_training_is_finite():
    """σ about 1 in 1,024 dimensions and a = b = 15: z is about -1,300, and p is 0 in float32."""
    a, b = draws(8, 7, 1024, scale=1.0), draws(8, 7, 1024, seed=1, scale=1.0)
    eye = jnp.eye(8, dtype=bool)

    def loss(scale, shift, a):
        near, far = soft_contrastive(Match(scale, shift), a, f32(b), eye, jnp.ones((8, 8), bool))
        return near + far, near

    (_, near), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
        jnp.float32(15.0), jnp.float32(15.0), f32(a)
    )
    assert 1200 < float(near) / 8 < 1340  # a simulation of the released code gives 1,268.5
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_vib_equals_both_forms():
    samples, log_sigma = draws(4, 3, 5), draws(4, 5, seed=1)
    mean = draws(4, 5, seed=2)
    valid = np.array([True, True, False, True])
    bar = samples.mean(1)
    code = -0.5 * (1 + log_sigma - bar**2 - np.exp(log_sigma))
    exact = 0.5 * (mean**2 + np.exp(2 * log_sigma) - 1 - 2 * log_sigma)
    given = f32(samples), f32(mean), f32(log_sigma), jnp.asarray(valid)
    np.testing.assert_allclose(vib(*given), code[valid].sum(), rtol=1e-5)
    np.testing.assert_allclose(vib(*given, "exact"), exact[valid].sum(), rtol=1e-5)
    with pytest.raises(ValueError, match="code, exact"):
        vib(*given, "other")


def test_uniformity_compares_the_chosen_vectors_of_valid_items():
    x, order = draws(6, 4, 3), np.random.default_rng(5).random((6, 4))
    valid = np.array([True, False, True, True, True, False])
    x[~valid] = 50.0

    def expected(flat):
        squares = ((flat[:, None] - flat[None]) ** 2).sum(-1)[np.triu_indices(len(flat), 1)]
        return np.log(np.exp(-2 * squares).mean())

    rows = x[valid].reshape(-1, 3)
    given = f32(x), jnp.asarray(valid), f32(order)
    np.testing.assert_allclose(uniformity(*given), expected(rows), rtol=1e-4)
    lowest = np.argsort(order[valid].reshape(-1))[:5]
    np.testing.assert_allclose(uniformity(*given, 5), expected(rows[lowest]), rtol=1e-4)
    # Fewer valid vectors than there is room for.
    np.testing.assert_allclose(uniformity(*given, 20), expected(rows), rtol=1e-4)
    assert uniformity(f32(x), jnp.zeros(6, bool), f32(order)) == 0


def test_uniformity_with_replacement():
    """Draws index the valid vectors; a vector drawn twice is a pair of distance 0."""
    x, valid = draws(6, 4, 3), np.array([True, False, True, True, True, False])
    x[~valid] = 50.0
    rows, numbers = x[valid].reshape(-1, 3), np.array([0.0, 0.3, 0.31, 0.7, 0.999])
    chosen = rows[[0, 4, 4, 11, 15]]
    squares = ((chosen[:, None] - chosen[None]) ** 2).sum(-1)[np.triu_indices(5, 1)]
    found = uniformity(f32(x), jnp.asarray(valid), f32(numbers), 5, replace=True)
    np.testing.assert_allclose(found, np.log(np.exp(-2 * squares).mean()), rtol=1e-4)
    # What fills a batch up changes no draw, and not more vectors than draws are all compared once.
    alone = uniformity(f32(x[valid]), jnp.ones(4, bool), f32(numbers), 5, replace=True)
    np.testing.assert_allclose(alone, found, rtol=1e-6)
    many = f32(np.full(20, 0.5))
    every = uniformity(f32(x), jnp.asarray(valid), many, 20, replace=True)
    order = jnp.zeros((6, 4), jnp.float32)
    np.testing.assert_allclose(every, uniformity(f32(x), jnp.asarray(valid), order, 24), rtol=1e-5)


def test_uniformity_of_far_vectors_has_a_finite_gradient():
    x = f32(draws(4, 2, 512, scale=1.0))  # exp(-2 |x - y|²) is 0 in float32
    valid, order = jnp.ones(4, bool), jnp.ones((4, 2))
    value, gradient = jax.value_and_grad(lambda x: uniformity(x, valid, order))(x)
    assert -5000 < float(value) < -500
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_the_loss_of_a_batch_takes_less_than_a_gigabyte():
    """B = 128, J = 7, D = 1,024 with its gradient: [B, B, J, J, D] alone would be 3.3 GB."""
    samples = jax.ShapeDtypeStruct((128, 7, 1024), jnp.float32)

    def loss(a, b, scale, shift):
        every = jnp.ones((128, 128), bool)
        near, far = soft_contrastive(Match(scale, shift), a, b, jnp.eye(128, dtype=bool), every)
        return 2.0 * (near + far)

    number = jax.ShapeDtypeStruct((), jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    memory = step.lower(samples, samples, number, number).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert held < 200e6, held
