"""Calibrated scores: an item that is near to everything stored is worth less.

With the stored training vectors b_1 .. b_S of the other modality, an item a has the hubness

    h(a) = (1/β) log mean_s exp(β a·b_s),     s'(a, b) = s(a, b) - λ (h(a) + h(b)).

λ and β are chosen on dev after training, among them λ = 0. s' is still an inner product, of
[a, -λ h(a), 1] and [b, 1, -λ h(b)], so an index of such vectors searches by s'. For systems that
score pairs, h is that of their coarse vectors, in units of the scores' spread. It has no effect on
a search within one modality.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.layers.linear import einsum
from hmgr_jax.shapes import Array, Float, Int

SHARPNESS = (5.0, 10.0, 20.0, 40.0)
"""Values of β that are tried on dev."""
STRENGTH = (0.25, 0.5, 0.75, 1.0)
"""Values of λ that are tried on dev, besides 0."""
MOST_STORED = 32_768
"""Training vectors of a modality that are stored; of more, a fixed random sample."""
ROWS = 1024
"""Items whose products with the stored vectors are in memory at once."""


@dataclass(frozen=True)
class Calibration:
    """Stored vectors of two modalities, and how they count."""

    vectors: Mapping[str, Float[np.ndarray, "S E"]]
    """{modality: coarse vectors of training items}."""
    strength: float = 0.0
    """λ; 0 changes no score."""
    sharpness: float = 1.0
    """β."""
    unit: float = 1.0
    """Spread of the scores over that of the vectors' products; 1 where they are the same."""

    def fingerprint(self) -> str:
        """λ, β, unit, and a digest of the stored vectors."""
        digest = hashlib.sha256()
        for modality, rows in self.vectors.items():
            digest.update(f"{modality} {rows.shape}\0".encode() + rows.tobytes())
        return f" {self.strength} {self.sharpness} {self.unit} {digest.hexdigest()[:16]}"

    def describe(self) -> str:
        """A sentence for the user."""
        if not self.strength:
            return "Calibration: none, since no strength improves the dev split."
        counts = " and ".join(f"{len(x):,} {m}" for m, x in self.vectors.items())
        return (
            f"Calibration by the vectors of {counts} items of the training split: "
            f"λ = {self.strength:g}, β = {self.sharpness:g}, chosen on dev."
        )

    def penalty(self, modality: str, vectors: Float[np.ndarray, "n E"]) -> Float[np.ndarray, " n"]:
        """λ h of items with these coarse vectors."""
        (other,) = (m for m in self.vectors if m != modality)
        stored, found = jnp.asarray(self.vectors[other]), []
        for first in range(0, len(vectors), ROWS):
            some = jnp.asarray(vectors[first : first + ROWS])
            found.append(np.asarray(_hubness(some, stored, self.sharpness)))
        return self.strength * np.concatenate(found)

    def widened(
        self, modality: str, vectors: Float[np.ndarray, "n E"], against: str
    ) -> Float[np.ndarray, "n E+2"]:
        """Vectors whose inner products with those of modality ``against`` are calibrated.

        Within one modality the two dimensions of a query (``against == modality``) are 0.
        """
        ones = np.ones(len(vectors), np.float32)
        if against == modality:
            more = [0.0 * ones, 0.0 * ones]
        else:
            more = [-self.penalty(modality, vectors), ones]
        if modality != next(iter(self.vectors)):
            more.reverse()
        return np.concatenate([vectors, np.stack(more, axis=1)], axis=1, dtype=np.float32)

    def stored_penalties(
        self, modality: str, widened: Float[np.ndarray, "n E+2"]
    ) -> Float[np.ndarray, " n"]:
        """What scores of items with these vectors of `widened` lose."""
        first = modality == next(iter(self.vectors))
        return -self.unit * widened[:, -2 if first else -1]


def stored_items(count: int, most: int) -> Int[np.ndarray, " S"]:
    """The training items of a modality whose vectors are stored: all, or a fixed sample."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


@partial(jax.jit, static_argnums=2)
def _hubness(
    x: Float[Array, "n E"], stored: Float[Array, "S E"], sharpness: float
) -> Float[Array, " n"]:
    logits = sharpness * einsum("ne,se->ns", x, stored)
    return (jax.nn.logsumexp(logits, axis=1) - np.log(len(stored))) / sharpness


def choose(
    calibration: Calibration,
    scores: Float[np.ndarray, "A B"],
    vectors: Mapping[str, Float[np.ndarray, "n E"]],
    quality: Callable[[np.ndarray], float],
    *,
    exact: bool,
) -> Calibration:
    """λ and β of the highest ``quality`` of the calibrated dev scores, the weakest of equal ones.

    Args:
        calibration: with the stored vectors.
        scores: of all pairs of dev.
        vectors: {modality: coarse vectors of the dev items}, in the order of the scores' axes.
        quality: of a score matrix, higher is better.
        exact: whether the vectors' products are the scores.
    """
    (a, of_a), (b, of_b) = vectors.items()
    if not exact:
        products = np.asarray(einsum("ne,me->nm", jnp.asarray(of_a), jnp.asarray(of_b)))
        if not scores.std() or not products.std():  # nothing to calibrate
            return calibration
        calibration = replace(calibration, unit=float(scores.std() / products.std()))
    best, highest = calibration, quality(scores)
    for sharpness in SHARPNESS:
        one = replace(calibration, strength=1.0, sharpness=sharpness)
        hubs = one.unit * (one.penalty(a, of_a)[:, None] + one.penalty(b, of_b)[None, :])
        for strength in STRENGTH:
            found = quality(scores - np.float32(strength) * hubs)
            if found > highest:
                best, highest = replace(one, strength=strength), found
    return best
