"""Retrieval protocols by name: which matrix is ranked, and which metrics are reported.

    metrics = evaluate_all(("coco5k", "coco1k"), scores, image_groups, caption_groups)
    metrics["coco1k/t2i/R@1"]

Metrics are named as in `hmgr_jax.metrics.directions`; those of folds and families start with the
name of their protocol.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.coco_protocols import Listed
from hmgr_jax.metrics.directions import both_directions, direction
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides, mean_of
from hmgr_jax.metrics.ranks import ranks, require_finite
from hmgr_jax.metrics.shared_labels import PMRP, Classes, SharedLabels
from hmgr_jax.metrics.vqa import VQA


@dataclass(frozen=True)
class Folds(Protocol):
    """Consecutive folds of the images with their captions; every metric is the mean of the folds.

    Folds are cut in the order of the images; captions follow by group. COCO 1K is the mean over
    five folds of the 5K test split (Karpathy and Fei-Fei, CVPR 2015), not the first or best fold.
    """

    folds: int = 5

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless every image occurs once and every caption has its image."""
        super().check(sides)
        sides = sides.turned() if sides.text_first else sides
        distinct = len(np.unique(sides.groups_a))
        if distinct != len(sides.groups_a):
            raise UserError(
                f"protocol {self.name} needs every image once, found {distinct} distinct among "
                f"{len(sides.groups_a)}: drop the repeated ones"
            )
        if not np.isin(sides.groups_b, sides.groups_a).all():
            raise UserError(
                f"protocol {self.name} puts every caption in the fold of its image, found "
                "captions without an image: evaluate a split that holds both sides"
            )

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        require_finite(scores)  # before the cut, so that the message has the split's rows
        scores, sides = sides.text_last(scores)
        size = len(sides.groups_a) // self.folds
        found = [
            self._fold(scores, sides, slice(f * size, (f + 1) * size)) for f in range(self.folds)
        ]
        return {f"{self.name}/{name}": value for name, value in mean_of(found).items()}

    def _fold(self, scores: np.ndarray, sides: Sides, images: slice) -> Metrics:
        groups_a = sides.groups_a[images]
        captions = np.flatnonzero(np.isin(sides.groups_b, groups_a))
        matrix, groups_b = scores[images][:, captions], sides.groups_b[captions]
        return both_directions(matrix, groups_a, groups_b, modalities=sides.modalities)


@dataclass(frozen=True)
class OneToOne(Protocol):
    """Every item has one caption, and every caption one item.

    A sentence that describes two clips, as some of MSR-VTT do, is two captions: each is correct for
    its own clip only.
    """

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless every group occurs once on each side."""
        super().check(sides)
        a, b = np.sort(sides.groups_a), np.sort(sides.groups_b)
        if len(np.unique(a)) < len(a) or not np.array_equal(a, b):
            raise UserError(
                f"protocol {self.name} is defined on one caption an item, found sides of {len(a)} "
                f"and {len(b)}: keep one caption of each, or use the protocol plain"
            )


@dataclass(frozen=True)
class Family(Protocol):
    """Accuracy among siblings: scenes with the same objects in other places.

    ``family/accuracy`` is the percentage of text queries whose own image (the best one if several)
    scores strictly above the images of all siblings (same family, another group). ``family/i2t`` is
    the same for image queries and captions. Without text, the queries of ``family/accuracy`` are
    the second side. Queries without a sibling do not count. With s scenes in every family, chance
    is 100 / s.
    """

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless every item of both sides has a family."""
        advice = "use it on data with families, such as generated worlds"
        self._check_known(sides, "families", "family", advice)

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        require_finite(scores)
        scores, sides = sides.text_last(scores)
        return {
            f"{self.name}/accuracy": _sibling_accuracy(scores.T, sides.turned()),
            f"{self.name}/{direction(*sides.modalities)}": _sibling_accuracy(scores, sides),
        }


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("plain", "all items of the split against all, one matrix"),
        Protocol("f8k", "all images of the split against all captions, one matrix"),
        Protocol("f30k", "all images of the split against all captions, one matrix"),
        Protocol("coco5k", "COCO 5K: all 5,000 test images against all captions, one matrix", 5000),
        Folds("coco1k", "COCO 1K: mean of five consecutive folds of 1,000 test images", 5000),
        Protocol("msrvtt", "MSR-VTT full: all clips against all captions, the best own one counts"),
        OneToOne("msrvtt1ka", "MSR-VTT 1k-A: 1,000 test clips, one caption each, one matrix", 1000),
        Protocol("clips", "generated clips: all clips of the split against all, one matrix"),
        Protocol("worlds", "generated worlds: all scenes of the split against all, one matrix"),
        Classes("cub", "CUB-200: all pictures against all captions, right is the same species"),
        SharedLabels(
            "map", "mAP: right is what shares a label; AP@n over the right items found in the n"
        ),
        SharedLabels(
            "map_relevant",
            "mAP: right is what shares a label; AP@n over min(n, all right items)",
            divisor="relevant",
        ),
        SharedLabels(
            "modelnet",
            "ModelNet: mAP of all pairs of modalities, each with itself too, query in its gallery",
            within=True,
        ),
        SharedLabels(
            "modelnet_others",
            "ModelNet: mAP of all pairs of modalities, each with itself too, query left out",
            within=True,
            exclude_self=True,
        ),
        PMRP("pmrp", "PMRP: R-Precision, right is what differs in 0 to 2 of 90 kinds of objects"),
        Listed("eccv", "ECCV Caption: COCO's 5,000 test images, right is what people found", 5000),
        Listed("cxc", "CxC: COCO's 5,000 test images, right as in Crisscrossed Captions", 5000),
        PMRP("pmrp1k", "PMRP 1K: mean of five folds of 1,000 test images", 5000, folds=5),
        VQA("vqa", "VQA accuracy: min(n/3, 1) of ten annotators, mean over the subsets of nine"),
        Family("family", "family: own scene strictly above its siblings with the same objects"),
    )
}


