"""Files of VQA v2: questions, annotations, answer lists, and features of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.data.text.captioned import clean_name
from hmgr_jax.data.text.captions_files import LARGEST_ID, json_field, json_list
from hmgr_jax.data.vqa.questions import ANNOTATORS
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.arrays import ONLY, open_arrays
from hmgr_jax.files.reading import read_json
from hmgr_jax.metrics.answer_normalisation import normalised

VQA = "VQA v2"


class VQAQuestion(NamedTuple):
    """A question of the file."""

    id: int
    image: int
    text: str


class Annotation(NamedTuple):
    """Answers of people to a question, in normal form."""

    answers: tuple[str, ...]
    """Of the ten annotators."""
    agreed: str
    """The majority answer, according to the file."""
    kind: str
    """Kind of answer, according to the file: yes/no, number or other."""


def read_questions(path: Path) -> list[VQAQuestion]:
    """Read the questions of ``v2_OpenEnded_mscoco_X_questions.json``, in its order.

    Raises:
        UserError: the file is missing or malformed, an id occurs twice, or a question is empty.
    """
    found, seen = [], set()
    for number, entry in enumerate(json_list(path, read_json(path), "questions", VQA)):
        where = f"{path}, question {number}"
        text = _text(entry, "question", where).strip()
        one = VQAQuestion(
            _number(entry, "question_id", where), _number(entry, "image_id", where), text
        )
        if not text:
            raise UserError(f"{where} (counted from 0) is empty: remove it, or download again.")
        if one.id in seen:
            raise UserError(f"{where} repeats the id {one.id}: remove one of the two.")
        seen.add(one.id)
        found.append(one)
    return found


def read_annotations(path: Path, questions: Sequence[VQAQuestion]) -> list[Annotation]:
    """Read the annotation of every question from ``v2_mscoco_X_annotations.json``, in any order.

    Raises:
        UserError: the file is missing or malformed, a question has no annotation or one of another
            picture, or an annotation does not have ten answers.
    """
    of_id = {question.id: question for question in questions}
    found: dict[int, Annotation] = {}
    for number, entry in enumerate(json_list(path, read_json(path), "annotations", VQA)):
        where = f"{path}, annotation {number}"
        question = of_id.get(_number(entry, "question_id", where))
        if question is None or _number(entry, "image_id", where) != question.image:
            raise UserError(
                f"{where} (counted from 0) is of question {entry['question_id']} about picture "
                f"{entry['image_id']}, which the questions do not have: give the annotations of "
                "these questions."
            )
        answers = json_field(entry, "answers", where, VQA)
        if not isinstance(answers, list) or len(answers) != ANNOTATORS:
            count = len(answers) if isinstance(answers, list) else "no list of"
            raise UserError(
                f"{where} (counted from 0) has {count} answers where {ANNOTATORS} were expected: "
                "download the file again."
            )
        if question.id in found:
            raise UserError(f"{where} (counted from 0) repeats a question: remove one of the two.")
        found[question.id] = Annotation(
            tuple(normalised(_text(answer, "answer", where)) for answer in answers),
            normalised(_text(entry, "multiple_choice_answer", where)),
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
    """The ``count`` most common majority answers; ties are broken by alphabet.

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
    """Read a list of answers: a JSON list, an object {answer: number}, or text, one a line.

    Raises:
        UserError: the file is missing or empty, numbers are not 0 to A - 1, or an answer occurs
            twice.
    """
    if path.suffix != ".json":
        found = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        given = read_json(path)
        if isinstance(given, list) and given and isinstance(given[0], Mapping):
            given = given[0]  # MCAN: both directions
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
    """Read a UTF-8 text file; ``UserError`` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): put the file there.") from None


def _number(entry: Any, key: str, where: str) -> int:
    value = json_field(entry, key, where, VQA)
    if not isinstance(value, int) or isinstance(value, bool) or value >= LARGEST_ID:
        raise UserError(f"{where} has {key} {value!r}: write a whole number below 2^63.")
    return value


def _text(entry: Any, key: str, where: str) -> str:
    value = json_field(entry, key, where, VQA)
    return value if isinstance(value, str) else clean_name(value, f"{where} (counted from 0)")


class PictureArrays:
    """Regions or a grid of every picture, in a file each.

    Items are {"regions": float16 [k, R, D], "n_regions": int32 [k]}; regions beyond R are left out.
    A file is ``.npz`` with "x" [D, n] (MCAN; [n, D] if "bbox" has n rows), or ``.npy`` with a grid
    [D, h, w] or [1, D, h, w].
    """

    lengths: np.ndarray | None = None

    def __init__(self, files: Sequence[Path], regions: int) -> None:
        """``regions``: R. Raises ``UserError`` if a file is missing, or the first is damaged."""
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
        """Read pictures.

        Raises:
            UserError: a file is damaged or has features of another size.
            FoundNonFinite: a file holds NaN or infinity.
        """
        items = np.asarray(items, np.int64).reshape(-1)
        found = np.zeros((len(items), self.regions, self.dim), np.float16)
        counts = np.zeros(len(items), np.int32)
        for row, item in enumerate(items.tolist()):
            values = _read(self.files[item])
            if values.shape[1] != self.dim:
                raise UserError(
                    f"{self.files[item]} has {values.shape[1]} features per region, but "
                    f"{self.files[0]} has {self.dim}: extract them the same way."
                )
            counts[row] = min(len(values), self.regions)
            found[row, : counts[row]] = values[: self.regions]
        return {"regions": found, "n_regions": counts}


def _read(path: Path) -> np.ndarray:
    """Read the regions of a file, [n, D]."""
    with open_arrays(path, "it is cut short or damaged; extract it again.") as arrays:
        name = "x" if path.suffix == ".npz" else ONLY
        if name not in arrays:
            raise UserError(f"{path} holds no array x, as MCAN's features do: extract it.")
        values = np.asarray(arrays[name])
        boxes = arrays["bbox"].shape[:1] if name == "x" and "bbox" in arrays else None
    if values.ndim == 2 and boxes == values.shape[:1] != values.shape[1:]:
        values = values.T  # bottom-up attention's own [n, D]
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
