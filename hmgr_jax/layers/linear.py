"""Matrix products with float32 accumulation in any compute type, and linear layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.shapes import Array, Float

Initializer = Any


def einsum(formula: str, a: Array, b: Array, *, dtype: Any = jnp.float32) -> Float[Array, "..."]:
    """``jnp.einsum`` of two operands cast to ``dtype``, accumulated and returned in float32.

    Every index of an operand must be in the other operand or in the result. float32 operands
    keep full precision: by default TPUs and recent GPUs round them.
    """
    if dtype == jnp.float32:
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum(formula, a, b, precision=precision, preferred_element_type=jnp.float32)
    return _narrow(formula, dtype, a, b)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _narrow(formula: str, dtype: Any, a: Array, b: Array) -> Array:
    """A product in a narrow type whose gradients are products in that type too.

    By default the gradient multiplies a float32 cotangent by a narrow operand, at float32 speed.
    """
    return jnp.einsum(formula, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def _narrow_forward(
    formula: str, dtype: Any, a: Array, b: Array
) -> tuple[Array, tuple[Array, Array]]:
    a, b = a.astype(dtype), b.astype(dtype)
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32), (a, b)


def _narrow_backward(
    formula: str, dtype: Any, operands: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    (in_a, in_b), out = formula.split("->")[0].split(","), formula.split("->")[1]
    a, b = operands
    g = cotangent.astype(dtype)
    return (
        jnp.einsum(f"{out},{in_b}->{in_a}", g, b, preferred_element_type=jnp.float32),
        jnp.einsum(f"{in_a},{out}->{in_b}", a, g, preferred_element_type=jnp.float32),
    )


_narrow.defvjp(_narrow_forward, _narrow_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def repeated(x: Array, count: int) -> Array:
    """``x`` [...] as [count, ...].

    Its gradient, a sum over the new axis, is a product with ones: on CPU XLA's sum over a leading
    axis is twenty times slower.
    """
    return jnp.broadcast_to(x[None], (count, *x.shape))


def _repeated_forward(x: Array, count: int) -> tuple[Array, None]:
    return repeated(x, count), None


def _repeated_backward(count: int, _: None, cotangent: Array) -> tuple[Array]:
    ones = jnp.ones(count, cotangent.dtype)
    return (einsum("c,cn->n", ones, cotangent.reshape(count, -1)).reshape(cotangent.shape[1:]),)


repeated.defvjp(_repeated_forward, _repeated_backward)


def uniform(bound: float) -> Initializer:
    """Initializer U(-bound, bound)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """``x W + b`` on the last axis; parameters float32, product in ``dtype``, result float32."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.xavier_uniform()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        """Apply the map."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        flat = x.reshape(-1, x.shape[-1])
        y = einsum("ni,io->no", flat, kernel, dtype=self.dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            y = y + repeated(bias, y.shape[0])
        return y.reshape(*x.shape[:-1], self.features)


def update_norm(gain: float) -> nn.LayerNorm:
    """Layer norm of a residual update; with gain 0 the update starts at 0."""
    scale = nn.initializers.constant(gain)
    return nn.LayerNorm(epsilon=1e-6, scale_init=scale, dtype=jnp.float32, name="norm")
