"""The files of VQA v2: questions, annotations and lists of answers, checked as they are read."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.data.vqa.questions import ANNOTATORS
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.metrics.answer_normalisation import normalised


class Asked(NamedTuple):
    """A question of the file."""

    id: int
    image: int
    text: str


class Annotation(NamedTuple):
    """What people answered to a question, in normal form."""

    answers: tuple[str, ...]
    """Of ten annotators."""
    agreed: str
    """The file's answer of most of them."""
    kind: str
    """The file's kind of answer: yes/no, number or other."""


def read_questions(path: Path) -> list[Asked]:
    """The questions of ``v2_OpenEnded_mscoco_X_questions.json``, in its order.

    Raises:
        UserError: no such file, one cut short or of another kind, an id twice, an empty question.
    """
    found, seen = [], set()
    for number, entry in enumerate(_listed(path, "questions")):
        where = f"{path}, question {number}"
        text = str(_of(entry, "question", where)).strip()
        one = Asked(_number(entry, "question_id", where), _number(entry, "image_id", where), text)
        if not text:
            raise UserError(f"{where} (counted from 0) is empty: remove it, or download again.")
        if one.id in seen:
            raise UserError(f"{where} has the id {one.id} of a question before: remove one.")
        seen.add(one.id)
        found.append(one)
    return found


def read_annotations(path: Path, questions: Sequence[Asked]) -> list[Annotation]:
    """The annotation of every question, from ``v2_mscoco_X_annotations.json`` in any order.

    Raises:
        UserError: no such file, one cut short or of another kind, a question without annotation or
            of another picture, an annotation without ten answers.
    """
    of_id = {question.id: question for question in questions}
    found: dict[int, Annotation] = {}
    for number, entry in enumerate(_listed(path, "annotations")):
        where = f"{path}, annotation {number}"
        question = of_id.get(_number(entry, "question_id", where))
        if question is None or _number(entry, "image_id", where) != question.image:
            raise UserError(
                f"{where} (counted from 0) is of question {entry['question_id']} about picture "
                f"{entry['image_id']}, which the questions do not have: give the annotations of "
                "these very questions."
            )
        answers = _of(entry, "answers", where)
        if not isinstance(answers, list) or len(answers) != ANNOTATORS:
            count = len(answers) if isinstance(answers, list) else "no list of"
            raise UserError(
                f"{where} (counted from 0) has {count} answers where {ANNOTATORS} were expected: "
                "download the file again."
            )
        if question.id in found:
            raise UserError(f"{where} (counted from 0) is of a question before it: correct it.")
        found[question.id] = Annotation(
            tuple(normalised(str(_of(answer, "answer", where))) for answer in answers),
            normalised(str(_of(entry, "multiple_choice_answer", where))),
            str(entry.get("answer_type", "other")),
        )
    lacking = next((question for question in questions if question.id not in found), None)
    if lacking is not None:
        raise UserError(
            f"{path} annotates {len(found)} of {len(questions)} questions, not {lacking.id}: it is "
            "cut short or of other questions; download both files again."
        )
    return [found[question.id] for question in questions]


def commonest_answers(annotations: Sequence[Annotation], count: int) -> tuple[str, ...]:
    """The ``count`` answers that people agreed on most often; of as many the first by alphabet.

    Raises:
        UserError: there are fewer.
    """
    often = Counter(annotation.agreed for annotation in annotations if annotation.agreed)
    if len(often) < count:
        raise UserError(
            f"data.vqa.answers is {count}, but the annotations have {len(often)} different "
            "answers: lower it."
        )
    return tuple(sorted(often, key=lambda answer: (-often[answer], answer))[:count])


