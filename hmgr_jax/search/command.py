"""Search the items of a trained run by sentences, pictures or other items."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgr_jax.command import Parser, guarded, required
from hmgr_jax.errors import UserError
from hmgr_jax.search import running, upkeep
from hmgr_jax.search.options import ACTIONS, MODEL, OPTIONS
from hmgr_jax.terminal import escape_controls

if TYPE_CHECKING:
    from hmgr_jax.evaluation.retriever import Retriever
    from hmgr_jax.search.asking import Questions
    from hmgr_jax.search.gallery import Gallery
    from hmgr_jax.search.searcher import Hit, Searcher


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and run its action; returns the exit code."""
    flags = _parser().parse(arguments or ["--help"])
    if flags.action == "index":
        return index(flags, "python -m hmgr_jax.search " + shlex.join(arguments))
    own = {"query": query, "find": find, "swap": swap}
    return {**own, **upkeep.COMMANDS}[flags.action](flags)


def _parser() -> Parser:
    parser = Parser("hmgr-jax search", __doc__)
    for action, command in parser.add_commands("action", ACTIONS).items():
        for name, options in OPTIONS[action].items():
            command.add_argument(name, **options)
    return parser


def index(flags: argparse.Namespace, command: str) -> int:
    """Encode a gallery and write its index, with the ``command`` that builds it again."""
    folders = [*map(Path, flags.folders), *([Path(flags.images)] if flags.images else [])]
    workdir = flags.workdir or (MODEL if folders else required(flags, "workdir"))
    out = Path(required(flags, "out"))
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or remove it.")
    _check_gallery(flags)
    # Slow imports come after the options are checked.
    from hmgr_jax.search.engines import check_engine
    from hmgr_jax.search.index_engine import FLAT
    from hmgr_jax.search.retrieved import load_run
    from hmgr_jax.search.searcher import Searcher

    check_engine(flags.engine or FLAT, flags.uri)
    retriever = load_run(workdir)
    how = {"engine": flags.engine, "uri": flags.uri, "candidates": flags.candidates}
    blocks = out.with_name(f"{out.name}.encoded")
    if folders:
        from hmgr_jax.search import following

        made = following.build(retriever, folders, blocks, **how)
    else:
        made = Searcher.build(retriever, _gallery(retriever, flags), **how)
    made.save(out, command)
    shutil.rmtree(blocks, ignore_errors=True)
    about = made.index.about
    print(
        f"{len(made.index):,} {made.modality} items of dimension {about['dim']}, {about['engine']}"
    )
    if about.get("recall@10") is not None:
        print(f"recall@10:  {about['recall@10']:.3f} of exact search (effort {about['effort']})")
    if made.codes is not None:
        print(f"shortlist:  {about['candidates']} candidates, scored by {about['system']} itself")
    print(escape_controls(f"index:      {out}"))
    made.index.close()
    return 0


def query(flags: argparse.Namespace) -> int:
    """Search an index; a running server of it answers sentences at once."""
    required(flags, "index")
    _check_question(flags)
    if flags.k < 1:
        raise UserError(f"-k is {flags.k}, but must be at least 1: correct it.")
    if (found := running.ask(flags)) is not None:
        _tell(found, flags)
        return 0
    from hmgr_jax.search.searcher import Searcher

    searcher = Searcher.open(flags.index, flags.workdir)
    asked = _questions(searcher, flags)
    own = flags.without_own or asked.modality == searcher.modality
    without = [item.owner or None for item in asked.items] if own else None
    numbers, scores = searcher.search(
        asked.modality,
        asked.codes,
        min(flags.k, searcher.index.most(without)),
        without=without,
        candidates=flags.candidates,
    )
    _report(searcher, asked, searcher.hits(numbers, scores), flags)
    searcher.index.close()
    return 0


def find(flags: argparse.Namespace) -> int:
    """Search the pictures of a folder."""
    folder = Path(required(flags, "in"))
    _check_question(flags)
    if flags.k < 1:
        raise UserError(f"-k is {flags.k}, but must be at least 1: correct it.")
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give a folder of pictures.")
    from hmgr_jax.search import asking
    from hmgr_jax.search.find import load_model, searcher_of

    retriever = load_model(_model_of(flags))
    if flags.sentences:
        asked = asking.of_sentences(retriever, flags.sentences)
    else:
        asked = asking.of_pictures(retriever, [Path(file) for file in flags.image])
    searcher = searcher_of(folder, retriever)  # last: it may encode for minutes
    k = min(flags.k, len(searcher.index))
    numbers, scores = searcher.search(asked.modality, asked.codes, k)
    _report(searcher, asked, searcher.hits(numbers, scores), flags)
    return 0


