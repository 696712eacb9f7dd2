"""Region features to nodes: scaling by hand, and embeddings of each region on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, normal, random_params

from hmgr_jax.layers.regions import EMBEDDINGS, SCALES, RegionEmbedding, scale_features

X = normal(2, 3, 4)
ROW = jnp.asarray([[[9.0, -16.0, 0.0, 0.0]]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [9, -16, 0, 0]),
        ("sqrt", [3, -4, 0, 0]),
        ("l2", np.array([9, -16, 0, 0]) / np.sqrt(337)),
        ("sqrt_l2", [0.6, -0.8, 0, 0]),
    ],
)
def test_scales_by_hand(kind, expected):
    found = scale_features(ROW, kind)
    np.testing.assert_allclose(found[0, 0], expected, rtol=0, atol=1e-5)
    half = scale_features(ROW.astype(jnp.float16), kind)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", SCALES)
def test_the_gradient_of_a_zero_feature_is_finite(kind):
    weights = jnp.asarray([[[1.0, 2.0, 3.0, 4.0]]])
    for x in (ROW, jnp.zeros((1, 1, 4))):
        gradient = jax.grad(lambda x: jnp.sum(weights * scale_features(x, kind)))(x)
        assert np.isfinite(gradient).all()


def test_unknown_names_raise():
    with pytest.raises(ValueError, match="log"):
        scale_features(X, "log")
    with pytest.raises(ValueError, match="conv"):
        jax.eval_shape(lambda: RegionEmbedding(5, "conv").init(jax.random.key(0), X))


def test_linear_and_mlp_equal_their_equations():
    module = RegionEmbedding(5)
    params = random_params(module, X)
    found = module.apply({"params": params}, X)
    expected = linear(as64(params)["linear"], as64(X))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    module = RegionEmbedding(5, "mlp", hidden=7)
    params = random_params(module, X)
    p = as64(params)
    x = linear(p["linear"], as64(X))
    update = linear(p["out"], np.maximum(linear(p["hidden"], x), 0))
    update = (update - update.mean(-1, keepdims=True)) / update.std(-1, keepdims=True)
    expected = x + update * p["norm"]["scale"] + p["norm"]["bias"]
    found = module.apply({"params": params}, X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_a_region_does_not_depend_on_others(kind):
    module = RegionEmbedding(5, kind)
    params = random_params(module, X)
    found = np.asarray(module.apply({"params": params}, X))
    other = np.asarray(module.apply({"params": params}, X.at[:, 0].set(100.0)))
    np.testing.assert_array_equal(other[:, 1:], found[:, 1:])
    assert not np.array_equal(other[:, 0], found[:, 0])


def test_a_new_mlp_equals_the_linear_map():
    module = RegionEmbedding(5, "mlp")
    params = jax.jit(module.init)(jax.random.key(0), X)
    found = module.apply(params, X)
    one = {"params": {"linear": params["params"]["linear"]}}
    np.testing.assert_array_equal(found, RegionEmbedding(5).apply(one, X))
