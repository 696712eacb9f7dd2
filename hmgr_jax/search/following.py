"""An index of the pictures in folders, kept up to date: what is new, changed and gone.

Each change writes a new version of the index beside the one in use, see `versions`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import lock
from hmgr_jax.search import versions
from hmgr_jax.search.encoded_blocks import concatenate, encode_files
from hmgr_jax.search.followed import (
    Followed,
    base_of,
    check_folders,
    check_mounted,
    has_text_name,
    id_of,
    stamp_of,
    walk,
)
from hmgr_jax.search.gallery import Gallery, check_modality
from hmgr_jax.search.index import Index, Item
from hmgr_jax.search.index_engine import HNSW, IVF, MILVUS
from hmgr_jax.search.rerank import CodeStore
from hmgr_jax.search.searcher import CANDIDATES, Searcher, model_key

BLOCKS = "encoded"
"""Folder of the pictures that a killed command had encoded; for a new index ``OUT.encoded``."""
NOTHING_LEFT = (
    "No item would be left, and an index cannot be empty: remove the folder of the index instead."
)
OF_BUILDING = ("model", "engine", "dim", "count", "effort", "recall@10")
"""Values of the manifest that building sets."""


class Changes(NamedTuple):
    """Ids of what a command did."""

    added: list[str]
    changed: list[str]
    gone: list[str]
    broken: list[str]
    """Pictures that cannot be read, among those that were new or changed."""
    items: int
    """Of the index now."""


def build(
    retriever: Retriever,
    folders: Sequence[Path],
    blocks: Path,
    *,
    engine: str | None = None,
    uri: str | None = None,
    candidates: int = CANDIDATES,
) -> tuple[Searcher, list[str]]:
    """An index of all readable pictures below folders, and the ids of those that are not.

    Args:
        retriever: reads pictures.
        folders: at least one.
        blocks: folder of what is encoded meanwhile; the caller removes it.
        engine: see `Index.build`.
        uri: see `Index.build`.
        candidates: length of the shortlist, for a system that scores pairs.

    Raises:
        UserError: a folder is missing or lies in another, or none holds a readable picture.
    """
    check_modality(retriever, "image")
    retriever.picture_source([Path()])  # which says whether the system reads files
    followed = Followed([str(folder.resolve()) for folder in check_folders(folders)])
    found = walk(followed)
    named = " and ".join(map(str, folders))
    if not found:
        raise UserError(f"{named} holds no picture: give a folder of JPEG, PNG or other files.")
    codes, items, broken = _encode(retriever, followed, found, blocks)
    if codes is None:
        raise UserError(
            f"None of the {len(found):,} pictures of {named} can be read, such as {broken[0]}: "
            "copy them again, or give another folder."
        )
    gallery = Gallery("image", retriever.picture_source([Path()]), items)
    made = Searcher.of_codes(retriever, gallery, codes, engine, uri, candidates=candidates)
    made.followed = followed
    return made, broken


def update(
    folder: Path, workdir: str | Path | None = None, *, retriever: Retriever | None = None
) -> Changes:
    """Follow the folders of an index: add, encode again, drop; one new version if anything changed.

    Raises:
        UserError: the index follows no folder, a folder is missing or empty, or no item is left.
    """
    with _writing(folder, workdir, retriever) as (searcher, publish):
        followed = searcher.followed
        if not followed.folders and not followed.stamps:
            raise UserError(
                f"{folder} follows no folder: use search add and search remove, or build an index "
                "with search index FOLDER."
            )
        check_folders([Path(each) for each in followed.folders])
        found = walk(followed)
        check_mounted(followed, found)
        for id in followed.stamps.keys() - found.keys():
            if (path := Path(id)).is_absolute() and path.is_file():  # added by hand
                found[id] = path
        known = followed.stamps | followed.broken
        kept = {id: path for id, path in found.items() if id not in followed.removed}
        wanted = {id: path for id, path in kept.items() if known.get(id) != stamp_of(path)}
        return _apply(folder, searcher, publish, wanted, known.keys() - kept.keys())


def add(
    folder: Path,
    files: Sequence[Path],
    workdir: str | Path | None = None,
    *,
    retriever: Retriever | None = None,
) -> Changes:
    """Add pictures to an index; a picture replaces the item of its id.

    The id is the path below a followed folder, or else the whole path.

    Raises:
        UserError: a file is missing or cannot be read; then nothing is added.
    """
    for file in files:
        if not file.is_file():
            raise UserError(f"There is no picture {file}: correct the path.")
    with _writing(folder, workdir, retriever) as (searcher, publish):
        if searcher.modality != "image":
            raise UserError(
                f"{folder} holds {searcher.modality} items, not pictures: build an index of them."
            )
        base = base_of(searcher.followed.folders)
        wanted = {id_of(file.resolve(), base): file.resolve() for file in files}
        removed = [id for id in searcher.followed.removed if id not in wanted]
        searcher.followed = replace(searcher.followed, removed=removed)
        return _apply(folder, searcher, publish, wanted, (), strict=True)


def remove(
    folder: Path,
    ids: Sequence[str],
    workdir: str | Path | None = None,
    *,
    retriever: Retriever | None = None,
) -> Changes:
    """Remove items by their ids; `update` does not bring them back.

    Raises:
        UserError: an id is unknown, or no item is left; then nothing is removed.
    """
    with _writing(folder, workdir, retriever) as (searcher, publish):
        own = {item.id for item in searcher.index.items(searcher.index.numbers())}
        if unknown := [id for id in ids if id not in own]:
            raise UserError(
                f"{folder} holds no {unknown[0]!r} ({len(unknown)} of {len(ids)} ids are unknown): "
                "give ids as search query prints them."
            )
        removed = [
            *searcher.followed.removed,
            *(id for id in ids if id in searcher.followed.stamps),
        ]
        searcher.followed = replace(searcher.followed, removed=sorted(set(removed)))
        return _apply(folder, searcher, publish, {}, ids)


@contextlib.contextmanager
def _writing(
    folder: Path, workdir: str | Path | None, retriever: Retriever | None
) -> Iterator[tuple[Searcher, Callable[[Searcher], None]]]:
    """The index as it is, and a function that publishes the next version; others have to wait."""
    Index.about_of(folder)  # before a lock is written
    with lock(folder.resolve(), "--index"):
        searcher = Searcher.open(folder, workdir, retriever)
        command = versions.command_of(versions.current(folder))

        def publish(made: Searcher) -> None:
            versions.publish(folder, lambda place: made.save(place, command))

        yield searcher, publish
        searcher.index.close()


def _apply(
    folder: Path,
    searcher: Searcher,
    publish: Callable[[Searcher], None],
    wanted: dict[str, Path],
    gone: Collection[str],
    *,
    strict: bool = False,
) -> Changes:
    """Encode what is ``wanted``, drop what is ``gone``, and publish the result."""
    index, before = searcher.index, searcher.followed
    own = {item.id for item in index.items(index.numbers())}
    followed = Followed(
        before.folders,
        {id: stamp for id, stamp in before.stamps.items() if id not in gone},
        {id: stamp for id, stamp in before.broken.items() if id not in gone},
        before.removed,
    )
    blocks = folder.resolve() / BLOCKS
    codes: Any = None
    items: list[Item] = []
    broken: list[str] = []
    if wanted:
        codes, items, broken = _encode(searcher.retriever, followed, wanted, blocks)
    if strict and broken:
        raise UserError(
            f"{wanted[broken[0]]} is not a readable picture, and nothing was added: leave it out."
        )
    dropped = {*gone, *broken} & own
    if dropped or items:
        publish(_changed(searcher, dropped, codes, items, followed))
    elif followed != before or before != Followed.read(versions.current(folder)):
        publish(Searcher(searcher.retriever, index, searcher.codes, followed))
    shutil.rmtree(blocks, ignore_errors=True)
    ids = [item.id for item in items]
    added = [id for id in ids if id not in own]
    return Changes(
        added,
        [id for id in ids if id in own],
        sorted(dropped - {*broken}),
        broken,
        len(own) - len(dropped) + len(added),
    )


def _encode(
    retriever: Retriever, followed: Followed, files: dict[str, Path], blocks: Path
) -> tuple[Any, list[Item], list[str]]:
    """Codes and items of readable pictures, and the ids of others; ``followed`` learns of both."""
    stamps = {id: stamp_of(path) for id, path in files.items()}
    named = {id: path for id, path in files.items() if has_text_name(path)}
    readable = dict.fromkeys(files, False)
    codes = None
    if named:
        both = [(path, stamps[id]) for id, path in named.items()]
        codes, found = encode_files(retriever, model_key(retriever), both, blocks)
        readable |= zip(named, found.tolist(), strict=True)
    items, broken = [], []
    for id, path in files.items():
        good = readable[id]
        (followed.stamps if good else followed.broken)[id] = stamps[id]
        (followed.broken if good else followed.stamps).pop(id, None)
        if good:
            items.append(Item(id, "", str(path), id))
        else:
            broken.append(id)
    return codes, items, broken


def _changed(
    searcher: Searcher, dropped: set[str], codes: Any, items: list[Item], followed: Followed
) -> Searcher:
    """A searcher without the items of some ids, and with others added or replaced."""
    retriever, index = searcher.retriever, searcher.index
    unwanted = dropped | {item.id for item in items}
    vectors = None
    if items:
        vectors = retriever.evaluator.vectors(retriever.variables, searcher.modality, codes)
    engine = index.about["engine"]
    numbers = index.numbers()
    if engine in (HNSW, IVF):  # building takes minutes, and numbers stay
        present = [item.id for item in index.items(numbers) if item.id in unwanted]
        if len(present) == len(numbers) and vectors is None:
            raise UserError(NOTHING_LEFT)
        if present:
            index.delete(present)
        if vectors is not None:
            index.add(vectors, items)
        kept = np.arange(len(searcher.codes)) if searcher.codes is not None else numbers
    else:
        all_items = index.items(numbers)
        stays = [item.id not in unwanted for item in all_items]
        kept = numbers[stays]
        former = index.engine.vectors(kept) if len(kept) else None
        stacked = [part for part in (former, vectors) if part is not None]
        if not stacked:
            raise UserError(NOTHING_LEFT)
        index = Index.build(
            np.concatenate(stacked),
            [*index.items(kept), *items],
            model=index.model,
            engine=engine,
            uri=index.engine.uri if engine == MILVUS else None,  # type: ignore[attr-defined]
            about={k: v for k, v in index.about.items() if k not in OF_BUILDING},
        )
    store = searcher.codes
    if store is not None:
        parts = [store.gather(kept)] if len(kept) else []
        store = CodeStore.of(concatenate([*parts, codes] if items else parts))
    return Searcher(retriever, index, store, followed)
