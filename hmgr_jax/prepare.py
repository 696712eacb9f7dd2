"""Convert common dataset formats to a folder that training reads.

``hmgr-jax prepare PREPARATION`` (or ``python -m hmgr_jax.prepare``) makes it, ``--verify DIR``
checks one against its manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgr_jax.command import Parser, guarded, required
from hmgr_jax.errors import UserError

if TYPE_CHECKING:
    from hmgr_jax.preparation.modelnet import Report
    from hmgr_jax.preparation.modelnet_objects import Making
    from hmgr_jax.preparation.plan import Plan

KINDS = {
    "scan": "a SCAN, VSRN or IMRAM folder, with every image once and in float16",
    "array-record": "a SCAN folder, raw or prepared, to a TFDS dataset in ArrayRecord files",
    "bottom-up": "base64 TSV of bottom-up attention (6 columns, or 10 with objects and attributes)",
    "karpathy": "dataset_{coco,flickr30k,flickr8k}.json of Karpathy with features",
    "folder": "your own pictures, or features of them, with captions",
    "msrvtt": "MSR-VTT's captions with videos, or features of them",
    "modelnet": "points, faces and views of meshes in OFF files (the extra shapes)",
    "dependencies": "word graphs of the captions of a folder, beside them",
}
JOINING = ("key", "restval", "captions-per-image")
OPTIONS_OF = {
    "scan": ("source", "out", "splits", "captions-per-image"),
    "array-record": ("source", "out", "splits", "captions-per-image"),
    "bottom-up": ("source", "captions", "out", "regions", "dev", "test", *JOINING),
    "karpathy": ("json", "features", "ids", "array", "no-boxes", "regions", "out", *JOINING),
    "folder": (
        *(
            "pictures",
            "encoder",
            "grid",
            "pca",
            "features",
            "ids",
            "array",
            "no-boxes",
            "captions",
            "dev",
            "test",
        ),
        *("regions", "out", *JOINING),
    ),
    "msrvtt": (
        *("json", "csv", "names", "features", "ids", "array", "videos", "encoder", "grid", "pca"),
        *("frames", "dev", "out", "key", "captions-per-image"),
    ),
    "modelnet": ("source", "out", "points", "faces", "views", "size", "up", "workers"),
    "dependencies": ("root", "splits", "parser", "check"),
}
COUNT: dict[str, Any] = {"type": int}
SHARE: dict[str, Any] = {"type": float}
SWITCH: dict[str, Any] = {"action": "store_true"}
SEVERAL: dict[str, Any] = {"nargs": "+", "action": "extend"}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "source": {"metavar": "DIR", "help": "folder with {split}_ims.npy, {split}_caps.txt, ..."},
    "out": {"metavar": "DIR", "help": "the folder to make"},
    "splits": {"help": "names with commas, as train,dev,test; without it all that the folder has"},
    "captions-per-image": COUNT | {"help": "keep the first N captions of an image or video"},
    "captions": SEVERAL
    | {
        "metavar": "FILE",
        "help": ".csv or .jsonl with image, caption and perhaps split; captions_X.json of COCO; "
        "dataset_X.json of Karpathy; or train=FILE dev=FILE test=FILE",
    },
    "regions": COUNT | {"help": "keep the first N regions of an image, and pad images with fewer"},
    "dev": SHARE | {"help": "share of the images (0.1), if no file gives their splits"},
    "test": SHARE | {"help": "share of the images (0.1), if no file gives their splits"},
    "key": {
        "help": "what the ids of the features are: filename, stem, cocoid, padded or imgid; "
        "without it the one that fits all images"
    },
    "restval": SWITCH | {"help": "train on Karpathy's split restval too"},
    "json": {"metavar": "FILE", "help": "dataset_X.json"},
    "features": {
        "metavar": "PATH",
        "help": "a .npy with ids, a folder with one .npz or .npy per image, or a .h5",
    },
    "ids": {"metavar": "FILE", "help": "ids of a .npy or .h5, one per row; else {name}_ids.txt"},
    "array": {
        "metavar": "NAME",
        "help": "which array of a .npz or .h5 with several; NAME.T: it is [features, regions]",
    },
    "no-boxes": SWITCH | {"help": "leave out boxes that the features have"},
    "pictures": {"metavar": "DIR", "help": "pictures; without --captions they become a gallery"},
    "encoder": {
        "metavar": "SPEC",
        "help": "the network that describes cells of pictures: efficientnet_lite2 (the extra cnn), "
        "resnet50=FILE, clip=DIR or siglip=DIR; without it pixels and colours of patches",
    },
    "grid": COUNT | {"help": "cells per side (6 of a picture; of a frame 1, or 2 patches)"},
    "pca": {
        "metavar": "N|FILE",
        "help": "keep N principal components of the features, fitted to train, or those of FILE "
        "(.npz, or a packed run)",
    },
    "csv": {"metavar": "FILE", "help": "MSRVTT_JSFUSION_test.csv: its rows are the test split"},
    "names": {"metavar": "DIR", "help": "{trn,val,tst}_names.npy of HGR, for its ref_captions"},
    "videos": {"metavar": "DIR", "help": "clips to decode instead of --features (extra video)"},
    "frames": COUNT | {"help": "at most this many frames of a video, evenly spread (20)"},
    "points": COUNT | {"help": "points on the surface of an object"},
    "faces": COUNT | {"help": "faces of an object; larger meshes are simplified"},
    "views": COUNT | {"help": "rendered views around an object"},
    "size": COUNT | {"help": "pixels per side of a view"},
    "up": {"choices": ("y", "z"), "help": "the axis of the files that points upwards"},
    "workers": COUNT | {"help": "processes"},
    "root": {"metavar": "DIR", "help": "the folder with {split}_caps.txt"},
    "parser": {"help": "a model of spaCy (extra parse; without it en_core_web_sm)"},
    "check": SWITCH | {"help": "parse nothing: validate {split}_caps.conllu made elsewhere"},
}
DIFFERENT: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "bottom-up": {"source": SEVERAL | {"metavar": "FILE", "help": "one or several .tsv[.gz]"}},
    "msrvtt": {
        "json": SEVERAL
        | {"metavar": "FILE", "help": "videodatainfo.json, or train_val_ and test_ of it"},
        "dev": SHARE | {"help": "share or number of the other videos, for dev"},
    },
    "modelnet": {"source": {"metavar": "DIR", "help": "folder with CLASS/{train,test}/NAME.off"}},
}
"""What an option of the same name is in these kinds."""
LARGEST = 10**9
"""The largest number that an option takes."""
VIEWS, POINTS = 4, 1024
"""What the recipe of ModelNet reads of an object."""
NAMED = 20
"""Objects left out that are printed; all of them are listed in a file."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an error the user can fix, 143 after SIGTERM, 130 by Ctrl-C."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Prepare or verify what the command line says; the exit code."""
    arguments = arguments or ["--help"]
    kind = arguments[0]
    if kind.partition("=")[0] == "--verify":
        return _verify(arguments)
    flags = _parser(kind).parse(arguments)
    del flags.preparation
    for name, value in vars(flags).items():
        dashed = name.replace("_", "-")
        if OPTIONS[dashed].get("type") is not int or value is None:
            continue
        if not 1 <= value <= LARGEST:
            raise UserError(f"--{dashed} is {value}, but must be at least 1 and below a billion.")
    if kind == "dependencies":
        return _dependencies(flags)
    from hmgr_jax.preparation.writing import Terminated  # after the options are known to be right

    try:
        return _modelnet(flags) if kind == "modelnet" else _rows(kind, flags)
    except Terminated:
        print(
            "error: Stopped by SIGTERM: run the same command to resume.",
            file=sys.stderr,
            flush=True,
        )
        return 143


def _parser(kind: str) -> Parser:
    """The command line, with the options of ``kind``."""
    parser = Parser("hmgr-jax prepare", __doc__)
    commands = parser.add_commands("preparation", KINDS)
    if kind not in commands:
        parser.add_argument("--verify", metavar="DIR", help="check a folder, with no PREPARATION")
        return parser
    defaults = {}
    if kind == "modelnet":
        from hmgr_jax.preparation.modelnet_objects import Making, usual_workers

        defaults = dataclasses.asdict(Making()) | {"workers": usual_workers()}
    for name in OPTIONS_OF[kind]:
        options = DIFFERENT.get(kind, {}).get(name, OPTIONS[name])
        if name in defaults:
            options = {**options, "default": defaults[name]}
        commands[kind].add_argument(f"--{name}", **options)
    return parser


def _rows(kind: str, flags: argparse.Namespace) -> int:
    """Write a folder of rows of features with their captions."""
    from hmgr_jax.preparation import plans, writing

    makers: dict[str, Callable[[argparse.Namespace], Plan]] = {
        "scan": plans.scan,
        "bottom-up": plans.bottom_up,
        "karpathy": plans.karpathy,
        "folder": plans.folder,
        "msrvtt": plans.msrvtt,
    }
    layout = writing.ROWS
    if kind == "array-record":
        from hmgr_jax.preparation import tfds_builder  # which loads tensorflow-datasets

        makers[kind], layout = tfds_builder.array_record, tfds_builder.RECORDS
    out = Path(required(flags, "out"))
    plan = makers[kind](flags)
    made = writing.write(plan, out, layout)
    _report(plan, out, made)
    return 0


def _verify(arguments: Sequence[str]) -> int:
    parser = Parser("hmgr-jax prepare")
    parser.add_argument("--verify")
    flags = parser.parse(arguments)
    from hmgr_jax.files import manifest

    print(manifest.verify(Path(flags.verify)))
    return 0


def _dependencies(flags: argparse.Namespace) -> int:
    """Parse captions, or check word graphs made elsewhere."""
    from hmgr_jax.preparation import dependencies

    root = Path(required(flags, "root"))
    if flags.check:
        if flags.parser:
            raise UserError("--parser has no effect with --check: leave one of them out.")
        for path, count, listed in dependencies.check(root, flags.splits):
            more = ", and is listed in the manifest" if listed else ""
            print(f"{path} fits its {count:,} captions{more}.", flush=True)
        return 0
    for path, count in dependencies.write(root, flags.splits, flags.parser):
        print(f"{path} holds the word graphs of {count:,} captions.", flush=True)
    return 0


def _modelnet(flags: argparse.Namespace) -> int:
    """Prepare objects; the exit code is 0 even if some files were left out."""
    from hmgr_jax.preparation.modelnet import prepare_objects
    from hmgr_jax.preparation.modelnet_objects import Making

    source, out = (Path(required(flags, name)) for name in ("source", "out"))
    making = Making(**{f.name: getattr(flags, f.name) for f in dataclasses.fields(Making)})
    report = prepare_objects(source, out, making, flags.workers)
    _report_objects(report, out, making)
    return 0


def _report_objects(report: Report, out: Path, making: Making) -> None:
    from hmgr_jax.preparation.modelnet import LEFT_OUT

    for why in list(report.left_out.values())[:NAMED]:
        print(f"warning: {why}", file=sys.stderr)
    if len(report.left_out) > NAMED:
        more = len(report.left_out) - NAMED
        print(f"warning: and {more} more, see {out / LEFT_OUT}.", file=sys.stderr)
    splits = ", ".join(f"{count:,} of {name}" for name, count in report.splits.items())
    print(f"{out} holds objects of {report.classes} classes: {splits}.")
    print(f"Made in this run: {report.fresh:,}; left out as unreadable: {len(report.left_out):,}.")
    recipe = f"modelnet{':10' if report.classes == 10 else ''}"
    command = f"hmgr-jax train --config {recipe} --config.data.root={out}"
    print(f"Train: {command}{_smaller_sizes(making)}", flush=True)


def _smaller_sizes(making: Making) -> str:
    """Values that the recipe needs if the objects have less than it reads."""
    views = 1 if making.views == 1 else 2
    sizes = {
        "data.points": making.points if making.points < POINTS else None,
        "data.faces": making.faces if making.faces != type(making).faces else None,
        "data.objects.views": views if making.views < VIEWS else None,
        "model.views_test": views if making.views < VIEWS else None,
    }
    return "".join(f" --config.{key}={size}" for key, size in sizes.items() if size)


def _report(plan: Plan, out: Path, made: bool) -> None:
    from hmgr_jax.files.manifest import GALLERY
    from hmgr_jax.preparation.plan import NOUNS

    if not made:
        print(f"{out} is already complete; --verify {out} checks it.")
        return
    counts = ", ".join(
        f"{len(split):,} of {name} ({sum(map(len, split.captions)):,} captions)"
        for name, split in plan.splits.items()
    )
    print(f"{out} holds {NOUNS[plan.visual]}: {counts}.")
    if GALLERY in plan.splits:
        print(f"Index: hmgr-jax search index --workdir RUN --gallery {out} --out INDEX")
    if "train" not in plan.splits:
        return
    source = " --config.data.source=array_record" if "shard_bytes" in plan.about else ""
    command = f"hmgr-jax train --config {_recipe(plan)} --config.data.root={out}"
    print(f"Train: {command}{source}")


def _recipe(plan: Plan) -> str:
    if plan.visual == "video":
        tests = plan.splits["test"].captions if "test" in plan.splits else ()
        one = len(tests) == 1000 and all(len(of) == 1 for of in tests)
        return "msrvtt:hmgr-1ka" if one else "msrvtt"
    return "coco" if "testall" in plan.splits else "f8k"


if __name__ == "__main__":
    sys.exit(main())
