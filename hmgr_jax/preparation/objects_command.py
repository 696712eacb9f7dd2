"""The command line of ``hmgr_jax.prepare modelnet``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from hmgr_jax.command import Parser
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.modelnet import (
    LEFT_OUT,
    Making,
    Report,
    prepare_objects,
    usual_workers,
)
from hmgr_jax.preparation.plans import demand
from hmgr_jax.preparation.writing import Terminated

VIEWS, POINTS = 4, 1024
"""Per object, as the recipes expect."""
NAMED = 20
"""Number of skipped files that are printed; `LEFT_OUT` lists all."""


def run(arguments: Sequence[str], described: str) -> int:
    """Do what the command line says; the exit code: 0 also where some files were left out."""
    parser = Parser()
    counts = [field for field in dataclasses.fields(Making) if field.name != "up"]
    for name in ("source", "out"):
        parser.add_argument(f"--{name}")
    for field in counts:
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--up", default=Making.up)
    parser.add_argument("--workers", type=int, default=usual_workers())
    flags = parser.parse(arguments)
    if flags.help:
        print(described)
        return 0
    source, out = (Path(demand(flags, name)) for name in ("source", "out"))
    for name in (*(field.name for field in counts), "workers"):
        if getattr(flags, name) < 1:
            raise UserError(
                f"--{name} is {getattr(flags, name)} where a number from 1 was expected: correct "
                "it."
            )
    making = Making(**{field.name: getattr(flags, field.name) for field in counts}, up=flags.up)
    try:
        report = prepare_objects(source, out, making, flags.workers)
    except Terminated:
        print("error: Stopped by SIGTERM: the same command goes on.", file=sys.stderr, flush=True)
        return 143
    _tell(report, out, making)
    return 0


def _tell(report: Report, out: Path, making: Making) -> None:
    for why in list(report.left_out.values())[:NAMED]:
        print(f"warning: {why}", file=sys.stderr)
    if len(report.left_out) > NAMED:
        more = len(report.left_out) - NAMED
        print(f"warning: and {more} more, see {out / LEFT_OUT}.", file=sys.stderr)
    splits = ", ".join(f"{count:,} of {name}" for name, count in report.splits.items())
    print(f"{out} holds objects of {report.classes} classes: {splits}.")
    print(f"Made in this run: {report.fresh:,}; left out as unreadable: {len(report.left_out):,}.")
    recipe = "modelnet10" if report.classes == 10 else "modelnet40"
    command = f"python -m hmgr_jax.main --config configs/{recipe}.py --config.data.root={out}"
    print(f"Train: {command}{_smaller(making)}", flush=True)


def _smaller(making: Making) -> str:
    """Advice on recipe options for objects with fewer points, faces or views than defaults."""
    views = 1 if making.views == 1 else 2
    sizes = {
        "data.points": making.points if making.points < POINTS else None,
        "data.faces": making.faces if making.faces != Making.faces else None,
        "data.objects.views": views if making.views < VIEWS else None,
        "model.views_test": views if making.views < VIEWS else None,
    }
    return "".join(f" --config.{key}={size}" for key, size in sizes.items() if size)
