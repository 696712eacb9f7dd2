"""PCME's losses of samples: match probabilities, soft contrastive loss, VIB and uniformity.

Two items match with probability p = mean over pairs of their samples of σ(z), where
z = κ (shift - scale d) and d is the distance of the two samples (Chun et al., CVPR 2021; κ is 2 in
the released code). Everything is made of log σ, because z is about -1,300 at the start.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Bool, Float

KL_FORMS = ("code", "exact")
AT_ONCE = 2**23
"""Pairs of samples that are compared at once."""
NEVER = 2.0
"""Above every random number of `uniformity`."""


class Match(NamedTuple):
    """How distances become probabilities; both are learnt."""

    scale: Float[Array, ""]
    shift: Float[Array, ""]
    factor: float = 2.0
    """κ."""

    def logits(self, a: Float[Array, "A J D"], b: Float[Array, "B K D"]) -> Array:
        """The z [A, J, B, K] of every pair of samples, from one product of matrices."""
        distance = jnp.sqrt(squared_distances(a, b) + 1e-6)
        return self.factor * (self.shift - self.scale * distance)


def squared_distances(
    a: Float[Array, "A J D"], b: Float[Array, "B K D"]
) -> Float[Array, "A J B K"]:
    """|a - b|² of all pairs as |a|² + |b|² - 2 a·b, never with a [A, J, B, K, D] array."""
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
    """`log_match_probability`, some items of ``a`` at a time: for whole test sets."""
    per_item = a.shape[1] * b.shape[0] * b.shape[1]
    size = min(max(1, AT_ONCE // per_item), len(a))
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
        a: samples of this device's items of one modality.
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

    ``exact`` is ½ Σ (μ² + σ² - 1 - 2 log σ). ``code`` is the released one, which takes
    ``log_sigma`` for the logarithm of the variance and the mean of the samples for μ.
    """
    if form not in KL_FORMS:
        raise ValueError(f"form is one of {', '.join(KL_FORMS)}, not {form!r}")
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

    Of more than ``limit`` vectors those with the lowest ``order`` are compared, each once; with
    ``replace``, as in the released code, they are drawn anew every time, so that some pairs are a
    vector and itself.

    Args:
        samples: of all items, of both modalities side by side.
        valid: items that count.
        order: random numbers from 0 to 1, the same on all devices: of every vector, or with
            ``replace`` of every draw.
        limit: of vectors.
        replace: draw with replacement.
    """
    x = samples.reshape(-1, samples.shape[-1])
    usable = jnp.repeat(valid, samples.shape[1])
    if len(x) > limit:
        if replace:
            chosen = _drawn(usable, order)
        else:
            order = jnp.where(usable, order.reshape(-1), NEVER)
            chosen = jax.lax.top_k(-order, limit)[1]
        x, usable = x[chosen], usable[chosen]
    squares = squared_distances(x[:, None], x[:, None])[:, 0, :, 0]
    pairs = jnp.triu(usable[:, None] & usable[None, :], k=1)
    count = jnp.sum(pairs)
    # Not the logarithm of a mean: exp(-2 |x - y|²) is 0 where vectors are as far apart as at first.
    total = jax.nn.logsumexp(-2.0 * squares, where=pairs)
    mean = total - jnp.log(jnp.maximum(count, 1).astype(jnp.float32))
    return jnp.where(count > 0, mean, 0.0)


def _drawn(usable: Bool[Array, " n"], numbers: Float[Array, " limit"]) -> Array:
    """A usable place for every number, or every place once where there are not more usable ones.

    Places are counted among the usable ones, so that rows which fill a batch up change nothing.
    """
    first = jnp.argsort(~usable, stable=True)
    count = jnp.sum(usable)
    drawn = jnp.minimum((numbers * count.astype(jnp.float32)).astype(count.dtype), count - 1)
    once = jnp.arange(len(numbers), dtype=count.dtype)
    return first[jnp.where(count > len(numbers), drawn, once)]
