"""Convert weights: released ones to a run folder, a run to safetensors, a run to one small file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hmgr_jax.command import Parser, guarded, required
from hmgr_jax.errors import UserError
from hmgr_jax.training import recipe_file

CONVERSIONS = {
    "import": "make a run folder from a file or folder of weights; what export wrote needs no "
    "recipe",
    "export": "write the best step of a run, under official names where there are any",
    "pack": "write what searching with the best step of a run needs as one small file",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for an error the user can fix."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Convert what the command line says; the exit code."""
    overrides, others = recipe_file.split_overrides(arguments or ["--help"])
    flags = _parser().parse(others)
    if flags.conversion == "import":
        return _import(flags, overrides)
    if overrides:
        raise UserError(
            f"{flags.conversion} takes the run as it is: leave out "
            f"--config.{next(iter(overrides))}."
        )
    return _export(flags) if flags.conversion == "export" else _pack(flags)


def _parser() -> Parser:
    parser = Parser("hmgr-jax convert", __doc__)
    commands = parser.add_commands("conversion", CONVERSIONS)
    for name, metavar, text in (
        ("weights", "FILE", ".pth, .pt, .pth.tar, .safetensors or .npz"),
        ("folder", "DIR", "instead of --weights: a CLIP or SigLIP as transformers saves it"),
        ("config", "FILE[:SYSTEM]", "the recipe that the weights fit, as f30k:imram"),
        (
            "config.KEY",
            "VALUE",
            "any value of the recipe; else options of the training script that the file has count "
            "before the recipe",
        ),
        ("vocabulary", "FILE", "the vocabulary of the weights, .json in SCAN's layout"),
        ("workdir", "DIR", "the folder to make"),
        ("model", "NAME", "system whose official names the file has; without it the recipe's"),
    ):
        commands["import"].add_argument(f"--{name}", metavar=metavar, help=text)
    for name in ("export", "pack"):
        commands[name].add_argument("--workdir", metavar="DIR", help="a trained run")
        commands[name].add_argument("--out", metavar="FILE.safetensors", help="the file to make")
    commands["pack"].add_argument(
        "--stored",
        type=int,
        default=4096,
        metavar="INT",
        help="training items that the memory and the calibration hold (default: 4096)",
    )
    for name, metavar, text in (
        ("encoder", "SPEC", "what made the features of pictures, where the run does not keep it"),
        ("pca", "FILE.npz", "the PCA that followed it: mean and components"),
    ):
        commands["pack"].add_argument(f"--{name}", metavar=metavar, help=text)
    commands["pack"].add_argument(
        "--calibrate", action="store_true", help="calibrate scores, as eval.calibration=bank does"
    )
    return parser


def _import(flags: argparse.Namespace, overrides: Mapping[str, str | None]) -> int:
    workdir = required(flags, "workdir")
    if flags.folder:
        return _import_towers(flags, overrides)
    weights = required(flags, "weights")
    # Slow to import: after the options are known to be right.
    from hmgr_jax.conversion import weights as conversion

    recipe = flags.config
    if recipe and ":" not in recipe and flags.model:
        recipe = f"{recipe}:{flags.model}"
    config = recipe_file.load(recipe, overrides) if recipe else None
    conversion.import_weights(
        Path(weights),
        Path(workdir),
        config=config,
        overrides=overrides,
        vocabulary=Path(flags.vocabulary) if flags.vocabulary else None,
        model=flags.model,
    )
    return 0


def _import_towers(flags: argparse.Namespace, overrides: Mapping[str, str | None]) -> int:
    from hmgr_jax.conversion import towers
    from hmgr_jax.evaluation.tower_folder import MODEL, RECIPE

    if flags.weights or flags.vocabulary or flags.model != MODEL:
        raise UserError(
            f"--folder holds weights and tokens of --model {MODEL}: give that, and leave "
            "--weights and --vocabulary out."
        )
    recipe = flags.config or RECIPE
    towers.import_towers(Path(flags.folder), Path(flags.workdir), recipe, overrides)
    return 0


def _export(flags: argparse.Namespace) -> int:
    workdir, out = required(flags, "workdir"), required(flags, "out")
    from hmgr_jax.conversion import weights as conversion

    conversion.export_weights(Path(workdir), Path(out))
    return 0


def _pack(flags: argparse.Namespace) -> int:
    workdir, out = required(flags, "workdir"), Path(required(flags, "out"))
    if flags.stored < 1:
        raise UserError(f"--stored is {flags.stored}, but must be at least 1: correct it.")
    from hmgr_jax.evaluation import packed

    encoder = None
    if flags.encoder is not None:
        from hmgr_jax.data.pictures.pca import Pca
        from hmgr_jax.interop.picture_encoder import Encoder

        encoder = Encoder.of(flags.encoder, pca=Pca.read(flags.pca) if flags.pca else None)
    packed.pack(Path(workdir), out, flags.stored, calibrate=flags.calibrate, encoder=encoder)
    print(f"packed:    {workdir} as {out}, {out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
