"""``--mode=explain``: pictures of the attention between the words of a caption and regions."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.generated.worlds.drawings import world_picture
from hmgr_jax.data.pictures.shown import find_picture, read_picture
from hmgr_jax.data.split import Items, Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.named_items import Caption, find_caption, find_image
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import write_text_atomic
from hmgr_jax.reports.attention_picture import draw_step
from hmgr_jax.reports.explanation import PairExplanation, check_explainable, explain_pair
from hmgr_jax.reports.grid import save_png
from hmgr_jax.reports.relation_picture import draw_relations

LONGEST = 48
"""Most letters of a sentence in the name of a folder."""


def explain(
    retriever: Retriever, split: str, pair: Sequence[str], images: str | None, out: str | None
) -> int:
    """Write ``stepK.png`` for every matching step, ``attention.json``, and ``relations.png``.

    ``relations.png`` is written for systems with edges between regions or words.

    Args:
        retriever: a trained run of a system with attention.
        split: the split of the ids or numbers in ``pair``.
        pair: an image, and a caption or a sentence.
        images: folder of the picture files; None for generated worlds, or for a blank canvas.
        out: folder of the files; None for ``explain/IMAGE-CAPTION`` in the folder of the run.
    """
    check_explainable(retriever)
    data = retriever.config.data
    items = retriever.open((split,)).splits[split]
    image, caption = find_image(items, pair[0]), find_caption(items, pair[1])
    name = items.ids["image"][image]
    item = _with_boxes(items, image, data)
    picture = _picture(data, items, image, images)
    found = explain_pair(retriever, item, caption.sentence, _parsed(retriever, items, caption))
    folder = Path(out) if out else retriever.workdir / "explain" / folder_name(split, name, caption)
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(len(found.steps)):
        figure = draw_step(picture, found, step, caption.sentence, name)
        save_png(figure, folder / f"step{step + 1}.png")
    if found.relations:
        page = draw_relations(picture, found, caption.sentence, name)
        save_png(page, folder / "relations.png")
    said = {"image": name, "caption": caption.id, "sentence": caption.sentence}
    run = {"model": retriever.config.model.name, "trained_steps": retriever.step, "split": split}
    write_text_atomic(folder / "attention.json", _json(run | said | found.rows()))
    _tell(found, name, caption, folder)
    return 0


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


def _picture(data: ConfigDict, split: Split, image: int, images: str | None) -> np.ndarray | None:
    """The picture of the regions; None, with a warning, if it is not available."""
    name = split.ids["image"][image]
    if data.source == "worlds":
        if images is not None:
            raise UserError("Generated worlds draw their pictures themselves: leave --images out.")
        return world_picture(data, split.name, image)
    path = find_picture(Path(images), name) if images is not None else None
    if path is not None:
        return read_picture(path)
    why = "without --images FOLDER there is no picture"
    if images is not None:
        why = f"{images} holds no {name}, with or without .jpg or .png"
    warnings.warn(f"{why}: boxes are drawn on a blank canvas", RuntimeWarning, stacklevel=3)
    return None


def _json(found: Mapping[str, Any]) -> str:
    """JSON with one line per key."""
    lines = [f"{json.dumps(key)}: {_dumped(value)}" for key, value in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _tell(found: PairExplanation, image: str, caption: Caption, folder: Path) -> None:
    steps = ", ".join(f"{score:.3f}" for score in found.steps)
    print(f"{image} with {caption.id or 'a new sentence'}: {caption.sentence}")
    print(f"score:      {found.score:.4f} (steps: {steps})")
    print(f"pictures:   {folder / 'step1.png'}" + _to_the_last(found))
    if found.relations:
        print(f"relations:  {folder / 'relations.png'}")
    print(f"numbers:    {folder / 'attention.json'}")


def _to_the_last(found: PairExplanation) -> str:
    return f" to step{len(found.steps)}.png" if len(found.steps) > 1 else ""
