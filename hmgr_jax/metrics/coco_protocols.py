"""ECCV Caption and Crisscrossed Captions: COCO's test images with all that people found right.

Chun et al., ECCV 2022, and Parekh et al., EACL 2021. What is right comes with the package
``eccv_caption``, an extra; the rankings and the numbers are ours.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import KS, direction
from hmgr_jax.metrics.precision import precisions, ranked
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides
from hmgr_jax.metrics.ranks import require_finite, row_blocks

Answers = Mapping[int, Sequence[int]]
"""{number of a query: numbers of what is right}."""


@dataclass(frozen=True)
class Listed(Protocol):
    """Right is what a list says, by COCO's numbers of images and captions; not all have an answer.

    ``eccv`` reports ``eccv/i2t/R-P``, ``mAP@R`` and ``R@1``; ``cxc`` R@1, R@5 and R@10; in percent,
    over the queries of the list. Two captions that ECCV Caption lists are not among the 25,000 of
    the test images: they count among the R right ones and cannot be found, as in the package.
    """

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The measures of both directions."""
        if self.name == "eccv":
            measures = ["R-P", "mAP@R", "R@1"]
        else:
            measures = [f"R@{k}" for k in KS]
        both = (direction(*modalities), direction(*modalities[::-1]))
        return [f"{self.name}/{name}/{measure}" for name in both for measure in measures]

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless the numbers of all images and captions of the list are there."""
        super().check(sides)
        for modality, groups in zip(
            sides.modalities, (sides.groups_a, sides.groups_b), strict=True
        ):
            if len(sides.numbers.get(modality, ())) != len(groups):
                raise UserError(
                    f"protocol {self.name} needs COCO's numbers of all {len(groups)} {modality} "
                    "items, found none: train on pictures with COCO's own captions_X.json, or give "
                    "it as data.numbered beside Karpathy's"
                )
        everything = ground_truth("coco")
        for modality in sides.modalities:
            wanted = set(everything["t2i" if modality == "text" else "i2t"])
            missing = wanted - set(sides.numbers[modality].tolist())
            if missing:
                raise UserError(
                    f"protocol {self.name} is defined on COCO's 5,000 Karpathy test images, but "
                    f"{len(missing)} of its {modality} items are not here ({min(missing)} is one): "
                    "evaluate the whole test split"
                )

    def _answers(self, query: str) -> Answers:
        return ground_truth(self.name)["t2i" if query == "text" else "i2t"]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        for matrix, (query, gallery) in (
            (scores, sides.modalities),
            (scores.T, sides.modalities[::-1]),
        ):
            values = self._one_way(
                matrix, sides.numbers[query], sides.numbers[gallery], self._answers(query)
            )
            way = direction(query, gallery)
            found |= {f"{self.name}/{way}/{m}": 100 * float(v.mean()) for m, v in values.items()}
        return {name: found[name] for name in self.names(sides.modalities)}

    def _one_way(
        self, scores: np.ndarray, queries: np.ndarray, gallery: np.ndarray, answers: Answers
    ) -> dict[str, np.ndarray]:
        """Every measure of the queries that have answers, 0..1."""
        place = {number: i for i, number in enumerate(gallery.tolist())}
        kept = np.array([i for i, number in enumerate(queries.tolist()) if number in answers])
        listed = [set(answers[number]) for number in queries[kept].tolist()]
        right = [[place[n] for n in numbers if n in place] for numbers in listed]

        def relevant(first: int, stop: int) -> np.ndarray:
            block = np.zeros((stop - first, len(gallery)), bool)
            for k, columns in enumerate(right[first:stop]):
                block[k, columns] = True
            return block

        counts = np.array([len(numbers) for numbers in listed])
        found = precisions(scores[kept], relevant, KS, counts=counts)
        # Something right is among the first K where their precision is not zero.
        return found | {f"R@{k}": (found[f"P@{k}"] > 0).astype(np.float64) for k in KS}


@functools.cache
def ground_truth(name: str) -> dict[str, Answers]:
    """{"i2t", "t2i": what is right} of ``eccv``, ``cxc`` or ``coco`` (each image's own captions).

    From the package ``eccv_caption``.

    Raises:
        UserError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would rather have faster packages beside it
            from eccv_caption import Metrics as Package
    except ImportError:
        raise UserError(
            "protocols eccv and cxc need the package eccv_caption: install it with pip install "
            "'hmgr-jax[eccv]'"
        ) from None
    return dict(getattr(Package(), f"{name}_gts"))


def retrieved(
    scores: np.ndarray, queries: np.ndarray, gallery: np.ndarray, depth: int = 50
) -> dict[int, list[int]]:
    """{number of a query: numbers of the first ``depth`` of its ranking}, for ``eccv_caption``.

    Args:
        scores: float [Q, G], higher is better; of a tie the lower place in the gallery comes first.
        queries: int [Q], COCO's numbers.
        gallery: int [G], COCO's numbers.
        depth: how many; its recalls on COCO 1K need all.

    Raises:
        FoundNonFinite: a score is NaN or infinite.
    """
    require_finite(scores)
    nothing = np.zeros(scores.shape[1], bool)
    numbers = queries.tolist()
    return {
        numbers[first + k]: gallery[ranked(row, nothing, depth)].tolist()
        for first, block in row_blocks(scores)
        for k, row in enumerate(block)
    }
