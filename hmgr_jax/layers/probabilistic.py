"""Heads for the mean and the log sigma of a Gaussian, and its samples (PCME, CVPR 2021)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.linear import Linear, einsum, uniform
from hmgr_jax.layers.masking import masked_softmax
from hmgr_jax.shapes import Array, Bool, Float

SIGMA_HEADS = ("plain", "normalised")


def unit(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Unit vectors x / max(|x|, 1e-12), PyTorch's ``normalize``."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def plain_linear(features: int, inputs: int, dtype: Any, name: str) -> Linear:
    """A linear map with PyTorch's initialisation: kernel and bias U(±1/√inputs)."""
    init = uniform(inputs**-0.5)
    return Linear(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)


class FragmentAttention(nn.Module):
    """K means of an item's fragments, weighted by softmax(tanh(x W_1) W_2) (PVSE, PCME)."""

    heads: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], mask: Bool[Array, "B N"]
    ) -> tuple[Float[Array, "B K C"], Float[Array, "B N K"]]:
        """The means, and the weights, which are 0 at padding."""
        hidden = Linear(x.shape[-1] // 2, False, self.dtype, name="hidden")(x)
        logits = Linear(self.heads, False, self.dtype, name="out")(jnp.tanh(hidden))
        places = jnp.broadcast_to(mask[:, None, :], (len(x), self.heads, x.shape[1]))
        weights = masked_softmax(jnp.swapaxes(logits, 1, 2), places)
        return einsum("bkn,bnc->bkc", weights, x), jnp.swapaxes(weights, 1, 2)


class MeanHead(nn.Module):
    """Unit vectors of LN(whole + σ(attended W_r + b_r)), or without attention of ``whole``."""

    features: int
    attention: bool = True
    proposals: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], mask: Bool[Array, "B N"], whole: Float[Array, "B D"]
    ) -> tuple[Float[Array, "B K D"], Float[Array, "B N K"] | None]:
        """K means of every item, one for each attention head, and the weights of fragments.

        Args:
            x: fragments (cells of a feature map, regions, word vectors).
            mask: the valid fragments.
            whole: the global vector of each item.
        """
        if not self.attention:
            return unit(whole)[:, None, :], None
        attend = FragmentAttention(self.proposals, self.dtype, name="attention")
        attended, weights = attend(x, mask)
        local = jax.nn.sigmoid(Linear(self.features, dtype=self.dtype, name="fc")(attended))
        norm = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")
        return unit(norm(whole[:, None, :] + local)), weights


class SigmaHead(nn.Module):
    """log σ = attended W_a + b_a + whole, without sigmoid or norm.

    ``normalised`` has both, as the mean head does; the paper advises against it.
    """

    features: int
    attention: bool = True
    kind: str = "plain"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N C"], mask: Bool[Array, "B N"], whole: Float[Array, "B D"]
    ) -> Float[Array, "B D"]:
        """Compute log σ of every item; arguments are those of `MeanHead`."""
        if self.attention:
            attended, _ = FragmentAttention(1, self.dtype, name="attention")(x, mask)
            local = Linear(self.features, dtype=self.dtype, name="fc")(attended[:, 0])
            whole = whole + (local if self.kind == "plain" else jax.nn.sigmoid(local))
        if self.kind == "plain":
            return whole
        return unit(nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(whole))


def draw(
    mean: Float[Array, "B D"], log_sigma: Float[Array, "B D"], count: int, keys: Keys
) -> Float[Array, "B J D"]:
    """``count`` samples mean + σ ε of every item, drawn with the item's key."""
    shape = (count, mean.shape[-1])
    noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys.per_row())
    return mean[:, None, :] + jnp.exp(log_sigma)[:, None, :] * noise
