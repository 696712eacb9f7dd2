"""Protocols with many correct answers per query: items of its class, or with the same objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.precision import Relevance, of_groups, precisions, r_precision
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides, mean_of, of_both

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
