"""Data as people have it becomes a folder to train on.

``python -m hmgr_jax.prepare scan`` checks a SCAN, VSRN or IMRAM folder, stores every image once and
in float16:

    --source DIR                 {split}_ims.npy or _feat.npy, _caps.txt, _ids.txt, and what there
                                 is of _boxes.npy, _counts.npy, _labels.npy, _scores.npy, _wh.npy
                                 and _caps.conllu
    --out DIR                    the folder to make
    --splits train,dev,test      by default all that the folder holds
    --captions-per-image N       where rows repeat but there are no ids

``python -m hmgr_jax.prepare array-record`` makes a TFDS dataset in ArrayRecord files, for
--config.data.source=array_record and for ``tfds.builder_from_directory``, from such a folder, raw
or prepared, with all that it holds of regions; features keep their precision. Word graphs are put
beside the records, where array_record reads them and tfds does not. It takes the four options of
scan and no others.

``python -m hmgr_jax.prepare bottom-up`` reads the base64 TSV of bottom-up attention (6 columns, or
10 with objects and attributes):

    --source FILE.tsv[.gz] ...   one or several, in any order of images
    --captions FILE              dataset_X.json of Karpathy, or other captions as below
    --out DIR

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
    --captions FILE ...          .csv or .jsonl with the columns image and caption, a caption a row,
                                 perhaps a column split; or COCO's captions_X.json; or Karpathy's
                                 JSON; a file a split is given as train=FILE dev=FILE test=FILE
    --dev 0.1 --test 0.1         shares of the pictures, where nothing says their splits
    --out DIR

``python -m hmgr_jax.prepare msrvtt`` joins MSR-VTT's captions with videos or features of them; the
folder is trained on with --config.data.visual=video:

    --json FILE ...              videodatainfo.json, or train_val_videodatainfo.json and
                                 test_videodatainfo.json: its own splits
    --csv FILE                   MSRVTT_JSFUSION_test.csv: 1k-A; its rows are the test split, all
                                 other videos of --json train and dev
    --names DIR                  {trn,val,tst}_names.npy of HGR, with --json ref_captions.json
    --features PATH              a folder with a .npy a video [frames, features], or a .h5 with one
                                 dataset a video (--array, --ids as for karpathy)
    --videos DIR                 in place of --features: clips, decoded with PyAV (the extra video);
                                 no pretrained network comes with hmgr_jax: a frame is described
                                 as pictures are
    --grid 2                     patches a side of a frame; they are put side by side
    --frames 20                  at most so many frames of a video, spread evenly
    --dev 0.05                   with --csv: share or number of the other videos held out for dev
    --out DIR

``python -m hmgr_jax.prepare modelnet`` makes points, faces and views of meshes in OFF files (the
extra shapes); files that cannot be read are named and left out, and a second run makes what is
missing:

    --source DIR                 class/train/name.off and class/test/name.off, as ModelNet has them
    --points 2048                on the surface of each object
    --faces 1024                 at most so many; meshes of more are simplified
    --views 12                   rendered around each object
    --size 256                   pixels a side of a view
    --up z                       the axis of the files that points upwards, y or z
    --workers N                  processes; by default as many as there are cores
    --out DIR

``python -m hmgr_jax.prepare dependencies`` parses the captions of a folder and writes the word
graphs that ``resg`` reads, {split}_caps.conllu (CoNLL-U) beside {split}_caps.txt:

    --root DIR                   the folder
    --splits train,dev,test      by default all that the folder holds
    --parser en_core_web_sm      a model of spaCy, installed by hand after pip install '.[parse]'
    --check                      parse nothing: hold files made elsewhere against the captions, and
                                 list them in the manifest of a prepared folder

Options of bottom-up, karpathy and folder:

    --key NAME                   what the ids of the features are: filename, stem, cocoid, padded
                                 or imgid; by default whichever of them fits all images
    --captions-per-image N       keep the first N captions of an image or video

Options of bottom-up, karpathy and folder:

    --restval                    take the images of Karpathy's split restval into train
    --regions N                  keep at most the first N regions of an image; images with fewer are
                                 filled up with zeros, and {split}_counts.npy says how many are true

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
    "array-record": ("source", "out", "splits", "captions-per-image"),
    "bottom-up": ("source", "captions", "out", "regions", "dev", "test", *JOINING),
    "karpathy": ("json", "features", "ids", "array", "no-boxes", "regions", "out", *JOINING),
    "folder": (
        *("pictures", "grid", "features", "ids", "array", "no-boxes", "captions", "dev", "test"),
        *("regions", "out", *JOINING),
    ),
    "msrvtt": (
        *("json", "csv", "names", "features", "ids", "array", "videos", "grid", "frames", "dev"),
        *("out", "key", "captions-per-image"),
    ),
}
SEVERAL = {"bottom-up": ("source", "captions"), "folder": ("captions",), "msrvtt": ("json",)}
"""Flags that take several values, and may be repeated."""
PARSING = ("root", "splits", "parser")
COUNTS = ("captions-per-image", "regions", "grid", "frames")
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
    if verb in ALONE:
        return ALONE[verb](rest)
    if verb not in VERBS:
        known = ", ".join([*VERBS, *ALONE])
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
        "msrvtt": plans.msrvtt,
    }
    layout = writing.ROWS
    if verb == "array-record":
        from hmgr_jax.preparation import tfds_builder  # which loads tensorflow-datasets

        makers[verb], layout = tfds_builder.array_record, tfds_builder.RECORDS
    out = Path(plans.demand(flags, "out"))
    try:
        plan = makers[verb](flags)
        made = writing.write(plan, out, layout)
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
            share = None if verb == "msrvtt" else 0.1
            parser.add_argument(f"--{name}", type=float, default=share)
        elif name in SEVERAL.get(verb, ()):
            parser.add_argument(f"--{name}", nargs="+", action="extend")
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
    from hmgr_jax.files import manifest

    print(manifest.verify(Path(flags.verify)))
    return 0


def _dependencies(arguments: Sequence[str]) -> int:
    parser = Parser()
    for name in PARSING:
        parser.add_argument(f"--{name}")
    parser.add_argument("--check", action="store_true")
    flags = parser.parse(arguments)
    if flags.help:
        print(__doc__)
        return 0
    from hmgr_jax.preparation import dependencies, plans

    root = Path(plans.demand(flags, "root"))
    if flags.check:
        if flags.parser:
            raise UserError(
                "--check parses nothing, so --parser has no say: leave one of them out."
            )
        for path, count, listed in dependencies.check(root, flags.splits):
            told = ", and is listed in the manifest" if listed else ""
            print(f"{path} fits its {count:,} captions{told}.", flush=True)
        return 0
    for path, count in dependencies.write(root, flags.splits, flags.parser):
        print(f"{path} holds the word graphs of {count:,} captions.", flush=True)
    return 0


def _modelnet(arguments: Sequence[str]) -> int:
    from hmgr_jax.preparation import objects_command

    return objects_command.run(arguments, __doc__ or "")


ALONE: dict[str, Callable[[Sequence[str]], int]] = {
    "dependencies": _dependencies,
    "modelnet": _modelnet,
}
"""Preparations that are no plan of rows."""


def _report(plan: Plan, out: Path, made: bool) -> None:
    from hmgr_jax.preparation.plan import NOUNS

    if not made:
        print(f"{out} was prepared already, whole; --verify {out} checks it.")
        return
    counts = ", ".join(
        f"{len(split):,} of {name} ({sum(map(len, split.captions)):,} captions)"
        for name, split in plan.splits.items()
    )
    print(f"{out} holds {NOUNS[plan.visual]}: {counts}.")
    if "train" not in plan.splits:
        return
    source = " --config.data.source=array_record" if "shard_bytes" in plan.about else ""
    command = f"python -m hmgr_jax.main --config {_recipe(plan)} --config.data.root={out}"
    print(f"Train: {command}{source}")


def _recipe(plan: Plan) -> str:
    if plan.visual == "video":
        tests = plan.splits["test"].captions if "test" in plan.splits else ()
        one = len(tests) == 1000 and all(len(of) == 1 for of in tests)
        return "configs/msrvtt.py:hmgr-1ka" if one else "configs/msrvtt.py"
    return "configs/coco.py" if "testall" in plan.splits else "configs/f8k.py"


if __name__ == "__main__":
    sys.exit(main())
