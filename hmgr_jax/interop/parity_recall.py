"""Known answers of recall: a similarity matrix and its metrics by the SCAN family's evaluation.

``i2t`` and ``t2i`` are (R@1, R@5, R@10, median rank, mean rank). Captions are in the order of their
images, equally many each. If there are vectors of both sides, the matrix is their product.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.known_answers import Answer, Case, Checker
from hmgr_jax.metrics.directions import KS, both_directions

MEASURES = (*(f"R@{k}" for k in KS), "medR", "meanR")
VECTORS = ("images", "captions")


def _answers(case: Case) -> Mapping[str, Answer]:
    (scores,) = case.inputs("sims")
    if scores.ndim != 2 or not scores.size or scores.shape[1] % scores.shape[0]:
        raise UserError(
            f"its sims are {list(scores.shape)}, expected [images, captions] with the same "
            "number of captions per image: get the case again."
        )
    images = np.arange(scores.shape[0])
    captions = np.repeat(images, scores.shape[1] // scores.shape[0])
    found = both_directions(scores, images, captions)
    answers = {
        direction: Answer([found[f"{direction}/{m}"] for m in MEASURES], MEASURES)
        for direction in ("i2t", "t2i")
    }
    if case.arrays.keys() >= {*VECTORS}:
        a, b = case.inputs(*VECTORS)
        answers["sims"] = Answer(a @ b.T)
    return answers


CHECKER = Checker(inputs=(*VECTORS, "sims"), answers=_answers)
