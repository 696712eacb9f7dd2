"""The field's retrieval protocols as named objects: which matrix is ranked, and what is reported.

    metrics = evaluate_all(("coco5k", "coco1k"), scores, image_groups, caption_groups)
    metrics["coco1k/t2i/R@1"]

Metrics are named as in `hmgr_jax.metrics.directions`; those of folds and families have the name
of their protocol in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.class_protocols import PMRP, Classes
from hmgr_jax.metrics.coco_protocols import Listed
from hmgr_jax.metrics.directions import both_directions, direction
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides
from hmgr_jax.metrics.ranks import ranks, require_finite
from hmgr_jax.metrics.shared_labels import SharedLabels
from hmgr_jax.metrics.vqa import VQA


@dataclass(frozen=True)
class Folds(Protocol):
    """Consecutive folds of the images with their captions; every metric is the mean of the folds.

    The folds are cut in the order of the images; captions follow by group, however many an image
    has. The protocol's name is the prefix of its metrics. COCO 1K is the mean over five folds of
    the 5K test split since Karpathy and Fei-Fei (CVPR 2015), not the first fold or the best one.
    """

    folds: int = 5

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless all images are there, once each, and every caption is of one."""
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
                f"protocol {self.name} deals every caption to the fold of its image, found "
                "captions without an image: evaluate a split that holds both sides"
            )

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        require_finite(scores)  # here, where rows and columns still are those of the split
        if sides.text_first:
            scores, sides = scores.T, sides.turned()
        size = len(sides.groups_a) // self.folds
        found = [
            self._fold(scores, sides, slice(f * size, (f + 1) * size)) for f in range(self.folds)
        ]
        return {f"{self.name}/{m}": float(np.mean([fold[m] for fold in found])) for m in found[0]}

    def _fold(self, scores: np.ndarray, sides: Sides, images: slice) -> Metrics:
        groups_a = sides.groups_a[images]
        captions = np.flatnonzero(np.isin(sides.groups_b, groups_a))
        return both_directions(
            scores[images][:, captions],
            groups_a,
            sides.groups_b[captions],
            modalities=sides.modalities,
        )


@dataclass(frozen=True)
class OneToOne(Protocol):
    """Every item has one caption, and every caption one item.

    A sentence that stands beside two clips, as some of MSR-VTT's do, is two captions: each is right
    for its own clip alone, and finding the other one counts as a miss.
    """

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless the pairs are as many as defined, each group once a side."""
        super().check(sides)
        a, b = np.sort(sides.groups_a), np.sort(sides.groups_b)
        if len(np.unique(a)) < len(a) or not np.array_equal(a, b):
            raise UserError(
                f"protocol {self.name} is defined on one caption an item, found sides of {len(a)} "
                f"and {len(b)}: keep one caption of each, or use the protocol plain"
            )


@dataclass(frozen=True)
class Family(Protocol):
    """Is the right one found among siblings that differ only in who stands where?

    ``family/accuracy`` is the percentage of text queries whose own image scores strictly above
    the images of all siblings (same family, another group); a tie is a miss, and of several own
    images the best one counts. ``family/i2t`` is the same for image queries: the best own caption
    scores strictly above every caption of every sibling. Without text, the second side asks for
    ``family/accuracy``. Queries without a sibling are left out. With s scenes in every family,
    chance is 100 / s.
    """

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless every item of both sides has a family."""
        for modality, groups in zip(
            sides.modalities, (sides.groups_a, sides.groups_b), strict=True
        ):
            found = len(sides.families.get(modality, ()))
            if found != len(groups):
                raise UserError(
                    f"protocol {self.name} needs the family of all {len(groups)} items of modality "
                    f"{modality}, found {found}: use it on data with families, as generated worlds"
                )

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        require_finite(scores)
        if sides.text_first:
            scores, sides = scores.T, sides.turned()
        return {
            f"{self.name}/accuracy": _sibling_accuracy(scores.T, sides.turned()),
            f"{self.name}/{direction(*sides.modalities)}": _sibling_accuracy(scores, sides),
        }


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("plain", "all items of the split against all, one matrix"),
        Protocol("f8k", "Flickr8K: all images of the split against all captions, one matrix"),
        Protocol("f30k", "Flickr30K: all images of the split against all captions, one matrix"),
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
    """The protocol of that name; `UserError` lists the known ones."""
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

    Arguments and errors are those of `Protocol.evaluate`; all names and sizes are checked before
    the first number is computed. Where both modalities are the same, only protocols ``within``
    have metrics.
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

    Those of a direction are of one pair each. Of what is reported of several the mean is taken, of
    ``rsum`` the sum.
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
    """The pairs of modalities that protocols rank: each two, and each with itself if one asks."""
    pairs = list(itertools.combinations(modalities, 2))
    within = any(get_protocol(name).within for name in names)
    return pairs + ([(m, m) for m in modalities] if within else [])


def _sibling_accuracy(scores: np.ndarray, sides: Sides) -> float:
    """Percent of queries (side a) with rank 0 in their own family, if there are siblings in it."""
    families_a, families_b = (np.asarray(sides.families[m]) for m in sides.modalities)
    right = asked = 0
    for family in np.unique(families_a):
        queries, gallery = (
            np.flatnonzero(families_a == family),
            np.flatnonzero(families_b == family),
        )
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
