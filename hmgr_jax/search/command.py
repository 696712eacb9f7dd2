"""Search a trained run's items by sentences, pictures or other items.

``python -m hmgr_jax.search index`` encodes a gallery and writes an index of it:

    --workdir RUN                a trained run of any system
    --out DIR                    the folder to make
    --split test|dev|train       the items of a split of the run (test by default), or
    --images FOLDER              all pictures in a folder (a run that was trained on pixels), or
    --captions FILE              the sentences of a file, one a line
    --modality image|text|...    which items of a split; by default what captions describe
    --pictures FOLDER            where the pictures lie that the ids of a split name, to be shown
    --engine flat|hnsw|ivf       FAISS; by default flat (exact), and ivf for very many
    --engine milvus [--uri URI]  Milvus Lite, or a Milvus server (its token in MILVUS_TOKEN)
    --candidates 100             items of a shortlist, where the system scores pairs

``python -m hmgr_jax.search query`` asks it:

    --index DIR                  an index, or a name that swap has made
    "a sentence" ...             what is asked, or
    --image FILE|ID ...          pictures, or ids (or numbers) of items of a split
    --split test --from image    which items those are; by default what captions describe
    -k 10                        how many are wanted
    --without-own                leave out what belongs to the item that asks
    --candidates N               of the shortlist, for these questions
    --json FILE|-                the results as JSON, - to the screen in place of the table
    --sheet FILE.png             the results as a picture
    --pictures FOLDER            where the pictures of items that ask lie
    --workdir RUN                where the run is now, if it has moved

``python -m hmgr_jax.search swap --name NAME --to DIR`` lets NAME, which is given as --index, mean
another index of the same model, at once.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

if TYPE_CHECKING:
    from hmgr_jax.evaluation.retriever import Retriever
    from hmgr_jax.search.asking import Questions
    from hmgr_jax.search.gallery import Gallery
    from hmgr_jax.search.searcher import Hit, Searcher

SPLITS = ("train", "dev", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Do what the first argument names."""
    verbs: dict[str, Callable[[Sequence[str]], int]] = {
        "index": index,
        "query": query,
        "swap": swap,
    }
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help") or {"-h", "--help"} & set(rest):
        print(__doc__)
        return 0
    if name not in verbs:
        raise UserError(f"There is no {name!r}: choose from {', '.join(verbs)}.")
    return verbs[name](rest)


def index(arguments: Sequence[str]) -> int:
    """Encode a gallery and write an index of it."""
    parser = Parser()
    for flag in ("workdir", "out", "images", "captions", "modality", "pictures", "engine", "uri"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("--candidates", type=int)
    flags = parser.parse(arguments)
    _demand(flags, "workdir", "out")
    out = Path(flags.out)
    if out.exists():
        raise UserError(f"{out} exists: give another --out, or remove it.")
    _demand_one(flags, "split", "images", "captions")
    # Slow to import: after the flags are known to be right.
    from hmgr_jax.search.retrieved import load_run
    from hmgr_jax.search.searcher import CANDIDATES, Searcher

    retriever = load_run(flags.workdir)
    gallery = _gallery(retriever, flags)
    made = Searcher.build(
        retriever,
        gallery,
        engine=flags.engine,
        uri=flags.uri,
        candidates=CANDIDATES if flags.candidates is None else flags.candidates,
    )
    made.save(out, "python -m hmgr_jax.search index " + shlex.join(arguments))
    about = made.index.about
    print(
        f"{len(made.index):,} {gallery.modality} items of {about['dim']} numbers, {about['engine']}"
    )
    if about.get("recall@10") is not None:
        print(f"recall@10:  {about['recall@10']:.3f} of comparing all (effort {about['effort']})")
    if made.codes is not None:
        print(f"shortlist:  {about['candidates']} candidates, scored by {about['system']} itself")
    print(f"index:      {out}")
    made.index.close()
    return 0


def query(arguments: Sequence[str]) -> int:
    """Ask an index."""
    parser = Parser()
    for flag in ("index", "from", "json", "sheet", "pictures", "workdir"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--image", nargs="+")
    parser.add_argument("--split", choices=SPLITS)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--without-own", action="store_true")
    parser.add_argument("sentences", nargs="*")
    flags = parser.parse(arguments)
    _demand(flags, "index")
    if bool(flags.sentences) == bool(flags.image):
        raise UserError('Ask either sentences ("a red ball") or --image FILE|ID.')
    if flags.sheet and Path(flags.sheet).suffix != ".png":
        raise UserError(f"--sheet writes a PNG, not {flags.sheet}: let its name end in .png.")
    from hmgr_jax.search.searcher import Searcher

    searcher = Searcher.open(flags.index, flags.workdir)
    asked = _questions(searcher, flags)
    own = flags.without_own or asked.modality == searcher.modality
    numbers, scores = searcher.search(
        asked.modality,
        asked.codes,
        flags.k,
        without=[item.owner or None for item in asked.items] if own else None,
        candidates=flags.candidates,
    )
    _tell(searcher, asked, searcher.hits(numbers, scores), flags)
    searcher.index.close()
    return 0


def swap(arguments: Sequence[str]) -> int:
    """Point a name to another index."""
    parser = Parser()
    parser.add_argument("--name")
    parser.add_argument("--to")
    flags = parser.parse(arguments)
    _demand(flags, "name", "to")
    from hmgr_jax.search.pointer import point

    before = point(flags.name, flags.to)
    print(f"{flags.name} -> {Path(flags.to).resolve()}" + (f" (was {before})" if before else ""))
    return 0


def _demand(flags: argparse.Namespace, *names: str) -> None:
    for name in names:
        if not getattr(flags, name):
            raise UserError(f"--{name} is missing; --help shows the command line.")


def _demand_one(flags: argparse.Namespace, *names: str) -> None:
    given = [f"--{name}" for name in names if getattr(flags, name) is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: give one.")
    if given != ["--split"] and given and (flags.modality or flags.pictures):
        raise UserError(
            f"--modality and --pictures are for a split: leave them out with {given[0]}."
        )


def _gallery(retriever: Retriever, flags: argparse.Namespace) -> Gallery:
    from hmgr_jax.search import gallery

    if flags.images is not None:
        return gallery.of_pictures(retriever, Path(flags.images))
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


def _tell(
    searcher: Searcher, asked: Questions, hits: list[list[Hit]], flags: argparse.Namespace
) -> None:
    """The table, the JSON and the sheet."""
    from hmgr_jax.files.workdir import write_json_atomic
    from hmgr_jax.search import report as search_report

    found = search_report.described(searcher, asked, hits)
    if flags.json == "-":
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        search_report.show(found)
    if flags.json and flags.json != "-":
        write_json_atomic(Path(flags.json), found)
        print(f"results:    {flags.json}")
    if flags.sheet:
        search_report.draw(Path(flags.sheet), searcher, asked, hits)
        if flags.json != "-":
            print(f"sheet:      {flags.sheet}")
