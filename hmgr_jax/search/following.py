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

from hmgr_jax.data.pictures.decode import READER
from hmgr_jax.data.pictures.files import warn_left_out
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import lock
from hmgr_jax.search import versions
from hmgr_jax.search.changed import changed
from hmgr_jax.search.encoded_blocks import encode_files
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
from hmgr_jax.search.searcher import Searcher, check_candidates, model_key

BLOCKS = "encoded"
"""Folder of the pictures that a killed command had encoded; for a new index ``OUT.encoded``."""


class Changes(NamedTuple):
    """Ids of what a command did."""

    added: list[str]
    changed: list[str]
    gone: list[str]
    broken: list[str]
    """Pictures that cannot be read, among those that were new or changed."""
    items: int
    """Items of the index after the command."""


def build(
    retriever: Retriever,
    folders: Sequence[Path],
    blocks: Path,
    *,
    engine: str | None = None,
    uri: str | None = None,
    candidates: int | None = None,
) -> Searcher:
    """An index of all readable pictures below folders; warns of those that are not.

    Args:
        retriever: reads pictures.
        folders: at least one.
        blocks: folder of what is encoded meanwhile; the caller removes it.
        engine: see `Index.build`.
        uri: see `Index.build`.
        candidates: see `Searcher.build`.

    Raises:
        UserError: a folder is missing or lies in another, or none holds a readable picture.
    """
    check_candidates(retriever, candidates)
    check_modality(retriever, "image")
    retriever.picture_source([Path()])  # which says whether the system reads files
    followed = Followed([str(folder.resolve()) for folder in check_folders(folders)])
    found = walk(followed)
    named = " and ".join(map(str, folders))
    if not found:
        raise UserError(f"{named} holds no picture: give a folder of JPEG, PNG or other files.")
    codes, items, broken = _encode(retriever, followed, found, blocks)
    warn_left_out(broken, len(found), named)
    gallery = Gallery("image", retriever.picture_source([Path()]), items)
    made = Searcher.of_codes(retriever, gallery, codes, engine, uri, candidates=candidates)
    made.followed = followed
    return made


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
        current = known if followed.reader == READER else {}  # pixels of two readers do not mix
        searcher.followed = replace(followed, reader=READER)
        kept = {id: path for id, path in found.items() if id not in followed.removed}
        wanted = {id: path for id, path in kept.items() if current.get(id) != stamp_of(path)}
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
    followed = replace(
        before,
        stamps={id: stamp for id, stamp in before.stamps.items() if id not in gone},
        broken={id: stamp for id, stamp in before.broken.items() if id not in gone},
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
        publish(changed(searcher, dropped, codes, items, followed))
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
