"""Maximum over an item's neighbours of ReLU(BN([x_j ; x_i] W)), without the pairs' vectors.

A linear map of a pair is a sum, ``other_j + own_i``, of maps of its nodes, so that matrix products
run over nodes and not over edges. Batch norm and ReLU are monotone in every channel, rising or
falling, so that the maximum is at the largest or at the smallest sum: only these two are normalised.
The moments of training are those of all edges.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, Moments, Rows, mean_and_variance
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.normed import rectified
from hmgr_jax.shapes import Array, Float, Int


def nearest(x: Float[Array, "b N C"], count: int) -> Int[Array, "b N K"]:
    """The ``count`` nodes nearest to each, itself mostly the first; no gradient flows."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    square = jnp.sum(x * x, axis=-1)
    near = 2.0 * einsum("bnc,bmc->bnm", x, x) - square[:, None, :]
    return jax.lax.top_k(near, count)[1]


def gathered(x: Float[Array, "b N C"], index: Int[Array, "b N K"]) -> Float[Array, "b N K C"]:
    """Vectors of each node's neighbours, whose numbers must be from 0 to N - 1."""
    return jax.vmap(lambda own, at: own.at[at].get(mode="clip"))(x, index)


class NeighbourMax(nn.Module):
    """``max_j ReLU(BN(other_j + own_i))`` over the neighbours j of i."""

    slope: float = 0.0

    @nn.compact
    def __call__(
        self,
        other: Float[Array, "b N C"],
        own: Float[Array, "b N C"],
        index: Int[Array, "b N K"],
        rows: Rows | None,
    ) -> Float[Array, "b N C"]:
        """Reduce; with ``rows`` (training) the norm is that of all edges of the batch."""
        moments: Moments | None = None
        if rows is None:
            found = _ends(gathered(other, index), own)
        else:
            found, moments = jax.checkpoint(lambda a, b: _measured(a, b, index, rows))(other, own)
        normed = BatchNorm(name="norm")(found, rows, moments)
        return jnp.max(rectified(normed, self.slope), axis=2)


def _ends(near: Float[Array, "b N K C"], own: Float[Array, "b N C"]) -> Float[Array, "b N 2 C"]:
    """The largest and the smallest sum of every node."""
    return jnp.stack([jnp.max(near, axis=2), jnp.min(near, axis=2)], axis=2) + own[:, :, None, :]


def _measured(other: Array, own: Array, index: Array, rows: Rows) -> tuple[Array, Moments]:
    near = gathered(other, index)
    return _ends(near, own), mean_and_variance(near + own[:, :, None, :], rows)
