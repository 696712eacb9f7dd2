"""GRUs in PyTorch's form, with the semantics of packed sequences."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, einsum, uniform
from hmgr_jax.layers.masking import length_mask, masked_mean
from hmgr_jax.shapes import Array, Float, Int

SENTENCE_POOLS = ("last_index", "final_states", "mean")


def flip(x: Float[Array, "B L D"], lengths: Int[Array, " B"]) -> Float[Array, "B L D"]:
    """Reverse the valid part of every sequence; padding stays in place."""
    place = jnp.arange(x.shape[1])[None, :]
    source = jnp.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return jnp.take_along_axis(x, source[:, :, None], axis=1)


class GRU(nn.Module):
    """One direction: the reset gate acts after the hidden product, as in PyTorch.

    The reset and update gates have no hidden biases, which would be redundant (hidden biases of a
    PyTorch checkpoint are added to the input biases). All parameters start as U(±1/sqrt(features)).
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L H"]:
        """Hidden states of every position; the initial state is zero."""
        size = self.features
        init = uniform(size**-0.5)
        gates = Linear(3 * size, dtype=self.dtype, kernel_init=init, bias_init=init, name="inputs")
        kernel = self.param("hidden_kernel", init, (size, 3 * size), jnp.float32)
        bias = self.param("hidden_bias", init, (size,), jnp.float32)

        def advance(h: Array, xs: Array) -> tuple[Array, Array]:
            hidden = einsum("bi,io->bo", h, kernel, dtype=self.dtype)
            x_r, x_z, x_n = jnp.split(xs, 3, axis=-1)
            h_r, h_z, h_n = jnp.split(hidden, 3, axis=-1)
            reset = jax.nn.sigmoid(x_r + h_r)
            update = jax.nn.sigmoid(x_z + h_z)
            new = jnp.tanh(x_n + reset * (h_n + bias[None, :]))
            h = (1.0 - update) * new + update * h
            return h, h

        start = jnp.zeros((x.shape[0], size), jnp.float32)
        _, states = jax.lax.scan(advance, start, jnp.swapaxes(gates(x), 0, 1))
        return jnp.swapaxes(states, 0, 1)


class BiGRU(nn.Module):
    """Both directions, averaged (SCAN family); the backward one starts at the last valid word."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], lengths: Int[Array, " B"]
    ) -> Float[Array, "B L H"]:
        """States [B, L, features], exactly 0 at padding."""
        forward = GRU(self.features, dtype=self.dtype, name="forward")(x)
        backward = GRU(self.features, dtype=self.dtype, name="backward")(flip(x, lengths))
        states = (forward + flip(backward, lengths)) / 2
        return jnp.where(length_mask(lengths, x.shape[1])[:, :, None], states, 0.0)


class SentenceGRU(nn.Module):
    """One vector per caption, half of its features from each direction (PCME).

    ``last_index`` reads both halves at the last word, as in the released code: the backward half
    has read only that word. ``final_states`` reads the backward half at the first word; ``mean``
    averages both over words.
    """

    features: int
    pool: str = "last_index"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], lengths: Int[Array, " B"]) -> Float[Array, "B H"]:
        """The sentence vectors, which do not depend on padding."""
        if self.pool not in SENTENCE_POOLS:
            raise ValueError(f"pool must be one of {', '.join(SENTENCE_POOLS)}, got {self.pool!r}")
        forward = GRU(self.features // 2, dtype=self.dtype, name="forward")
        backward = GRU(self.features // 2, dtype=self.dtype, name="backward")
        end = jnp.maximum(lengths - 1, 0)[:, None, None]

        def at_end(states: Array) -> Array:
            return jnp.take_along_axis(states, end, axis=1)

        if self.pool == "last_index":
            return jnp.concatenate([at_end(forward(x)), backward(at_end(x))], axis=2)[:, 0]
        reversed_ = backward(flip(x, lengths))
        if self.pool == "final_states":
            return jnp.concatenate([at_end(forward(x)), at_end(reversed_)], axis=2)[:, 0]
        states = jnp.concatenate([forward(x), flip(reversed_, lengths)], axis=2)
        return masked_mean(states, length_mask(lengths, x.shape[1]))
