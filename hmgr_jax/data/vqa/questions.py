"""Questions about pictures and their answers, as items of two modalities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmgr_jax.data.split import Items, Source, Split
from hmgr_jax.data.text.captions import CaptionSource

QUESTION, ANSWER = "question", "answer"
ANNOTATORS = 10
"""Answers to each question of VQA."""


@dataclass(frozen=True)
class Pictures:
    """The P pictures of a split, for their questions and for search by picture."""

    source: Source
    """Regions or grids."""
    numbers: np.ndarray
    """int32 [P]: index among the pictures of all splits, a row of the table of retrieved
    captions."""
    owners: np.ndarray
    """int64 [P]: id by which captions of a bank refer to the picture."""


@dataclass(frozen=True)
class Bank:
    """N captions to retrieve from."""

    name: str
    captions: Sequence[str]
    owners: np.ndarray
    """int64 [N]: id of the picture of each caption (`Pictures.owners`); -1: none."""
    fingerprint: str
    """Of the captions and their owners."""

    def __len__(self) -> int:
        return len(self.captions)


class QuestionSource:
    """Questions with the features of their pictures.

    Items have "tokens" and "lengths", the fields of the picture source ("regions", "n_regions",
    ...), and int32 [k] indices into tables of retrieved captions: "picture" among all pictures,
    "question" among the questions of all splits.
    """

    def __init__(
        self, texts: CaptionSource, pictures: Pictures, of: np.ndarray, first: int
    ) -> None:
        """``of`` (int [n]): picture of each question; ``first``: index of the first question."""
        self.texts, self.pictures = texts, pictures
        self.lengths = texts.lengths
        self.of = np.asarray(of, np.int64)
        self.numbers = np.arange(first, first + len(self.of), dtype=np.int32)

    @property
    def captions(self) -> Sequence[str]:
        """The questions as they were asked."""
        return self.texts.captions

    def __len__(self) -> int:
        return len(self.of)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Questions padded to ``length``, with their pictures and both indices."""
        items = np.asarray(items, np.int64).reshape(-1)
        of = self.of[items]
        return {
            **self.pictures.source.gather(of),
            **self.texts.gather(items, length),
            "picture": self.pictures.numbers[of],
            "question": self.numbers[items],
        }


class AnswerSource:
    """The A answers to choose from: an item is its index."""

    lengths: np.ndarray | None = None

    def __init__(self, answers: Sequence[str]) -> None:
        self.captions = tuple(answers)

    def __len__(self) -> int:
        return len(self.captions)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"number": int32 [k]}``."""
        return {"number": np.asarray(items, np.int32).reshape(-1)}


class Counts:
    """Annotators per question and answer, uint8 [n, A], stored sparsely.

    It is indexed like an array; a dense one of VQA v2 would take 1.4 GB.
    """

    def __init__(self, given: Sequence[dict[int, int]], answers: int) -> None:
        """``given``: {answer index: annotators} of every question."""
        sizes = np.fromiter(map(len, given), np.int64, len(given))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._answers = np.array([a for one in given for a in one], np.int32)
        self._counts = np.array([c for one in given for c in one.values()], np.uint8)
        self.shape = (len(given), answers)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: np.ndarray | slice) -> np.ndarray:
        """Dense rows ``items``, uint8 [k, A]."""
        chosen = np.arange(len(self))[items]
        rows = np.zeros((len(chosen), self.shape[1]), np.uint8)
        for row, item in zip(rows, chosen.tolist(), strict=True):
            own = slice(self._starts[item], self._starts[item + 1])
            row[self._answers[own]] = self._counts[own]
        return rows

    def commonest(self) -> np.ndarray:
        """The most frequent answer of each question, int32 [n]; -1 if none is in the list."""
        found = np.full(len(self), -1, np.int32)
        for item, (start, end) in enumerate(itertools.pairwise(self._starts.tolist())):
            if end > start:
                found[item] = self._answers[start + int(self._counts[start:end].argmax())]
        return found


def question_split(
    name: str,
    questions: QuestionSource,
    answers: AnswerSource,
    *,
    ids: Sequence[str],
    counts: Counts | None,
    kinds: np.ndarray | None,
) -> Split:
    """Make a split of questions, each row with its most frequent answer.

    Args:
        name: of the split.
        questions: n of them.
        answers: A to choose from.
        ids: of the questions.
        counts: of the annotators' answers; None if there are none.
        kinds: str [n], by which accuracies are reported; None if unknown.
    """
    best = np.full(len(questions), -1, np.int32) if counts is None else counts.commonest()
    return Split(
        name=name,
        sources={QUESTION: questions, ANSWER: answers},
        groups={QUESTION: best, ANSWER: np.arange(len(answers), dtype=np.int32)},
        rows={QUESTION: np.arange(len(questions), dtype=np.int32), ANSWER: np.maximum(best, 0)},
        ids={QUESTION: ids, ANSWER: answers.captions},
        labels={} if counts is None else {QUESTION: counts},  # type: ignore[dict-item]
        kinds={} if kinds is None else {QUESTION: kinds},
    )
