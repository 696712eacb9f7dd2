"""VQA v2 (Goyal et al., CVPR 2017): questions about COCO's pictures with ten answers each."""

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
    PictureArrays,
    VQAQuestion,
    commonest_answers,
    read_annotations,
    read_answers,
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
from hmgr_jax.files.reading import read_json

ROLES = ("train", "dev", "test")
ANNOTATED = ("train", "dev")
"""Splits that need annotations."""


@dataclass(frozen=True)
class Layout:
    """File locations relative to ``root``; {split} is the name of a split in ``splits``."""

    root: Path
    splits: Mapping[str, str]
    """{role: name}, such as {"train": "train2014", "dev": "val2014", "test": "test-dev2015"}."""
    questions: str
    annotations: str
    features: str
    """Of a picture; also {image}, its id (as {image:012d} with zeros), and {pictures}, the split
    without -dev or -std."""
    regions: int
    answers: int
    answer_file: str
    banks: Mapping[str, str]
    """{bank: a file of COCO's captions, or text with one caption a line}."""
    max_words: int

    def path(self, pattern: str, role: str) -> Path:
        """File of a split."""
        return self.root / pattern.format(split=self.splits[role])

    def picture(self, role: str, image: int) -> Path:
        """File of a picture's features."""
        split = self.splits[role]
        pictures = split.replace("-dev", "").replace("-std", "")
        return self.root / self.features.format(split=split, pictures=pictures, image=image)


def open_vqa(
    layout: Layout, roles: Sequence[str] = ROLES, vocabulary: Vocabulary | None = None
) -> DataSet:
    """Open questions with the features of their pictures and the answers of ten annotators.

    The answers to choose from are those of ``layout.answer_file``, or the most common of the
    training annotations. Unless a ``vocabulary`` is given, its words occur at least four times in
    the training questions and the banks' captions. A test split without annotations is answered but
    not evaluated.

    Raises:
        UserError: a file is missing or malformed, or files do not agree.
    """
    asked = {role: read_questions(layout.path(layout.questions, role)) for role in ROLES}
    annotations = _annotations(layout, asked, roles)
    if layout.answer_file:
        answers = read_answers(layout.root / layout.answer_file)
    else:
        answers = commonest_answers(annotations["train"], layout.answers)
    vocabulary = vocabulary or _vocabulary(layout, asked["train"])
    first, splits, seen = 0, {}, 0
    for role in ROLES:
        images = sorted({question.image for question in asked[role]})
        if role in roles:
            numbers = np.arange(first, first + len(images), dtype=np.int32)
            files = [layout.picture(role, image) for image in images]
            source = PictureArrays(files, layout.regions)
            pictures = Pictures(source, numbers, np.asarray(images, np.int64))
            given = annotations.get(role)
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
    layout: Layout, asked: Mapping[str, Sequence[VQAQuestion]], roles: Sequence[str]
) -> dict[str, list[Annotation]]:
    """{role: annotations} of ``roles``, and of train if the list of answers needs them."""
    found = {}
    for role in ROLES:
        needed = role == "train" and not layout.answer_file
        path = layout.path(layout.annotations, role)
        if (role in roles and (role in ANNOTATED or path.is_file())) or needed:
            found[role] = read_annotations(path, asked[role])
    return found


def _vocabulary(layout: Layout, questions: Sequence[VQAQuestion]) -> Vocabulary:
    texts: list[str] = [question.text for question in questions]
    for name in layout.banks:
        texts += open_bank(layout, name).captions
    often = Counter(word for text in texts for word in tokenize(text))
    return Vocabulary.build([list(often.elements())])


def _split(
    layout: Layout,
    role: str,
    asked: Sequence[VQAQuestion],
    annotations: Sequence[Annotation] | None,
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
    if annotations is not None:
        counts = Counts(list(_counted(annotations, answers)), len(answers))
        kinds = np.array([one.kind.replace("/", "_") for one in annotations])
    return question_split(
        role,
        source,
        AnswerSource(answers),
        ids=[str(question.id) for question in asked],
        counts=counts,
        kinds=kinds,
    )


def _counted(annotations: Sequence[Annotation], answers: Sequence[str]) -> Iterable[dict[int, int]]:
    """{answer index: annotators} of every question."""
    known = {answer: number for number, answer in enumerate(answers)}
    for one in annotations:
        yield dict(Counter(known[answer] for answer in one.answers if answer in known))


def open_bank(layout: Layout, name: str) -> Bank:
    """Read the captions of a bank with their pictures.

    Raises:
        UserError: the bank is unknown, or its file is missing or malformed.
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
        raise UserError(f"{path} holds no captions: write one a line.")
    return Bank(name, captions, owners, fingerprint([path]))
