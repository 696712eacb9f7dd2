"""Scores of items that are Gaussians, or samples of them, by name: PCME's at test time (spec 1.9).

Codes are dicts: ``mu`` [n, D], ``log_sigma`` [n, D] where the side has a sigma, ``samples``
[n, J, D] where the score is `OF_SAMPLES`.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from hmgr_jax.layers.gaussian_distances import OF_MEANS, OF_SIGMAS, Gaussians, inner_product_form
from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Float

OF_SAMPLES = ("matching_prob", "matmul", "proposals")
NAMES = (*OF_SAMPLES, "mean", *OF_MEANS, *OF_SIGMAS)
EXACT = ("mean", "matmul", "l2", "wasserstein", "csd")
"""Those that are the inner product of `vectors`."""


def similarity(name: str, a: Mapping[str, Array], b: Mapping[str, Array]) -> Float[Array, "A B"]:
    """Any of `NAMES` but ``matching_prob``, which also needs a scale and a shift."""
    if name == "proposals":
        return best_proposals(a["samples"], b["samples"])
    if name in ("mean", "matmul"):
        return einsum("ad,bd->ab", vectors(name, a, first=True), vectors(name, b, first=False))
    sides = [Gaussians(x["mu"], x.get("log_sigma", x["mu"])) for x in (a, b)]
    return {**OF_MEANS, **OF_SIGMAS}[name](sides[0], sides[1])


def best_proposals(a: Float[Array, "A K D"], b: Float[Array, "B L D"]) -> Float[Array, "A B"]:
    """The highest cosine among the pairs of two items' proposals (PVSE, CVPR 2019)."""
    return jnp.max(einsum("akd,bld->akbl", a, b), axis=(1, 3))


def vectors(name: str, codes: Mapping[str, Array], *, first: bool) -> Float[Array, "n E"]:
    """For search: their inner product is the score (`EXACT`), else minus an expected distance.

    Args:
        name: of the score.
        codes: of one side.
        first: whether it is the first one.
    """
    codes = jax.tree.map(jnp.asarray, codes)
    mu = codes["mu"]
    if name in ("mean", "proposals"):
        return mu
    if name == "matmul":  # the sum over pairs of samples is the product of their sums
        return jnp.sum(codes["samples"], axis=1)
    spread = jnp.zeros(len(mu), jnp.float32)
    if name == "wasserstein":
        mu = jnp.concatenate([mu, jnp.exp(codes["log_sigma"])], axis=1)
    elif name not in OF_MEANS and "log_sigma" in codes:
        spread = jnp.sum(jnp.exp(2.0 * codes["log_sigma"]), axis=1)
    return inner_product_form(mu, spread, first=first)
