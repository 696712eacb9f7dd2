"""Data as people have it becomes a folder to train on.

``python -m hmgr_jax.prepare scan`` checks a SCAN, VSRN or IMRAM folder, stores every image once and
in float16:

    --source DIR                 {split}_ims.npy or _feat.npy, _caps.txt, _ids.txt, _boxes.npy
    --out DIR                    the folder to make
    --splits train,dev,test      by default all that the folder holds
    --captions-per-image N       where rows repeat but there are no ids

``python -m hmgr_jax.prepare bottom-up`` reads the base64 TSV of bottom-up attention (6 columns, or
10 with objects and attributes):

    --source FILE.tsv[.gz] ...   one or several, in any order of images
    --captions FILE              dataset_X.json of Karpathy, or .csv or .jsonl as below
    --out DIR
    --regions N                  where images have different numbers of boxes: the first N

``python -m hmgr_jax.prepare karpathy`` joins dataset_{coco,flickr30k,flickr8k}.json with features:

    --json dataset_X.json
    --features PATH              a .npy with ids, a folder with a .npz or .npy an image, or a .h5
    --ids FILE                   of the .npy, an id a row; by default {name}_ids.txt beside it
    --array NAME                 of a .npz or .h5 that holds several
    --no-boxes                   leave out boxes that the features have
    --out DIR

``python -m hmgr_jax.prepare folder`` takes pictures of your own, or features of them:

    --pictures DIR               encoded as grid patches: pixels, colours and gradients of each
    --grid 6                     patches a side
    --features DIR               in place of --pictures: as for karpathy
    --captions FILE.csv|.jsonl   columns image and caption, a caption a row, perhaps a column split
    --dev 0.1 --test 0.1         shares of the pictures, where there is no column split
    --out DIR

``python -m hmgr_jax.prepare dependencies`` parses the captions of a folder and writes the word
graphs that ``resg`` reads, {split}_caps.conllu (CoNLL-U) beside {split}_caps.txt:

    --root DIR                   the folder
    --splits train,dev,test      by default all that the folder holds
    --parser en_core_web_sm      a model of spaCy, which must be installed (hmgr-jax[parse])

Options of bottom-up, karpathy and folder:

    --key NAME                   what the ids of the features are: filename, stem, cocoid, padded
                                 or imgid; by default whichever of them fits all images
    --restval                    take the images of Karpathy's split restval into train
    --captions-per-image N       keep the first N captions of an image

Stopped by a signal or killed, the same command goes on where it was. ``python -m hmgr_jax.prepare
--verify DIR`` checks a prepared folder against its manifest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

if TYPE_CHECKING:
    from hmgr_jax.preparation.plan import Plan

JOINING = ("key", "restval", "captions-per-image")
VERBS = {
    "scan": ("source", "out", "splits", "captions-per-image"),
    "bottom-up": ("source", "captions", "out", "regions", "dev", "test", *JOINING),
    "karpathy": ("json", "features", "ids", "array", "no-boxes", "out", *JOINING),
    "folder": (
        *("pictures", "grid", "features", "ids", "array", "no-boxes", "captions", "dev", "test"),
        *("out", *JOINING),
    ),
}
PARSING = ("root", "splits", "parser")
COUNTS = ("captions-per-image", "regions", "grid")
SHARES = ("dev", "test")
SWITCHES = ("restval", "no-boxes")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake, 143 after SIGTERM, 130 after Ctrl-C."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print(__doc__)
        return 0
    if verb == "--verify" or verb.startswith("--verify="):
        return _verify([verb, *rest])
    if verb == "dependencies":
        return _dependencies(rest)
    if verb not in VERBS:
        known = ", ".join([*VERBS, "dependencies"])
        raise UserError(f"There is no preparation {verb!r}: choose {known} or --verify.")
    flags = _flags(verb, rest)
    if flags.help:
        print(__doc__)
        return 0
    from hmgr_jax.preparation import plans, writing  # after the flags are known to be right

    makers: dict[str, Callable[[argparse.Namespace], Plan]] = {
        "scan": plans.scan,
        "bottom-up": plans.bottom_up,
        "karpathy": plans.karpathy,
        "folder": plans.folder,
    }
    out = Path(plans.demand(flags, "out"))
    try:
        plan = makers[verb](flags)
        made = writing.write(plan, out)
    except writing.Terminated:
        print("error: Stopped by SIGTERM: the same command goes on.", file=sys.stderr, flush=True)
        return 143
    _report(plan, out, made)
    return 0


def _flags(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser()
    for name in VERBS[verb]:
        if name in SWITCHES:
            parser.add_argument(f"--{name}", action="store_true")
        elif name in COUNTS:
            parser.add_argument(f"--{name}", type=int)
        elif name in SHARES:
            parser.add_argument(f"--{name}", type=float, default=0.1)
        elif name == "source" and verb == "bottom-up":
            parser.add_argument(f"--{name}", nargs="+")
        else:
            parser.add_argument(f"--{name}")
    flags = parser.parse(arguments)
    for name in COUNTS:
        value = getattr(flags, name.replace("-", "_"), None)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value} where a number from 1 was expected: correct it.")
    return flags


def _verify(arguments: Sequence[str]) -> int:
    parser = Parser()
    parser.add_argument("--verify")
    flags = parser.parse(arguments)
    from hmgr_jax.preparation import manifest

    print(manifest.verify(Path(flags.verify)))
    return 0


def _dependencies(arguments: Sequence[str]) -> int:
    parser = Parser()
    for name in PARSING:
        parser.add_argument(f"--{name}")
    flags = parser.parse(arguments)
    if flags.help:
        print(__doc__)
        return 0
    from hmgr_jax.preparation import dependencies, plans

    root = Path(plans.demand(flags, "root"))
    for path, count in dependencies.write(root, flags.splits, flags.parser):
        print(f"{path} holds the word graphs of {count:,} captions.", flush=True)
    return 0


def _report(plan: Plan, out: Path, made: bool) -> None:
    if not made:
        print(f"{out} was prepared already, whole; --verify {out} checks it.")
        return
    counts = ", ".join(
        f"{len(split):,} of {name} ({sum(map(len, split.captions)):,} captions)"
        for name, split in plan.splits.items()
    )
    print(f"{out} holds images: {counts}.")
    recipe = "coco" if "testall" in plan.splits else "f8k"
    print(f"Train: python -m hmgr_jax.main --config configs/{recipe}.py --config.data.root={out}")


if __name__ == "__main__":
    sys.exit(main())
