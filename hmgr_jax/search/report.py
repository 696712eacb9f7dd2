"""Results of a search as JSON, and a contact sheet with pictures."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.generated.worlds.clip import draw_clips
from hmgr_jax.data.generated.worlds.frames import render_frames
from hmgr_jax.data.generated.worlds.render import world_picture
from hmgr_jax.data.generated.worlds.scene import SIBLINGS
from hmgr_jax.data.pictures.decode import read_picture
from hmgr_jax.data.split import Source, Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.reports.grid import INK, Thumbnail, draw_grid, shorten, wrap
from hmgr_jax.reports.object_pictures import pictures_of, views_of
from hmgr_jax.search.asking import Questions
from hmgr_jax.search.gallery import ALL, ROLES
from hmgr_jax.search.index import Item
from hmgr_jax.search.searcher import Hit, Searcher

LETTERS, LINES = 32, 4
"""Characters and lines of a caption in the sheet."""
SHORT = 18
"""Characters of an id in the sheet."""
COLUMNS = 10
"""Results per query in the sheet."""
KNOWN = ("system", "step", "modality", "engine", "model")
OBJECTS, PIXELS = ("solids", "modelnet"), 160
"""Sources of 3D objects, and pixels per side of a drawn object."""


def described(searcher: Searcher, asked: Questions, hits: list[list[Hit]]) -> dict[str, Any]:
    """All results for JSON; ``missing`` marks an item whose picture file no longer exists."""
    queries = [
        {
            "query": name,
            "results": [
                {"rank": rank, "score": hit.score, **hit.item._asdict()}
                | ({"missing": True} if _is_missing(hit.item) else {})
                for rank, hit in enumerate(found, start=1)
            ],
        }
        for name, found in zip(asked.names, hits, strict=True)
    ]
    about = {key: searcher.index.about[key] for key in KNOWN}
    return {**about, "count": len(searcher.index), "queries": queries}


def draw(path: Path, searcher: Searcher, asked: Questions, hits: list[list[Hit]]) -> None:
    """Write a contact sheet with one row per query; warns about missing picture files."""
    about, retriever = searcher.index.about, searcher.retriever
    queries: Sequence[np.ndarray | None] = [None] * len(asked.items)
    if asked.modality != "text":
        queries = pictures_of_items(retriever, asked.split, asked.modality, asked.items)
    rows = []
    for item, name, picture, found in zip(asked.items, asked.names, queries, hits, strict=True):
        words, note = (name, "") if picture is None else (item.caption, name)
        row = [_thumbnail(picture, words, note, frame=INK)]
        found = found[:COLUMNS]
        items = [hit.item for hit in found]
        pictures = pictures_of_items(retriever, about["split"], searcher.modality, items)
        for hit, picture in zip(found, pictures, strict=True):
            words = hit.item.caption or (hit.item.id if picture is None else "")
            note = f"{shorten(hit.item.id, SHORT)}  {hit.score:.3f}"
            row.append(_thumbnail(picture, words, note))
        rows.append(row)
    title = f"{about['system']}: {len(searcher.index):,} {searcher.modality} items"
    draw_grid(path, rows, side=1.7, below=0.7, headings={0: title}, apart=0.2)


def _thumbnail(picture: np.ndarray | None, words: str, note: str, **options: Any) -> Thumbnail:
    """A thumbnail with the words below the picture, or of the words if there is no picture."""
    if picture is None:
        return Thumbnail(None, words, below=note, **options)
    below = "\n".join(filter(None, (note, wrap(words, LETTERS, LINES))))
    return Thumbnail(picture, below=below, **options)


def pictures_of_items(
    retriever: Retriever, role: str, modality: str, items: Sequence[Item]
) -> list[np.ndarray | None]:
    """Pictures uint8 [H, W, 3] of items, or None; for a caption, the picture that it describes."""
    data = retriever.config.data
    open_split = functools.cache(lambda role: retriever.open((role,)).splits[role])

    def picture(item: Item) -> np.ndarray | None:
        if item.picture:
            return _from_file(item)
        if not role or not item.owner:
            return None
        if data.source == "worlds":
            owner_role, _, scene = item.owner.rpartition("/")
            return world_picture(data, owner_role, int(scene))
        if data.source in OBJECTS:
            source, number = _find(open_split, role, modality, item)
            return pictures_of(modality, source, np.array([number]), PIXELS)[0]
        found = frames_of_item(retriever, role, modality, item)
        return None if found is None else found[len(found) // 2]

    return [picture(item) for item in items]


def frames_of_item(retriever: Retriever, role: str, modality: str, item: Item) -> np.ndarray | None:
    """Frames uint8 [T, S, S, 3] of a generated clip or of a 3D object that turns; None of others.

    For a caption, those of the clip that it describes.
    """
    data = retriever.config.data
    if data.source == "clips" and role:
        owner_role, _, number = item.owner.rpartition("/")
        family, sibling = divmod(int(number), SIBLINGS)
        return render_frames(draw_clips(data.clips.seed, owner_role, family)[sibling], PIXELS)
    if data.source in OBJECTS and role:
        open_split = functools.cache(lambda role: retriever.open((role,)).splits[role])
        return views_of(modality, *_find(open_split, role, modality, item), PIXELS)
    return None


def _find(
    open_split: Callable[[str], Split], role: str, modality: str, item: Item
) -> tuple[Source, int]:
    """The source of an item, and its number there."""
    splits = (open_split(each) for each in (ROLES if role == ALL else (role,)))
    split = next(each for each in splits if item.id in each.ids[modality])
    return split.sources[modality], list(split.ids[modality]).index(item.id)


def _is_missing(item: Item) -> bool:
    return bool(item.picture) and not Path(item.picture).is_file()


def _from_file(item: Item) -> np.ndarray | None:
    try:
        return read_picture(Path(item.picture))
    except UserError as error:
        warnings.warn(
            f"the picture of {item.id} is left out: {error} Restore the file, or build the index "
            "again without it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
