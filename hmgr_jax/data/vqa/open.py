"""VQA v2 (Goyal et al., CVPR 2017): questions about COCO's pictures, answered by ten people."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.captions_files import coco_images
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.data.vqa.files import (
    Annotation,
    Asked,
    PictureArrays,
    commonest_answers,
    read_annotations,
    read_answers,
    read_json,
    read_questions,
    read_text,
)
from hmgr_jax.data.vqa.questions import (
    AnswerSource,
    Bank,
    Counts,
    Pictures,
    QuestionSource,
    question_split,
)
from hmgr_jax.errors import UserError

ROLES = ("train", "dev", "test")
ANNOTATED = ("train", "dev")
"""Splits that cannot do without annotations."""


@dataclass(frozen=True)
class Layout:
    """Where the files lie, from ``root`` on; {split} is a split's name in ``splits``."""

    root: Path
    splits: Mapping[str, str]
    """{role: name}, such as {"train": "train2014", "dev": "val2014", "test": "test-dev2015"}."""
    questions: str
    annotations: str
    features: str
    """Of a picture: also {image}, its number (as {image:012d} with zeros), and {pictures}, the
    split without -dev."""
    regions: int
    answers: int
    answer_file: str
    banks: Mapping[str, str]
    """{bank: a file of COCO's captions, or a text of one caption a line}."""
    max_words: int

    def path(self, pattern: str, role: str) -> Path:
        """The file of a split."""
        return self.root / pattern.format(split=self.splits[role])

    def picture(self, role: str, image: int) -> Path:
        """The file of a picture's features."""
        split = self.splits[role]
        pictures = split.replace("-dev", "").replace("-std", "")
        return self.root / self.features.format(split=split, pictures=pictures, image=image)


def open_vqa(
    layout: Layout, roles: Sequence[str] = ROLES, vocabulary: Vocabulary | None = None
) -> DataSet:
    """Questions with their pictures' features and the answers of ten annotators.

    The answers to choose from are those of ``layout.answer_file``, or the commonest of the training
    annotations. Words are those of the training questions and of the banks' captions, at least four
    times, unless a ``vocabulary`` is given. A test split without an annotation file is answered and
    not judged.

    Raises:
        UserError: a file is missing, cut short, or does not fit another.
    """
    asked = {role: read_questions(layout.path(layout.questions, role)) for role in ROLES}
    told = _annotations(layout, asked, roles)
    if layout.answer_file:
        answers = read_answers(layout.root / layout.answer_file)
    else:
        answers = commonest_answers(told["train"], layout.answers)
    vocabulary = vocabulary or _vocabulary(layout, asked["train"])
    first, splits, seen = 0, {}, 0
    for role in ROLES:
        images = sorted({question.image for question in asked[role]})
        if role in roles:
            numbers = np.arange(first, first + len(images), dtype=np.int32)
            files = [layout.picture(role, image) for image in images]
            source = PictureArrays(files, layout.regions)
            pictures = Pictures(source, numbers, np.asarray(images, np.int64))
            given = told.get(role)
            splits[role] = _split(
                layout, role, asked[role], given, answers, pictures, vocabulary, seen
            )
        first, seen = first + len(images), seen + len(asked[role])
    files = [layout.path(layout.questions, role) for role in ROLES]
    files += [path for role in roles if (path := layout.path(layout.annotations, role)).is_file()]
    digest = hashlib.sha256(fingerprint(files).encode())
    digest.update("\n".join(answers).encode())
    return DataSet("vqa", splits, vocabulary, digest.hexdigest())


def _annotations(
    layout: Layout, asked: Mapping[str, Sequence[Asked]], roles: Sequence[str]
) -> dict[str, list[Annotation]]:
    """{role: annotations} of what is wanted and has them, and of train where answers need them."""
    found = {}
    for role in ROLES:
        needed = role == "train" and not layout.answer_file
        path = layout.path(layout.annotations, role)
        if (role in roles and (role in ANNOTATED or path.is_file())) or needed:
            found[role] = read_annotations(path, asked[role])
    return found


def _vocabulary(layout: Layout, questions: Sequence[Asked]) -> Vocabulary:
    texts: list[str] = [question.text for question in questions]
    for name in layout.banks:
        texts += open_bank(layout, name).captions
    often = Counter(word for text in texts for word in tokenize(text))
    return Vocabulary.build([list(often.elements())])


def _split(
    layout: Layout,
    role: str,
    asked: Sequence[Asked],
    told: Sequence[Annotation] | None,
    answers: tuple[str, ...],
    pictures: Pictures,
    vocabulary: Vocabulary,
    first: int,
) -> Split:
    texts = [question.text for question in asked]
    place = {image: number for number, image in enumerate(pictures.owners.tolist())}
    tokens = [vocabulary.tokenize(text) for text in texts]
    source = QuestionSource(
        CaptionSource(tokens, vocabulary, max_words=layout.max_words, captions=texts),
        pictures,
        of=np.array([place[question.image] for question in asked]),
        first=first,
    )
    counts = kinds = None
    if told is not None:
        counts = Counts(list(_counted(told, answers)), len(answers))
        kinds = np.array([one.kind.replace("/", "_") for one in told])
    return question_split(
        role,
        source,
        AnswerSource(answers),
        ids=[str(question.id) for question in asked],
        counts=counts,
        kinds=kinds,
    )


def _counted(told: Sequence[Annotation], answers: Sequence[str]) -> Iterable[dict[int, int]]:
    """{answer: how many of the annotators gave it} of every question."""
    known = {answer: number for number, answer in enumerate(answers)}
    for one in told:
        yield dict(Counter(known[answer] for answer in one.answers if answer in known))


def open_bank(layout: Layout, name: str) -> Bank:
    """The captions of a bank, owned by the pictures that they are about.

    Raises:
        UserError: no bank of that name, or its file is missing or damaged.
    """
    if name not in layout.banks:
        known = ", ".join((*layout.banks, "random"))
        raise UserError(f"data.vqa.banks has no bank {name!r}: choose from {known}, or add it.")
    path = layout.root / layout.banks[name]
    if path.suffix == ".json":
        images: Sequence[Captioned] = coco_images(path, read_json(path))
        captions = [caption for image in images for caption in image.captions]
        numbers = [int(image.names["cocoid"]) for image in images for _ in image.captions]
        owners = np.asarray(numbers, np.int64)
    else:
        captions = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        owners = np.full(len(captions), -1, np.int64)
    if not captions:
        raise UserError(f"{path} holds no captions: give one a line.")
    return Bank(name, captions, owners, fingerprint([path]))
