"""bfloat16 products accumulate in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, normal, random_params

from hmgr_jax.layers.linear import Linear, einsum, repeated, uniform

MANY = 4096
"""Ones added in bfloat16 stop growing at 256."""


def test_einsum_accumulates_in_float32():
    ones = jnp.ones((2, MANY))
    found = einsum("ik,jk->ij", ones, ones, dtype=jnp.bfloat16)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, MANY + np.zeros((2, 2)))
    # 4097 is no bfloat16: the result has not been rounded to one either.
    ones = jnp.ones((1, MANY + 1))
    assert float(einsum("ik,jk->ij", ones, ones, dtype=jnp.bfloat16)[0, 0]) == MANY + 1


def test_gradients_of_narrow_products_accumulate_in_float32():
    x, y = normal(3, 4), normal(5, 4, seed=1)

    def value(x, y, dtype):
        return jnp.sum(jnp.sin(einsum("ik,jk->ij", x, y, dtype=dtype)))

    exact, found = (jax.grad(value, (0, 1))(x, y, t) for t in (jnp.float32, jnp.bfloat16))
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == jnp.float32
        assert 0 < np.abs(a - b).max() < 0.1
    ones = jnp.ones((MANY + 1, 2))
    total = jax.grad(lambda w: jnp.sum(einsum("ni,io->no", ones, w, dtype=jnp.bfloat16)))
    np.testing.assert_array_equal(total(jnp.ones((2, 1))), [[MANY + 1]] * 2)


def test_operands_are_rounded_to_the_compute_type():
    x = jnp.asarray([[1.0 + 2**-10]])
    assert float(einsum("ik,jk->ij", x, x, dtype=jnp.bfloat16)[0, 0]) == 1.0
    assert float(einsum("ik,jk->ij", x, x)[0, 0]) > 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
def test_linear_is_a_matrix_product_and_a_bias(dtype, shape):
    module, x = Linear(5, dtype=dtype), normal(*shape)
    params = random_params(module, x)
    found = module.apply({"params": params}, x)
    assert found.dtype == jnp.float32
    tolerance = 1e-6 if dtype == jnp.float32 else 0.03
    np.testing.assert_allclose(found, linear(as64(params), as64(x)), rtol=0, atol=tolerance)


def test_parameters_and_gradients_stay_float32():
    module, x = Linear(5, dtype=jnp.bfloat16), normal(3, 4)
    params = module.init(jax.random.key(0), x)
    gradient = jax.grad(lambda p: jnp.sum(module.apply(p, x)))(params)
    for leaf in jax.tree.leaves((params, gradient)):
        assert leaf.dtype == jnp.float32


def test_linear_without_bias_has_no_bias():
    module = Linear(5, use_bias=False)
    assert list(random_params(module, normal(3, 4))) == ["kernel"]


def test_the_gradient_of_repeating_is_a_sum():
    x, weight = normal(2, 3), normal(4, 2, 3, seed=1)
    np.testing.assert_array_equal(repeated(x, 4), np.broadcast_to(x, (4, 2, 3)))
    gradient = jax.grad(lambda x: jnp.sum(repeated(x, 4) * weight))(x)
    np.testing.assert_allclose(gradient, np.asarray(weight).sum(axis=0), rtol=1e-6)


def test_uniform_fills_its_range():
    found = np.asarray(uniform(0.25)(jax.random.key(0), (1000,)))
    assert -0.25 <= found.min() < -0.24
    assert 0.24 < found.max() <= 0.25
