"""mAP where everything is right that shares a class with the query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import Relevance, average_precisions
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides

DEPTHS: tuple[int | None, ...] = (None, 50, 100)


def sharing(query: np.ndarray, gallery: np.ndarray) -> Relevance:
    """Right are the gallery items that share a label (0 or 1, [G, K]) with the query."""
    q, g = query.astype(np.float32), gallery.astype(np.float32)
    return lambda first, stop: q[first:stop] @ g.T > 0


def without_self(scores: np.ndarray, relevant: Relevance) -> tuple[np.ndarray, Relevance]:
    """Items [n, n] that search their own kind, each without itself: [n, n - 1]."""

    def others(x: np.ndarray, first: int) -> np.ndarray:
        kept = np.ones(x.shape, bool)
        kept[np.arange(len(x)), np.arange(first, first + len(x))] = False
        return x[kept].reshape(len(x), -1)

    return others(scores, 0), lambda first, stop: others(relevant(first, stop), first)


@dataclass(frozen=True)
class SharedLabels(Protocol):
    """Everything that shares a label with the query is right: mAP, mAP@50 and mAP@100, in percent.

    AP is the mean precision at the places of right items within the ranking's first n, over
    ``divisor``: ``hits``, the right items among these n (CDPAE, SCKR), or ``relevant``, as many
    right items as n places could hold. Over the whole ranking both are the same. A metric without
    direction is the mean of both. Other than ``hits`` with every query in its gallery, it has the
    protocol's name in front.
    """

    divisor: str = "hits"
    exclude_self: bool = False
    """Within its own modality a query is not in the gallery; else it is, and mostly found first."""

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless all items of both sides have labels."""
        super().check(sides)
        for modality, groups in zip(
            sides.modalities, (sides.groups_a, sides.groups_b), strict=True
        ):
            found = len(sides.labels.get(modality, ()))
            if found != len(groups):
                raise UserError(
                    f"protocol {self.name} needs the labels of all {len(groups)} items of "
                    f"modality {modality}, found those of {found}: give a feature set with labels, "
                    "or use the protocol plain"
                )

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The depths of both directions, and their means."""
        a, b = modalities
        both = (direction(a, b), direction(b, a))
        return [f"{self._prefix}{d}/{m}" for d in both for m in _measures()] + [
            f"{self._prefix}{m}" for m in _measures()
        ]

    @property
    def _prefix(self) -> str:
        return "" if self.divisor == "hits" and not self.exclude_self else f"{self.name}/"

    def of_direction(self, scores: np.ndarray, relevant: Relevance, name: str) -> Metrics:
        """The depths of one direction of that name; ``scores`` are [queries, gallery]."""
        each = average_precisions(scores, relevant, DEPTHS, self.divisor)
        return {
            f"{self._prefix}{name}/{measure}": 100 * float(values.mean())
            for measure, values in zip(_measures(), each, strict=True)
        }

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        a, b = sides.modalities
        if a == b:
            relevant = sharing(sides.labels[a], sides.labels[a])
            if self.exclude_self:
                scores, relevant = without_self(scores, relevant)
            return self.of_direction(scores, relevant, direction(a, a))
        for matrix, query, gallery in ((scores, a, b), (scores.T, b, a)):
            relevant = sharing(sides.labels[query], sides.labels[gallery])
            found |= self.of_direction(matrix, relevant, direction(query, gallery))
        for measure in _measures():
            both = [f"{self._prefix}{direction(*side)}/{measure}" for side in ((a, b), (b, a))]
            found[f"{self._prefix}{measure}"] = float(np.mean([found[name] for name in both]))
        return found


def _measures() -> list[str]:
    return ["mAP" if depth is None else f"mAP@{depth}" for depth in DEPTHS]
