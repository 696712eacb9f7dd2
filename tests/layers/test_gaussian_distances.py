"""Scores of Gaussians in closed form against elementwise formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import normal

from hmgr_jax.layers import gaussian_distances
from hmgr_jax.layers.gaussian_distances import OF_MEANS, OF_SIGMAS, Gaussians, inner_product_form

A, B, D = 4, 6, 5


def written_out(squares, s1, s2, l1, l2):
    """{name: score} of differences² [A, B, D], sigmas and their logarithms."""
    v1, v2 = s1**2, s2**2
    kl = squares / v2 + 2 * (l1 - l2) + v1 / v2
    spread = 2 * np.log(s1 / s2 + s2 / s1) - 2 * np.log(2)
    return {
        "l2": -squares.sum(-1),
        "min": -squares.min(-1),
        "max": -squares.max(-1),
        "elk": -0.5 * (squares / (v1 + v2) + np.log(v1 + v2)).sum(-1),
        "wasserstein": -(squares + (s1 - s2) ** 2).sum(-1),
        "kl": -kl.sum(-1),
        "reverse_kl": -(squares / v1 + 2 * (l2 - l1) + v2 / v1).sum(-1),
        "kl_exact": -0.5 * (2 * (l2 - l1) + (v1 + squares) / v2 - 1).sum(-1),
        "js": -((squares + v1) / v2 + (squares + v2) / v1).sum(-1),
        "bhattacharyya": -0.25 * (squares / (v1 + v2) + spread).sum(-1),
        "csd": -(squares + v1 + v2).sum(-1),
    }


@pytest.mark.parametrize("name", [*OF_MEANS, *OF_SIGMAS])
def test_scores_equal_elementwise_formulas(name, monkeypatch):
    monkeypatch.setattr(gaussian_distances, "BLOCK_NUMBERS", 3 * B * D)  # blocks that do not divide
    a, b = (Gaussians(normal(n, D, seed=n), 0.4 * normal(n, D, seed=9 + n)) for n in (A, B))
    mean_a, log_a, mean_b, log_b = (np.asarray(x, np.float64) for x in (*a, *b))
    squares = (mean_a[:, None] - mean_b[None]) ** 2
    logs = log_a[:, None], log_b[None]
    expected = written_out(squares, np.exp(logs[0]), np.exp(logs[1]), *logs)[name]
    found = {**OF_MEANS, **OF_SIGMAS}[name](a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_inner_product_form_is_minus_a_distance():
    x, y = normal(A, D), normal(B, D, seed=1)
    extra = jnp.arange(A, dtype=jnp.float32), jnp.ones(B)
    first = inner_product_form(x, extra[0], first=True)
    second = inner_product_form(y, extra[1], first=False)
    squares = ((np.asarray(x)[:, None] - np.asarray(y)[None]) ** 2).sum(-1)
    expected = -squares - np.arange(A)[:, None] - 1
    np.testing.assert_allclose(np.asarray(first) @ np.asarray(second).T, expected, rtol=1e-5)
