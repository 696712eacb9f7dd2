"""Protocols with many correct items: of the same class, with a shared label, or similar objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import (
    Relevance,
    average_precisions,
    of_groups,
    precisions,
    r_precision,
)
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides, mean_of, of_both

DEPTHS: tuple[int | None, ...] = (None, 50, 100)
MEASURES = [f"mAP@{depth}" if depth else "mAP" for depth in DEPTHS]


def sharing(
    scores: np.ndarray, query: np.ndarray, gallery: np.ndarray
) -> tuple[np.ndarray, Relevance]:
    """Scores of the labelled items, and which pairs of these share a label and are correct.

    Items without a label are neither queries nor in the gallery.

    Args:
        scores: float [Q, G].
        query: labels 0 or 1, [Q, K].
        gallery: labels [G, K].

    Raises:
        UserError: no query or no gallery item has a label.
    """
    rows, columns = ((of > 0).any(axis=1) for of in (query, gallery))
    if not rows.any() or not columns.any():
        raise UserError(
            "no query, or no item of the gallery, has a label: give labels of this split, or use "
            "the protocol plain"
        )
    if not rows.all() or not columns.all():
        scores = scores[rows][:, columns]
    q, g = query[rows].astype(np.float32), gallery[columns].astype(np.float32)
    return scores, lambda first, stop: q[first:stop] @ g.T > 0


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

    Items without a label are left out.

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
            scores, relevant = sharing(scores, sides.labels[a], sides.labels[a])
            if self.exclude_self:
                scores, relevant = without_self(scores, relevant)
            return self.of_direction(scores, relevant, direction(a, a))
        for way, matrix, side in sides.both_ways(scores):
            matrix, relevant = sharing(matrix, *(sides.labels[m] for m in side.modalities))
            found |= self.of_direction(matrix, relevant, way)
        for measure in MEASURES:
            both = [found[f"{self._prefix}{name}"] for name in of_both((a, b), [measure])]
            found[f"{self._prefix}{measure}"] = float(np.mean(both))
        return found


KS = (5, 10, 50, 100)
OBJECTS = 90
"""COCO's object categories have ids from 1 to 90."""
DISTANCES = (0, 1, 2)


@dataclass(frozen=True)
class Classes(Protocol):
    """Items of the query's class are correct: R-Precision, mAP@R, R@1 and P@5 to P@100, in percent.

    ``R-P`` without a direction is the mean of both. On CUB-200 the test classes are unseen in
    training, or seen if the split is a list of held-out pictures (Chun et al., CVPR 2021).
    """

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """R-P, mAP@R, R@1 and P@K of both directions, and the mean of R-P."""
        return [*of_both(modalities, ("R-P", "mAP@R", "R@1", *(f"P@{k}" for k in KS))), "R-P"]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        for way, matrix, side in sides.both_ways(scores):
            values = precisions(matrix, of_groups(side.groups_a, side.groups_b), KS)
            found |= {f"{way}/{measure}": 100 * float(v.mean()) for measure, v in values.items()}
        a, b = of_both(sides.modalities, ["R-P"])
        return found | {"R-P": (found[a] + found[b]) / 2}


@dataclass(frozen=True)
class PMRP(Protocol):
    """Plausible-match R-Precision (Chun et al., CVPR 2021).

    Items are correct if their kinds of objects differ from those of the query in at most 0, 1 or 2
    of 90 (the Hamming distance of `Sides.labels`). ``PROTOCOL/i2t/R-P`` is the mean over queries
    and the three thresholds, ``R-P<=z`` that of one threshold. Images without objects and their
    captions are neither queries nor in the gallery; folds are cut before they are removed. Every
    metric is the mean of the folds.
    """

    folds: int = 1

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless the objects of both sides are known."""
        super().check(sides)
        advice = "give COCO's instances_val2014.json as data.instances"
        self._check_known(sides, "labels", "objects", advice)

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The mean and each threshold, of both directions."""
        measures = ["R-P", *(f"R-P<={z}" for z in DISTANCES)]
        return [f"{self.name}/{name}" for name in of_both(modalities, measures)]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        scores, sides = sides.text_last(scores)
        size = len(sides.groups_a) // self.folds
        folds = (sides.groups_a[f * size : (f + 1) * size] for f in range(self.folds))
        return mean_of([self._fold(scores, sides, groups) for groups in folds])

    def _fold(self, scores: np.ndarray, sides: Sides, groups: np.ndarray) -> Metrics:
        a, b = sides.modalities
        rows, columns = (
            np.flatnonzero(np.isin(of, groups) & (sides.labels[m] > 0).any(axis=1))
            for m, of in ((a, sides.groups_a), (b, sides.groups_b))
        )
        if not len(rows) or not len(columns):
            raise UserError(
                f"protocol {self.name} found no item with objects in a fold: give the instances of "
                "the split's own images as data.instances"
            )
        labels = {a: sides.labels[a][rows], b: sides.labels[b][columns]}
        found: Metrics = {}
        for way, matrix, side in sides.both_ways(scores[rows][:, columns]):
            query, gallery = (labels[m] for m in side.modalities)
            each = {
                f"{self.name}/{way}/R-P<={z}": 100
                * float(r_precision(matrix, within(query, gallery, z)).mean())
                for z in DISTANCES
            }
            found |= {f"{self.name}/{way}/R-P": float(np.mean(list(each.values()))), **each}
        return found


def within(query: np.ndarray, gallery: np.ndarray, distance: int) -> Relevance:
    """Gallery items whose labels (0 or 1, [G, K]) differ in at most ``distance`` are correct."""
    q, g = query.astype(np.float32), gallery.astype(np.float32)
    of_gallery = g.sum(axis=1)

    def relevant(first: int, stop: int) -> np.ndarray:
        rows = q[first:stop]
        # The Hamming distance of 0s and 1s is |q| + |g| - 2 q.g, exact in float32.
        hamming = rows.sum(axis=1)[:, None] + of_gallery[None] - 2 * (rows @ g.T)
        return np.asarray(hamming <= distance)

    return relevant
