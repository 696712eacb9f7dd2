"""Scores of pairs of Gaussians, or of samples of them: PCME's test-time similarities.

Codes are dicts: ``mu`` [n, D], ``log_sigma`` [n, D] if the side has a sigma, ``samples`` [n, J, D]
if the score is in `OF_SAMPLES`. Higher is closer. Scores that are sums of products of
the two sides are one matrix product; the others are computed element by element, in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Float

BLOCK_NUMBERS = 2**22
"""Size of a block [rows, B, D] of elementwise scores."""


class Gaussians(NamedTuple):
    """Means and log sigmas of n items."""

    mean: Float[Array, "*n D"]
    log_sigma: Float[Array, "*n D"]

    @property
    def variance(self) -> Float[Array, "*n D"]:
        """σ²."""
        return jnp.exp(2.0 * self.log_sigma)


Score = Callable[[Gaussians, Gaussians], Array]


def _squared(a: Float[Array, "A D"], b: Float[Array, "B D"]) -> Float[Array, "A B"]:
    products = einsum("ad,bd->ab", a, b)
    return jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :] - 2.0 * products


def l2(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """-|μ_a - μ_b|²."""
    return -_squared(a.mean, b.mean)


def wasserstein(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """-|μ_a - μ_b|² - |σ_a - σ_b|², the squared 2-Wasserstein distance."""
    sides = [jnp.concatenate([x.mean, jnp.exp(x.log_sigma)], axis=1) for x in (a, b)]
    return -_squared(sides[0], sides[1])


def csd(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """-E|v - t|² = -|μ_a - μ_b|² - Σ σ_a² - Σ σ_b² (PCME++, ICLR 2024)."""
    spread = [jnp.sum(x.variance, axis=1) for x in (a, b)]
    return l2(a, b) - spread[0][:, None] - spread[1][None, :]


def _over_variance(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """Σ ((μ_a - μ_b)² + σ_a²) / σ_b²."""
    inverse = jnp.exp(-2.0 * b.log_sigma)
    left = jnp.concatenate([a.mean**2 + a.variance, -2.0 * a.mean], axis=1)
    right = jnp.concatenate([inverse, b.mean * inverse], axis=1)
    return einsum("ad,bd->ab", left, right) + jnp.sum(b.mean**2 * inverse, axis=1)[None, :]


def _log_ratio(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """2 Σ (log σ_a - log σ_b)."""
    sums = [2.0 * jnp.sum(x.log_sigma, axis=1) for x in (a, b)]
    return sums[0][:, None] - sums[1][None, :]


def kl(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """The form of the released code; its log term has the opposite sign of KL's."""
    return -(_over_variance(a, b) + _log_ratio(a, b))


def reverse_kl(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """`kl` with swapped arguments."""
    return kl(b, a).T


def kl_exact(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """-KL(a || b)."""
    return -0.5 * (_over_variance(a, b) - _log_ratio(a, b) - float(a.mean.shape[1]))


def js(a: Gaussians, b: Gaussians) -> Float[Array, "A B"]:
    """Jeffreys' divergence up to constants; the released code calls it js."""
    return -(_over_variance(a, b) + _over_variance(b, a).T)


def _elementwise(of_dimensions: Callable[..., Array]) -> Score:
    """A score from ``of_dimensions(difference², variance of a, variance of b)`` [..., D]."""

    def score(a: Gaussians, b: Gaussians) -> Array:
        def of_row(row: Gaussians) -> Array:
            squares = (row.mean[None, :] - b.mean) ** 2
            return of_dimensions(squares, row.variance[None, :], b.variance)

        rows = max(1, BLOCK_NUMBERS // max(1, b.mean.size))
        return jax.lax.map(of_row, a, batch_size=min(rows, len(a.mean)))

    return score


def _elk(squares: Array, a: Array, b: Array) -> Array:
    return -0.5 * jnp.sum(squares / (a + b) + jnp.log(a + b), axis=-1)


def _bhattacharyya(squares: Array, a: Array, b: Array) -> Array:
    ratio = jnp.sqrt(a / b)
    spread = 2.0 * jnp.log(ratio + 1.0 / ratio) - 2.0 * jnp.log(jnp.float32(2.0))
    return -0.25 * jnp.sum(squares / (a + b) + spread, axis=-1)


elk = _elementwise(_elk)
"""The expected likelihood kernel, up to a constant."""
bhattacharyya = _elementwise(_bhattacharyya)
minimum = _elementwise(lambda squares, *_: -jnp.min(squares, axis=-1))
maximum = _elementwise(lambda squares, *_: -jnp.max(squares, axis=-1))

OF_MEANS: Mapping[str, Score] = {"l2": l2, "min": minimum, "max": maximum}
"""Scores that do not depend on sigma."""
OF_SIGMAS: Mapping[str, Score] = {
    "elk": elk,
    "wasserstein": wasserstein,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "kl_exact": kl_exact,
    "js": js,
    "bhattacharyya": bhattacharyya,
    "csd": csd,
}


OF_SAMPLES = ("matching_prob", "matmul", "proposals")
NAMES = (*OF_SAMPLES, "mean", *OF_MEANS, *OF_SIGMAS)
EXACT = ("mean", "matmul", "l2", "wasserstein", "csd")
"""Scores that are the inner product of `vectors`."""


def similarity(name: str, a: Mapping[str, Array], b: Mapping[str, Array]) -> Float[Array, "A B"]:
    """Scores by any of `NAMES` except ``matching_prob``, which needs a scale and a shift."""
    if name == "proposals":
        return best_proposals(a["samples"], b["samples"])
    if name in ("mean", "matmul"):
        return einsum("ad,bd->ab", vectors(name, a, first=True), vectors(name, b, first=False))
    sides = [Gaussians(x["mu"], x.get("log_sigma", x["mu"])) for x in (a, b)]
    return {**OF_MEANS, **OF_SIGMAS}[name](sides[0], sides[1])


def best_proposals(a: Float[Array, "A K D"], b: Float[Array, "B L D"]) -> Float[Array, "A B"]:
    """The highest cosine over pairs of proposals of two items (PVSE, CVPR 2019)."""
    return jnp.max(einsum("akd,bld->akbl", a, b), axis=(1, 3))


def vectors(name: str, codes: Mapping[str, Array], *, first: bool) -> Float[Array, "n E"]:
    """Vectors for search: their inner product is the score (`EXACT`) or minus a distance.

    Args:
        name: the name of the score.
        codes: the codes of one side.
        first: whether this is the first side.
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


def inner_product_form(x: Float[Array, "n D"], extra: Array, first: bool) -> Float[Array, "n E"]:
    """Vectors whose inner product is -|x - y|² - extra_x - extra_y, for search.

    Args:
        x: vectors of one side.
        extra: [n], a constant of each item that is subtracted.
        first: whether this is side x.
    """
    own = -(jnp.sum(x * x, axis=1) + extra)[:, None]
    ends = (own, jnp.ones_like(own)) if first else (jnp.ones_like(own), own)
    return jnp.concatenate([2.0**0.5 * x, *ends], axis=1)
