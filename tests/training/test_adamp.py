"""AdamP against its definition in numpy, and that it leaves the right part of a step out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmgr_jax.training.optimizer import scale_by_adamp

SHAPES = {"kernel": (6, 5), "conv": (3, 3, 2, 4), "vectors": (7, 3), "bias": (5,), "scale": ()}
BY_ROWS = ("vectors",)


def reference(params, gradients, delta=0.1, eps=1e-8):
    """Steps of AdamP by the paper's algorithm; channels are the last axis, of tables the first."""
    moments = {n: (np.zeros_like(w), np.zeros_like(w)) for n, w in params.items()}
    for t, gradient in enumerate(gradients, start=1):
        steps = {}
        for name, g in gradient.items():
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moments[name] = m, v
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
            steps[name] = projected(params[name], g, step, name in BY_ROWS, delta, eps)
    return steps


def projected(weight, gradient, step, by_rows, delta, eps):
    if weight.ndim < 2:
        return step

    def rows(x):
        return x.reshape(len(x), -1) if by_rows else x.reshape(-1, x.shape[-1]).T

    def back(x):
        return x.reshape(weight.shape) if by_rows else x.T.reshape(weight.shape)

    whole = (lambda x: x.reshape(1, -1)), (lambda x: x.reshape(weight.shape))
    for view, undo in ((rows, back), whole):
        w, g, p = view(weight), view(gradient), view(step)
        lengths = [np.linalg.norm(x, axis=1) + eps for x in (w, g)]
        cosine = np.abs((w * g).sum(1)) / lengths[0] / lengths[1]
        if cosine.max() < delta / np.sqrt(w.shape[1]):
            n = w / lengths[0][:, None]
            return undo(p - n * (n * p).sum(1, keepdims=True))
    return step


def orthogonal(kind, name, weight, rng):
    """A gradient that is orthogonal to the weight in one view, or in none."""
    g = rng.standard_normal(weight.shape)
    if weight.ndim < 2 or kind == "none":
        return g + 0.5 * weight
    axes = tuple(range(weight.ndim))
    if kind == "channel":
        axes = axes[1:] if name in BY_ROWS else axes[:-1]
    along = (g * weight).sum(axes, keepdims=True) / (weight**2).sum(axes, keepdims=True)
    return g - along * weight


@pytest.mark.parametrize("kind", ["channel", "layer", "none"])
def test_steps_are_those_of_the_algorithm(kind):
    rng = np.random.default_rng(1)
    params = {n: rng.standard_normal(s) for n, s in SHAPES.items()}
    gradients = [{n: orthogonal(kind, n, w, rng) for n, w in params.items()} for _ in range(3)]
    optimizer = scale_by_adamp()

    def device(tree):
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)

    state, update = optimizer.init(device(params)), jax.jit(optimizer.update)
    plain, plain_state = optax.scale_by_adam(), optax.scale_by_adam().init(device(params))
    with jax.numpy_dtype_promotion("standard"):
        for gradient in gradients:
            found, state = update(device(gradient), state, device(params))
            adam, plain_state = plain.update(device(gradient), plain_state)
    expected = reference(params, gradients)
    for name, step in found.items():
        np.testing.assert_allclose(step, expected[name], rtol=2e-4, atol=2e-5, err_msg=name)
    projected_ones = [n for n in found if not np.allclose(found[n], adam[n], atol=1e-4)]
    assert bool(projected_ones) == (kind != "none")
    if kind == "channel":
        step, weight = np.asarray(found["kernel"]), params["kernel"]
        np.testing.assert_allclose((step * weight).sum(0), 0, atol=1e-4)


def test_it_needs_the_parameters():
    optimizer = scale_by_adamp()
    x = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="parameters"):
        optimizer.update(x, optimizer.init(x))