def _model_of(flags: argparse.Namespace) -> str:
    if flags.encoder is None:
        return str(flags.model)
    kind, _, place = flags.encoder.partition("=")
    if kind not in ("clip", "siglip") or not place:
        raise UserError(
            f"--encoder is {flags.encoder}, but search find takes clip=DIR or siglip=DIR: give one "
            "of them, or a --model."
        )
    from hmgr_jax.interop import clip

    towers = clip.read_towers(place)  # which says what is supported
    if towers.kind != kind:
        raise UserError(f"{place} holds a {towers.kind}, not a {kind}: give {towers.kind}=DIR.")
    return str(place)


def _check_question(flags: argparse.Namespace) -> None:
    if bool(flags.sentences) == bool(flags.image):
        raise UserError('Give either sentences, such as "a red ball", or --image FILE.')
    if flags.sheet and Path(flags.sheet).suffix != ".png":
        raise UserError(f"--sheet writes a PNG, not {flags.sheet}: the file name must end in .png.")
    for name in ("sheet", "json"):
        place = Path(getattr(flags, name) or "-")
        if not place.parent.is_dir():
            raise UserError(
                f"There is no folder {place.parent} for --{name}: make it, or correct the path."
            )
        if str(place) != "-" and (place.is_dir() or not os.access(place.parent, os.W_OK)):
            raise UserError(
                f"--{name} {place} is a folder, or its folder cannot be written to: give another "
                "path."
            )


def swap(flags: argparse.Namespace) -> int:
    """Point a name to another index."""
    name, to = required(flags, "name"), required(flags, "to")
    from hmgr_jax.search.pointer import point

    before = point(name, to)
    print(
        escape_controls(f"{name} -> {Path(to).resolve()}" + (f" (was {before})" if before else ""))
    )
    return 0


def _check_gallery(flags: argparse.Namespace) -> None:
    """Refuse several galleries, and options of a split for another gallery."""
    names = ("split", "images", "gallery", "captions")
    given = ["DIR"] if flags.folders else []
    given += [f"--{name}" for name in names if getattr(flags, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: give one.")
    if given in ([], ["--split"]):
        return
    if flags.modality or (flags.pictures and given != ["--gallery"]):
        raise UserError(
            f"--modality and --pictures are for a split: leave them out with {given[0]}."
        )


def _gallery(retriever: Retriever, flags: argparse.Namespace) -> Gallery:
    from hmgr_jax.search import gallery

    if flags.gallery is not None:
        return gallery.of_prepared(retriever, Path(flags.gallery), _path(flags.pictures))
    if flags.captions is not None:
        return gallery.of_captions(retriever, Path(flags.captions))
    return gallery.of_split(retriever, flags.split or "test", flags.modality, _path(flags.pictures))


def _questions(searcher: Searcher, flags: argparse.Namespace) -> Questions:
    from hmgr_jax.search import asking

    if flags.sentences:
        return asking.of_sentences(searcher.retriever, flags.sentences)
    role = flags.split or searcher.index.about["split"] or "test"
    return asking.of_names(
        searcher.retriever, flags.image, role, getattr(flags, "from"), _path(flags.pictures)
    )


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


def _report(
    searcher: Searcher, asked: Questions, hits: list[list[Hit]], flags: argparse.Namespace
) -> None:
    """Print the table or the JSON, and write the requested files."""
    from hmgr_jax.search import report as search_report

    _tell(search_report.described(searcher, asked, hits), flags)
    if flags.sheet:
        search_report.draw(Path(flags.sheet), searcher, asked, hits)
        if flags.json != "-":
            print(f"sheet:      {flags.sheet}")


def _tell(found: dict[str, Any], flags: argparse.Namespace) -> None:
    """Print the table or the JSON, and write the JSON."""
    from hmgr_jax.files.workdir import write_json_atomic
    from hmgr_jax.search.table import show

    if flags.json == "-":
        print(escape_controls(json.dumps(found, ensure_ascii=False, allow_nan=False)))
    else:
        show(found)
    if flags.json and flags.json != "-":
        write_json_atomic(Path(flags.json), found)
        print(f"results:    {flags.json}")
