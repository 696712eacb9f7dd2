"""VQA accuracy (Antol et al., ICCV 2015): agreement of an answer with ten annotators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.protocol import Metrics, Protocol, Sides
from hmgr_jax.metrics.ranks import require_finite

ANNOTATORS = 10
ENOUGH = 3
"""Number of annotators who make an answer fully correct."""
BLOCK = 4096
"""Questions processed at a time."""


def accuracy_of(counts: np.ndarray, annotators: int = ANNOTATORS) -> np.ndarray:
    """The accuracy, 0 to 1, of answers that ``counts`` (int, any shape) of the annotators gave.

    The mean of min(matches / 3, 1) over the subsets without one annotator ("10 choose 9").
    """
    n = np.asarray(counts, np.float64)
    without_one = n * np.minimum((n - 1) / ENOUGH, 1.0)
    others = (annotators - n) * np.minimum(n / ENOUGH, 1.0)
    return (without_one + others) / annotators


def chosen(scores: np.ndarray) -> np.ndarray:
    """The answer with the highest score for every question, int64 [Q]; the first of equals."""
    return np.asarray(scores).argmax(axis=1)


def accuracies(scores: np.ndarray, counts: Any) -> np.ndarray:
    """The accuracy of every question, 0 to 1, float64 [Q].

    Of answers that share the highest score the worst one counts: a tie counts against the model.

    Args:
        scores: float [Q, A].
        counts: annotators who gave each answer, uint8 [Q, A], an array or an object indexed by row.
    """
    found = np.empty(len(scores))
    for start in range(0, len(scores), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(scores)))
        block = np.asarray(scores[rows])
        best = block == block.max(axis=1, keepdims=True)
        found[rows] = np.where(best, accuracy_of(counts[rows]), 2.0).min(axis=1)
    return found


@dataclass(frozen=True)
class VQA(Protocol):
    """``vqa/accuracy`` in percent, and ``vqa/KIND`` for every kind of question in the data.

    A split without annotations has answers, but no metrics.
    """

    def check(self, sides: Sides) -> None:
        """Raise `UserError` unless questions are scored with answers."""
        super().check(sides)
        if sides.modalities != ("question", "answer"):
            raise UserError(
                f"protocol {self.name} is for questions and their answers, found "
                f"{' and '.join(sides.modalities)}: use it on data with questions"
            )

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """The accuracy of all questions."""
        return [f"{self.name}/accuracy"]

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        require_finite(scores)
        if "question" not in sides.labels:
            return {}
        each = 100 * accuracies(scores, sides.labels["question"])
        found = {f"{self.name}/accuracy": float(each.mean())}
        kinds = np.asarray(sides.kinds.get("question", ()))
        for kind in np.unique(kinds).tolist():
            found[f"{self.name}/{kind}"] = float(each[kinds == kind].mean())
        return found
