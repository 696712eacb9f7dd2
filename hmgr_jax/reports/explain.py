"""``--mode=explain``: what a caption and an image attend to, or what their vectors are made of.

Systems that score pairs have pages of attention; HMGR and PCME have one page of the weights of
words and regions, and of the results. HMGR adds the pairs that the memory read and the results
without it, PCME the uncertainties, also without each word.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.split import Items, Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.named_items import Caption, find_caption, find_image
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import write_text_atomic
from hmgr_jax.reports.attention_picture import draw_step
from hmgr_jax.reports.explanation import PairExplanation, check_explainable, explain_pair
from hmgr_jax.reports.grid import save_png
from hmgr_jax.reports.relation_picture import draw_relations
from hmgr_jax.reports.retrieval_picture import draw_retrieval
from hmgr_jax.reports.split_pictures import SplitPictures
from hmgr_jax.reports.vector_explanation import VectorExplanation, explain_vectors
from hmgr_jax.terminal import escape_controls

LONGEST = 48
"""Most letters of a sentence in the name of a folder."""


def explain(
    retriever: Retriever, split: str, pair: Sequence[str], images: str | None, out: str | None
) -> int:
    """Write the pages and numbers of an image and a caption.

    Args:
        retriever: a trained run of a system with attention or with weights of words.
        split: the split of the ids or numbers in ``pair``.
        pair: an image, and a caption or a sentence.
        images: folder of the picture files; None for generated worlds, or for a blank canvas.
        out: folder of the files; None for ``explain/IMAGE-CAPTION`` in the folder of the run.
    """
    check_explainable(retriever)
    files = PictureFolder(Path(images), "--images") if images is not None else None
    gallery = SplitPictures(retriever.config.data, retriever.open((split,)).splits[split], files)
    image, caption = find_image(gallery.split, pair[0]), find_caption(gallery.split, pair[1])
    name = gallery.id(image)
    folder = Path(out) if out else retriever.workdir / "explain" / folder_name(split, name, caption)
    run = {"model": retriever.config.model.name, "trained_steps": retriever.step, "split": split}
    said = {"image": name, "caption": caption.id, "sentence": caption.sentence}
    explain_one = _explain_pair if retriever.model.explainable() else _explain_vectors
    explain_one(retriever, gallery, image, caption, folder, run | said)
    return 0


def _explain_pair(
    retriever: Retriever,
    gallery: SplitPictures,
    image: int,
    caption: Caption,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Write ``stepK.png`` for every matching step, ``attention.json``, and ``relations.png``.

    ``relations.png`` is written for systems with edges between regions or words.
    """
    items, name = gallery.split, gallery.id(image)
    item = _with_boxes(items, image, gallery.data)
    gallery.warn_if_missing(image, "boxes are drawn on a blank canvas")
    picture = gallery.picture(image)
    found = explain_pair(retriever, item, caption.sentence, _parsed(retriever, items, caption))
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(len(found.steps)):
        figure = draw_step(picture, found, step, caption.sentence, name)
        save_png(figure, folder / f"step{step + 1}.png")
    if found.relations:
        page = draw_relations(picture, found, caption.sentence, name)
        save_png(page, folder / "relations.png")
    write_text_atomic(folder / "attention.json", _json({**about, **found.rows()}))
    _tell(found, name, caption, folder)


def _explain_vectors(
    retriever: Retriever,
    gallery: SplitPictures,
    image: int,
    caption: Caption,
    folder: Path,
    about: Mapping[str, Any],
) -> None:
    """Write ``retrieval.png`` and ``retrieval.json``."""
    train = None
    if retriever.model.remembers:
        train = replace(gallery, split=_training_split(retriever))
    gallery.warn_if_missing(image, "boxes and sentences are drawn in place of pictures")
    stored = train.split if train is not None else None
    found = explain_vectors(retriever, gallery.split, image, caption, stored)
    page = draw_retrieval(found, gallery, train, caption.sentence)
    folder.mkdir(parents=True, exist_ok=True)
    save_png(page, folder / "retrieval.png")
    rows = found.rows(gallery, train)
    write_text_atomic(folder / "retrieval.json", _json({**about, **rows}))
    _tell_search(found, gallery.id(image), caption, folder)


def _training_split(retriever: Retriever) -> Split:
    """The training split, by whose numbers the memory knows its pairs.

    Raises:
        UserError: the data is not that of the run.
    """
    data = retriever.open(("train", "dev", "test"))
    if retriever.fingerprint not in ("", data.fingerprint):
        raise UserError(
            f"{data.name} is not the data that {retriever.workdir} was trained on (its fingerprint "
            "differs), so the pairs in its memory cannot be named: give the data of the run, as "
            "--config.data.root=FOLDER."
        )
    return data.splits["train"]


def folder_name(split: str, image: str, caption: Caption) -> str:
    """A file name for a pair; it begins with the name of the split unless that is test."""
    text = caption.id
    if text is None:  # other sentences may have the same beginning
        digest = hashlib.sha256(caption.sentence.encode()).hexdigest()[:6]
        text = f"{caption.sentence.lower()[:LONGEST]}-{digest}"
    named = f"{image}-{text}" if split == "test" else f"{split}-{image}-{text}"
    return re.sub(r"[^\w.-]+", "_", named).strip("_.")


def _with_boxes(split: Split, image: int, data: ConfigDict) -> Items:
    """The image as one item with ``boxes``."""
    item = split.sources["image"].gather(np.array([image]))
    if "boxes" not in item:
        file = Path(data.root, f"{data.splits[split.name]}_boxes.npy")
        raise UserError(
            f"{file} is missing, so the places of regions in the picture are unknown: add it, "
            f"float32 [rows, {item['regions'].shape[1]}, 4] of x1, y1, x2, y2 in 0..1."
        )
    return item


def _parsed(retriever: Retriever, split: Split, caption: Caption) -> Items | None:
    """A caption of the split with its word graph, for models that read word graphs."""
    if caption.id is None or "heads" not in retriever.model.inputs()["text"]:
        return None
    return split.sources["text"].gather(np.array([list(split.ids["text"]).index(caption.id)]))


def _json(found: Mapping[str, Any]) -> str:
    """JSON with one line per key, and per row of a table."""
    lines = [f"{json.dumps(key)}: {_dumped(value)}" for key, value in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dumped(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(map(_dumped, value)) + "\n]"
    if isinstance(value, dict) and any(isinstance(each, list) for each in value.values()):
        return "{" + ", ".join(f"{json.dumps(k)}: {_dumped(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _tell_search(found: VectorExplanation, image: str, caption: Caption, folder: Path) -> None:
    print(escape_controls(f"{image} with {caption.id or 'a new sentence'}: {caption.sentence}"))
    print(f"rank:       {found.describe_rank(found.image)}")
    print(f"picture:    {folder / 'retrieval.png'}")
    print(f"numbers:    {folder / 'retrieval.json'}")


def _tell(found: PairExplanation, image: str, caption: Caption, folder: Path) -> None:
    steps = ", ".join(f"{score:.3f}" for score in found.steps)
    print(escape_controls(f"{image} with {caption.id or 'a new sentence'}: {caption.sentence}"))
    print(f"score:      {found.score:.4f} (steps: {steps})")
    print(f"pictures:   {folder / 'step1.png'}" + _to_the_last(found))
    if found.relations:
        print(f"relations:  {folder / 'relations.png'}")
    print(f"numbers:    {folder / 'attention.json'}")


def _to_the_last(found: PairExplanation) -> str:
    return f" to step{len(found.steps)}.png" if len(found.steps) > 1 else ""
