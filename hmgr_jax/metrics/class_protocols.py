"""Protocols in which a query has many right answers: those of its class, or of the same objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import Relevance, of_groups, precisions, r_precision
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides

KS = (5, 10, 50, 100)
OBJECTS = 90
"""COCO's numbers of kinds of objects go from 1 to 90."""
DISTANCES = (0, 1, 2)


@dataclass(frozen=True)
class Classes(Protocol):
    """Every item of a query's class is right: R-Precision, mAP@R, R@1 and P@5 to P@100, in percent.

    ``R-P`` without a direction is the mean of both, to select by. On CUB-200 the classes of test
    are unseen in training, or seen where the split is a list of held-out pictures (Chun et al.,
    CVPR 2021).
    """

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """R-P, mAP@R, R@1 and P@K of both directions, and the mean of R-P."""
        a, b = modalities
        measures = ("R-P", "mAP@R", "R@1", *(f"P@{k}" for k in KS))
        both = (direction(a, b), direction(b, a))
        return [f"{name}/{measure}" for name in both for measure in measures] + ["R-P"]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        turned = sides.turned()
        for matrix, side in ((scores, sides), (scores.T, turned)):
            name = direction(*side.modalities)
            values = precisions(matrix, of_groups(side.groups_a, side.groups_b), KS)
            found |= {f"{name}/{measure}": 100 * float(v.mean()) for measure, v in values.items()}
        a, b = direction(*sides.modalities), direction(*turned.modalities)
        return found | {"R-P": (found[f"{a}/R-P"] + found[f"{b}/R-P"]) / 2}


@dataclass(frozen=True)
class PMRP(Protocol):
    """Plausible-match R-Precision (Chun et al., CVPR 2021).

    Right are all items whose kinds of objects differ from the query's in at most 0, 1 or 2 of 90
    (the Hamming distance of `Sides.labels`), its own among them; ``PROTOCOL/i2t/R-P`` is the mean
    over queries and the three thresholds, ``R-P<=z`` that of one. Images without objects and their
    captions are neither queries nor in the gallery. Folds are consecutive images, cut before those
    are left out; every metric is the mean of the folds.
    """

    folds: int = 1

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless the objects of both sides are known."""
        super().check(sides)
        for modality, groups in zip(
            sides.modalities, (sides.groups_a, sides.groups_b), strict=True
        ):
            found = sides.labels.get(modality, np.zeros((0, 0)))
            if len(found) != len(groups):
                raise UserError(
                    f"protocol {self.name} needs the objects of all {len(groups)} items of "
                    f"modality {modality}, found those of {len(found)}: give COCO's "
                    "instances_val2014.json as data.instances"
                )

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The mean and each threshold, of both directions."""
        measures = ["R-P", *(f"R-P<={z}" for z in DISTANCES)]
        both = (direction(*modalities), direction(*modalities[::-1]))
        return [f"{self.name}/{name}/{measure}" for name in both for measure in measures]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        if sides.text_first:
            scores, sides = scores.T, sides.turned()
        size = len(sides.groups_a) // self.folds
        found = [
            self._fold(scores, sides, sides.groups_a[f * size : (f + 1) * size])
            for f in range(self.folds)
        ]
        return {name: float(np.mean([fold[name] for fold in found])) for name in found[0]}

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
        matrix = scores[rows][:, columns]
        labels_a, labels_b = sides.labels[a][rows], sides.labels[b][columns]
        found: Metrics = {}
        for name, one, of_query, of_gallery in (
            (direction(a, b), matrix, labels_a, labels_b),
            (direction(b, a), matrix.T, labels_b, labels_a),
        ):
            each = [
                100 * float(r_precision(one, within(of_query, of_gallery, z)).mean())
                for z in DISTANCES
            ]
            found[f"{self.name}/{name}/R-P"] = float(np.mean(each))
            found |= {
                f"{self.name}/{name}/R-P<={z}": v for z, v in zip(DISTANCES, each, strict=True)
            }
        return found


def within(query: np.ndarray, gallery: np.ndarray, distance: int) -> Relevance:
    """Right are the gallery items whose labels (0 or 1, [G, K]) differ in at most ``distance``."""
    q, g = query.astype(np.float32), gallery.astype(np.float32)
    of_gallery = g.sum(axis=1)

    def relevant(first: int, stop: int) -> np.ndarray:
        rows = q[first:stop]
        # Of 0s and 1s the Hamming distance is |q| + |g| - 2 q.g, exact in float32.
        hamming = rows.sum(axis=1)[:, None] + of_gallery[None] - 2 * (rows @ g.T)
        return np.asarray(hamming <= distance)

    return relevant
