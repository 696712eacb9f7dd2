"""mAP with all items correct that share a class with the query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import Relevance, average_precisions
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides, of_both

DEPTHS: tuple[int | None, ...] = (None, 50, 100)
MEASURES = [f"mAP@{depth}" if depth else "mAP" for depth in DEPTHS]


def sharing(query: np.ndarray, gallery: np.ndarray) -> Relevance:
    """Gallery items that share a label (0 or 1, [G, K]) with the query are correct."""
    q, g = query.astype(np.float32), gallery.astype(np.float32)
    return lambda first, stop: q[first:stop] @ g.T > 0


def without_self(scores: np.ndarray, relevant: Relevance) -> tuple[np.ndarray, Relevance]:
    """Remove every query from its own gallery: scores [n, n] become [n, n - 1]."""

    def others(x: np.ndarray, first: int) -> np.ndarray:
        kept = np.ones(x.shape, bool)
        kept[np.arange(len(x)), np.arange(first, first + len(x))] = False
        return x[kept].reshape(len(x), -1)

    return others(scores, 0), lambda first, stop: others(relevant(first, stop), first)


@dataclass(frozen=True)
class SharedLabels(Protocol):
    """mAP, mAP@50 and mAP@100 in percent; items that share a label with the query are correct.

    AP is the sum of the precisions at the ranks of correct items among the first n, divided by
    ``divisor``: ``hits``, the number of correct items among these n (CDPAE, SCKR), or ``relevant``,
    min(n, all correct items). Both are equal for the whole ranking. A metric without direction is
    the mean of both. Names start with the name of the protocol, except for ``hits`` with every
    query in its gallery.
    """

    divisor: str = "hits"
    exclude_self: bool = False
    """Whether a query is removed from a gallery of its own modality."""

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless all items of both sides have labels."""
        super().check(sides)
        advice = "give a feature set with labels, or use the protocol plain"
        self._check_known(sides, "labels", "labels", advice)

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """Names of mAP at all depths of both directions, and their means."""
        return [f"{self._prefix}{x}" for x in (*of_both(modalities, MEASURES), *MEASURES)]

    @property
    def _prefix(self) -> str:
        return "" if self.divisor == "hits" and not self.exclude_self else f"{self.name}/"

    def of_direction(self, scores: np.ndarray, relevant: Relevance, name: str) -> Metrics:
        """Evaluate one direction, called ``name``; ``scores`` are [queries, gallery]."""
        each = average_precisions(scores, relevant, DEPTHS, self.divisor)
        return {
            f"{self._prefix}{name}/{measure}": 100 * float(values.mean())
            for measure, values in zip(MEASURES, each, strict=True)
        }

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        a, b = sides.modalities
        if a == b:
            relevant = sharing(sides.labels[a], sides.labels[a])
            if self.exclude_self:
                scores, relevant = without_self(scores, relevant)
            return self.of_direction(scores, relevant, direction(a, a))
        for way, matrix, side in sides.both_ways(scores):
            relevant = sharing(*(sides.labels[m] for m in side.modalities))
            found |= self.of_direction(matrix, relevant, way)
        for measure in MEASURES:
            both = [found[f"{self._prefix}{name}"] for name in of_both((a, b), [measure])]
            found[f"{self._prefix}{measure}"] = float(np.mean(both))
        return found
