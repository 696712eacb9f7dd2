"""ECCV Caption and Crisscrossed Captions: COCO's test images with additional correct pairs.

Chun et al., ECCV 2022, and Parekh et al., EACL 2021. The correct pairs come from the package
``eccv_caption``, an extra; rankings and metrics are computed here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import KS
from hmgr_jax.metrics.precision import precisions, ranked
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides, of_both
from hmgr_jax.metrics.ranks import require_finite, row_blocks

Answers = Mapping[int, Sequence[int]]
"""{id of a query: ids of its correct items}."""


@dataclass(frozen=True)
class Listed(Protocol):
    """Correct items are listed by COCO's ids of images and captions, for some of the queries.

    ``eccv`` reports ``eccv/i2t/R-P``, ``mAP@R`` and ``R@1``; ``cxc`` R@1, R@5 and R@10; in percent,
    over the listed queries. Two captions that ECCV Caption lists are not among the 25,000 of the
    test images: they count in R and cannot be found, as in the package.
    """

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The measures of both directions."""
        measures = ["R-P", "mAP@R", "R@1"] if self.name == "eccv" else [f"R@{k}" for k in KS]
        return [f"{self.name}/{name}" for name in of_both(modalities, measures)]

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless all listed images and captions are there with their ids."""
        super().check(sides)
        advice = (
            "train on pictures with COCO's own captions_X.json, or give that file as data.numbered "
            "together with Karpathy's"
        )
        self._check_known(sides, "numbers", "COCO ids", advice)
        everything = ground_truth("coco")
        for modality in sides.modalities:
            wanted = set(everything["t2i" if modality == "text" else "i2t"])
            missing = wanted - set(sides.numbers[modality].tolist())
            if missing:
                raise UserError(
                    f"protocol {self.name} is defined on COCO's 5,000 Karpathy test images, but "
                    f"{len(missing)} of its {modality} items are missing, such as {min(missing)}: "
                    "evaluate the whole test split"
                )

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        found: Metrics = {}
        for way, matrix, side in sides.both_ways(scores):
            query, gallery = (sides.numbers[m] for m in side.modalities)
            answers = ground_truth(self.name)["t2i" if side.text_first else "i2t"]
            values = self._one_way(matrix, query, gallery, answers)
            found |= {f"{self.name}/{way}/{m}": 100 * float(v.mean()) for m, v in values.items()}
        return {name: found[name] for name in self.names(sides.modalities)}

    def _one_way(
        self, scores: np.ndarray, queries: np.ndarray, gallery: np.ndarray, answers: Answers
    ) -> dict[str, np.ndarray]:
        """All measures of the queries that have answers, 0..1."""
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
        # A correct item is among the first K if P@K is not zero.
        return found | {f"R@{k}": (found[f"P@{k}"] > 0).astype(np.float64) for k in KS}


@functools.cache
def ground_truth(name: str) -> dict[str, Answers]:
    """{"i2t", "t2i": correct items} of ``eccv``, ``cxc`` or ``coco`` (each image's own captions).

    Raises:
        UserError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends faster packages
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
    """{id of a query: ids of the first ``depth`` of its ranking}, for ``eccv_caption``.

    ``scores`` are float [Q, G], higher is better; ties are in the order of the gallery. ``queries``
    (int [Q]) and ``gallery`` (int [G]) are COCO's ids. Recalls on COCO 1K need the full depth.
    Raises `FoundNonFinite` for a score that is NaN or infinite.
    """
    require_finite(scores)
    nothing = np.zeros(scores.shape[1], bool)
    numbers = queries.tolist()
    return {
        numbers[first + k]: gallery[ranked(row, nothing, depth)].tolist()
        for first, block in row_blocks(scores)
        for k, row in enumerate(block)
    }