def get_protocol(name: str) -> Protocol:
    """Look up a protocol; `UserError` lists the known ones."""
    if name not in PROTOCOLS:
        raise UserError(f"no protocol is named {name!r}: choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def evaluate_all(
    names: Sequence[str],
    scores: np.ndarray,
    groups_a: np.ndarray,
    groups_b: np.ndarray,
    *,
    modalities: tuple[str, str] = ("image", "text"),
    **about: Mapping[str, np.ndarray],
) -> Metrics:
    """Metrics of several protocols over one score matrix, in one dict.

    Arguments and errors are those of `Protocol.evaluate`; all names and sizes are checked first.
    If both modalities are the same, only protocols with ``within`` have metrics.
    """
    protocols = [get_protocol(name) for name in names]
    if modalities[0] == modalities[1]:
        protocols = [p for p in protocols if p.within]
    sides = Sides(np.asarray(groups_a), np.asarray(groups_b), modalities, **about)
    for protocol in protocols:
        protocol.check(sides)
    metrics: Metrics = {}
    for protocol in protocols:
        metrics |= protocol.evaluate(scores, groups_a, groups_b, modalities=modalities, **about)
    return metrics


def over_pairs(of_each: Sequence[Metrics]) -> Metrics:
    """Metrics of several pairs of modalities in one dict.

    A metric that several pairs report is their mean, ``rsum`` their sum.
    """
    found: dict[str, list[float]] = {}
    for metrics in of_each:
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    return {
        name: values[0]
        if len(values) == 1
        else float(np.sum(values) if name.endswith("rsum") else np.mean(values))
        for name, values in found.items()
    }


def pairs_of(names: Sequence[str], modalities: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of modalities that are ranked: every two, and each with itself if a protocol asks."""
    pairs = list(itertools.combinations(modalities, 2))
    within = any(get_protocol(name).within for name in names)
    return pairs + ([(m, m) for m in modalities] if within else [])


def _sibling_accuracy(scores: np.ndarray, sides: Sides) -> float:
    """Percentage of queries (side a) with rank 0 among the siblings of their family."""
    families = [np.asarray(sides.families[m]) for m in sides.modalities]
    right = asked = 0
    for family in np.unique(families[0]):
        queries, gallery = (np.flatnonzero(of_side == family) for of_side in families)
        groups_a, groups_b = sides.groups_a[queries], sides.groups_b[gallery]
        if len(np.unique(groups_b)) < 2:
            continue
        own = ranks(scores[np.ix_(queries, gallery)], groups_a, groups_b)
        right, asked = right + int(np.count_nonzero(own == 0)), asked + len(own)
    if not asked:
        raise UserError(
            "family accuracy needs families of at least two scenes, found none: generate worlds "
            "with siblings or leave the protocol family out"
        )
    return 100.0 * right / asked
