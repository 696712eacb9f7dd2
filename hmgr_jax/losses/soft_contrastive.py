"""Losses of PCME (Chun et al., CVPR 2021): soft contrastive loss, VIB and uniformity.

Two items match with probability p, the mean of sigmoid(z) over pairs of their samples, where
z = κ (shift - scale d), d is the distance of the samples, and κ = 2 in the released code. All terms
are computed from log sigmoid(z), since z is about -1,300 at the start.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Bool, Float

KL_FORMS = ("code", "exact")
BLOCK_PAIRS = 2**23
"""Pairs of samples in a block of `log_match_in_blocks`."""
NEVER = 2.0
"""Larger than every random number of `uniformity`: padding is never chosen."""


class Match(NamedTuple):
    """The learned scale and shift from distances to logits."""

    scale: Float[Array, ""]
    shift: Float[Array, ""]
    factor: float = 2.0
    """κ."""

    def logits(self, a: Float[Array, "A J D"], b: Float[Array, "B K D"]) -> Array:
        """Logits z [A, J, B, K] of every pair of samples, from one matrix product."""
        distance = jnp.sqrt(squared_distances(a, b) + 1e-6)
        return self.factor * (self.shift - self.scale * distance)


def squared_distances(
    a: Float[Array, "A J D"], b: Float[Array, "B K D"]
) -> Float[Array, "A J B K"]:
    """|a - b|² of all pairs as |a|² + |b|² - 2 a·b, without an [A, J, B, K, D] array."""
    (n, j, _), (m, k, _) = a.shape, b.shape
    flat_a, flat_b = a.reshape(n * j, -1), b.reshape(m * k, -1)
    squares = [jnp.sum(x * x, axis=1) for x in (flat_a, flat_b)]
    found = squares[0][:, None] + squares[1][None, :] - 2.0 * einsum("id,jd->ij", flat_a, flat_b)
    return jnp.maximum(found, 0.0).reshape(n, j, m, k)


def _log_mean(logits: Float[Array, "A J B K"]) -> Float[Array, "A B"]:
    """Logarithm of the mean over pairs of samples of σ(logits)."""
    pairs = logits.shape[1] * logits.shape[3]
    found = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=(1, 3))
    return found - jnp.log(jnp.float32(pairs))


def log_match_probability(
    match: Match, a: Float[Array, "A J D"], b: Float[Array, "B K D"]
) -> Float[Array, "A B"]:
    """Logarithm of p of all pairs of items."""
    return _log_mean(match.logits(a, b))


def log_match_in_blocks(
    match: Match, a: Float[Array, "A J D"], b: Float[Array, "B K D"]
) -> Float[Array, "A B"]:
    """`log_match_probability` in blocks of ``a``, for test sets."""
    per_item = a.shape[1] * b.shape[0] * b.shape[1]
    size = min(max(1, BLOCK_PAIRS // per_item), len(a))
    return jax.lax.map(
        lambda one: log_match_probability(match, one[None], b)[0], a, batch_size=size
    )


def soft_contrastive(
    match: Match,
    a: Float[Array, "A J D"],
    b: Float[Array, "B K D"],
    positive: Bool[Array, "A B"],
    counts: Bool[Array, "A B"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Σ -log p over pairs that match, and Σ -log(1 - p) over those that do not.

    Args:
        match: scale and shift.
        a: samples of local items of one modality.
        b: samples of all items of the other.
        positive: pairs that match.
        counts: pairs of which both items are valid.
    """
    sign = jnp.where(positive, 1.0, -1.0)[:, None, :, None]
    loss = -_log_mean(sign * match.logits(a, b))
    return (
        jnp.sum(jnp.where(counts & positive, loss, 0.0)),
        jnp.sum(jnp.where(counts & ~positive, loss, 0.0)),
    )


def vib(
    samples: Float[Array, "b J D"],
    mean: Float[Array, "b D"],
    log_sigma: Float[Array, "b D"],
    valid: Bool[Array, " b"],
    form: str = "code",
) -> Float[Array, ""]:
    """KL divergence from N(0, I), summed over dimensions and valid rows.

    ``exact`` is ½ Σ (μ² + σ² - 1 - 2 log σ). ``code`` is the released form, which reads
    ``log_sigma`` as a log variance and the mean of the samples as μ.
    """
    if form not in KL_FORMS:
        raise ValueError(f"form must be one of {', '.join(KL_FORMS)}, got {form!r}")
    if form == "exact":
        each = 0.5 * (mean**2 + jnp.exp(2.0 * log_sigma) - 1.0 - 2.0 * log_sigma)
    else:
        each = -0.5 * (1.0 + log_sigma - jnp.mean(samples, axis=1) ** 2 - jnp.exp(log_sigma))
    return jnp.sum(jnp.where(valid[:, None], each, 0.0))


def uniformity(
    samples: Float[Array, "B K D"],
    valid: Bool[Array, " B"],
    order: Float[Array, "B K"] | Float[Array, " limit"],
    limit: int = 128,
    replace: bool = False,
) -> Float[Array, ""]:
    """Logarithm of the mean over pairs of exp(-2 |x - y|²) (Wang and Isola, ICML 2020).

    If there are more than ``limit`` vectors, those with the lowest ``order`` are compared.
    ``replace`` draws with replacement as the released code does: some pairs are a vector and
    itself.

    Args:
        samples: samples of all items, both modalities concatenated on axis 1.
        valid: items that count.
        order: random numbers in [0, 1), equal on all devices: one for every vector, or with
            ``replace`` for every draw.
        limit: number of vectors that are compared.
        replace: draw with replacement.
    """
    x = samples.reshape(-1, samples.shape[-1])
    usable = jnp.repeat(valid, samples.shape[1])
    if len(x) > limit:
        if replace:
            chosen = _draw_rows(usable, order)
        else:
            order = jnp.where(usable, order.reshape(-1), NEVER)
            chosen = jax.lax.top_k(-order, limit)[1]
        x, usable = x[chosen], usable[chosen]
    squares = squared_distances(x[:, None], x[:, None])[:, 0, :, 0]
    pairs = jnp.triu(usable[:, None] & usable[None, :], k=1)
    count = jnp.sum(pairs)
    # logsumexp, since exp(-2 |x - y|²) underflows to 0 at the distances of the first steps.
    total = jax.nn.logsumexp(-2.0 * squares, where=pairs)
    mean = total - jnp.log(jnp.maximum(count, 1).astype(jnp.float32))
    return jnp.where(count > 0, mean, 0.0)


def _draw_rows(usable: Bool[Array, " n"], numbers: Float[Array, " limit"]) -> Array:
    """The index of a usable row for every number; each row once if at most ``limit`` are usable.

    Numbers index only the usable rows, so padding has no effect.
    """
    first = jnp.argsort(~usable, stable=True)
    count = jnp.sum(usable)
    drawn = jnp.minimum((numbers * count.astype(jnp.float32)).astype(count.dtype), count - 1)
    once = jnp.arange(len(numbers), dtype=count.dtype)
    return first[jnp.where(count > len(numbers), drawn, once)]