def read_answers(path: Path) -> tuple[str, ...]:
    """A list of answers: a JSON list, an object {answer: number}, or a text of one a line.

    Raises:
        UserError: no such file, no answers, numbers that are not 0 to A - 1, or an answer twice.
    """
    if path.suffix != ".json":
        found = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        given = read_json(path)
        if isinstance(given, list) and given and isinstance(given[0], Mapping):
            given = given[0]  # MCAN's: both ways round
        if isinstance(given, Mapping):
            numbers = [n for n in given.values() if isinstance(n, int)]
            if sorted(numbers) != list(range(len(given))):
                raise UserError(f"{path} does not number answers from 0 on, each once: correct it.")
            given = sorted(given, key=lambda answer: given[answer])
        found = [str(answer) for answer in given] if isinstance(given, list) else []
    answers = tuple(map(normalised, found))
    if not answers or len(set(answers)) < len(answers):
        what = "an answer twice (in normal form)" if answers else "no answers"
        raise UserError(f"{path} holds {what}: give a list of different answers.")
    return answers


def read_text(path: Path) -> str:
    """What a text file holds; `UserError` where it is missing or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): put the file there.") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds; `UserError` where it is missing or cut short."""
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{path} is not whole JSON ({error}): it is cut short or damaged; download it again."
        ) from None


def _listed(path: Path, key: str) -> list[Any]:
    found = read_json(path)
    listed = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path} holds no list {key!r}, as VQA v2's files do: give such a file.")
    return listed


def _of(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, Mapping) or entry.get(key) is None:
        raise UserError(
            f"{where} (counted from 0) lacks {key!r}, which VQA v2's files have: download the "
            "file again."
        )
    return entry[key]


def _number(entry: Any, key: str, where: str) -> int:
    value = _of(entry, key, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{where} has {key} {value!r} where a whole number was expected.")
    return value


class PictureArrays:
    """Regions or a grid of every picture, read when asked for.

    Items are {"regions": float16 [k, R, D], "n_regions": int32 [k]}; further regions than R are
    left out. A file is ``.npz`` with "x" [D, n] (MCAN), or ``.npy`` with a grid [D, h, w] or
    [1, D, h, w].
    """

    lengths: np.ndarray | None = None

    def __init__(self, files: Sequence[Path], regions: int) -> None:
        """``regions``: R. Raises `UserError` for a file that is missing, or the first damaged."""
        missing = next((path for path in files if not path.is_file()), None)
        if missing is not None or not files:
            raise UserError(
                f"There is no {missing or 'file of features'}, where the features of a picture "
                "were expected: correct data.vqa.features, or extract them."
            )
        self.files, self.regions = list(files), regions
        self.dim = _read(self.files[0]).shape[1]

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Read pictures; ``length`` is not used.

        Raises:
            UserError: a file is damaged or has other features than the first; FoundNonFinite: it
                holds NaN or infinity.
        """
        del length
        items = np.asarray(items, np.int64).reshape(-1)
        found = np.zeros((len(items), self.regions, self.dim), np.float16)
        counts = np.zeros(len(items), np.int32)
        for row, item in enumerate(items.tolist()):
            values = _read(self.files[item])
            if values.shape[1] != self.dim:
                raise UserError(
                    f"{self.files[item]} has {values.shape[1]} features a region, but "
                    f"{self.files[0]} has {self.dim}: extract them the same way."
                )
            counts[row] = min(len(values), self.regions)
            found[row, : counts[row]] = values[: self.regions]
        return {"regions": found, "n_regions": counts}


def _read(path: Path) -> np.ndarray:
    """The regions of a file, [n, D]."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            values = loaded["x"] if path.suffix == ".npz" else loaded
    except KeyError:
        raise UserError(f"{path} holds no array x, as MCAN's features do: extract it.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it is cut short or damaged; extract it again."
        ) from None
    if path.suffix != ".npz" and values.ndim == 4 and len(values) == 1:
        values = values[0]
    wanted = 2 if path.suffix == ".npz" else 3
    if values.ndim != wanted or 0 in values.shape or values.dtype.kind != "f":
        shape = "[features, regions]" if wanted == 2 else "[features, height, width]"
        raise UserError(
            f"{path} holds {values.dtype} {list(values.shape)} where floats of {shape} were "
            "expected: extract it again."
        )
    values = values.reshape(len(values), -1).T
    if not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float16).max:
        raise FoundNonFinite(f"{path} holds NaN, infinity or more than float16 can: extract again.")
    return values
