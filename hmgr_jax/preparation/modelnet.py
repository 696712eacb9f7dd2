"""Convert raw ModelNet, ``class/{train,test}/name.off``, to a folder with one file per object.

The folder can be used once it has a manifest, which is written last. Run again, the command makes
only objects that are missing or have changed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hmgr_jax
from hmgr_jax.data.shapes3d.modelnet.prepared import OBJECTS
from hmgr_jax.data.shapes3d.render import load_embree
from hmgr_jax.data.shapes3d.simplify import load_trimesh
from hmgr_jax.errors import UserError
from hmgr_jax.files import manifest
from hmgr_jax.files.reading import parse_json
from hmgr_jax.files.workdir import lock, write_json_atomic, write_text_atomic
from hmgr_jax.preparation.modelnet_objects import UP, Making, Task, classes_of, find_objects, made
from hmgr_jax.preparation.writing import terminable
from hmgr_jax.progress import Progress

LEFT_OUT = "left_out.txt"
"""Objects that could not be prepared, one line each: the file and the reason."""


class Report(NamedTuple):
    """The outcome of a preparation."""

    splits: Mapping[str, int]
    """Objects in the folder now."""
    classes: int
    fresh: int
    """Objects made by this run."""
    left_out: Mapping[str, str]
    """{file below the source: what is wrong}."""


def prepare_objects(source: Path, out: Path, making: Making, workers: int) -> Report:
    """Make ``out`` from the OFF files below ``source``, resuming an interrupted attempt.

    Raises `UserError` for a wrong option, a missing extra, or if no object can be prepared.
    """
    if making.up not in UP:
        raise UserError(f"--up must be one of {', '.join(UP)}, got {making.up!r}: correct it.")
    load_trimesh()
    load_embree()
    if not source.is_dir():
        raise UserError(f"There is no folder {source}: give --source the folder of ModelNet.")
    tasks = find_objects(source, out)
    _check_out(out, making)
    with lock(out, "--out"), terminable():
        _check_no_others(out, tasks)
        todo = [task for task in tasks if not task.is_done()]
        known = _read_left_out(out)
        if not todo or {task.label for task in todo} == known.keys():
            again = {t.label: t.path.stat().st_mtime_ns for t in todo}
            if manifest.made_by(out) == _key(tasks, making, again):
                return _report(tasks, 0, known)
        return _make(out, making, tasks, todo, workers)


def _make(
    out: Path, making: Making, tasks: Sequence[Task], todo: Sequence[Task], workers: int
) -> Report:
    (out / manifest.MANIFEST).unlink(missing_ok=True)  # until all is there again
    about = dataclasses.asdict(making)
    write_json_atomic(out / manifest.PREPARED, {"command": "modelnet", "options": about})
    left_out: dict[str, str] = {}
    done = len(tasks) - len(todo)
    with Progress(len(tasks), "objects", done=done, stream=sys.stderr) as bar:
        for task, wrong in made(todo, making, workers):
            if wrong:
                left_out[task.label] = wrong
                task.file.unlink(missing_ok=True)  # of the file as it was before
            bar.advance(1)
    kept = [task for task in tasks if task.label not in left_out]
    if not kept:
        first = next(iter(left_out.values()))
        raise UserError(f"None of the {len(tasks)} objects can be prepared, for instance: {first}")
    _finish(out, making, tasks, kept, dict(sorted(left_out.items())))
    return _report(kept, len(todo) - len(left_out), dict(sorted(left_out.items())))


def _finish(
    out: Path,
    making: Making,
    tasks: Sequence[Task],
    kept: Sequence[Task],
    left_out: Mapping[str, str],
) -> None:
    """Write the list of skipped files, the options and, last, the manifest."""
    for unfinished in out.rglob(".*.tmp"):  # of a process that was killed
        unfinished.unlink()
    lines = [f"{name}\t{why}\n" for name, why in left_out.items()]
    write_text_atomic(out / LEFT_OUT, "".join(lines))
    names = [task.file.relative_to(out).as_posix() for task in kept]
    splits = list(dict.fromkeys(task.split for task in kept))
    described = {
        "format": manifest.FORMAT,
        "classes": classes_of(kept),
        "objects": {s: [task.name for task in kept if task.split == s] for s in splits},
        **{key: value for key, value in dataclasses.asdict(making).items() if key != "up"},
        "files": manifest.listed(out, [*names, LEFT_OUT]),
    }
    stamps = {t.label: t.path.stat().st_mtime_ns for t in tasks if t.label in left_out}
    about: dict[str, Any] = {"command": "modelnet", "options": dataclasses.asdict(making)}
    about |= {"key": _key(tasks, making, stamps), "version": hmgr_jax.__version__}
    write_json_atomic(out / manifest.PREPARED, about)
    write_json_atomic(out / manifest.MANIFEST, described)


def _key(tasks: Sequence[Task], making: Making, left_out: Mapping[str, int]) -> str:
    """The key of a complete preparation: its objects, options and unreadable files."""
    about = [dataclasses.asdict(making), [task.label for task in tasks], dict(left_out)]
    return manifest.digest(json.dumps(about, sort_keys=True))


def _check_out(out: Path, making: Making) -> None:
    """Check that ``out`` is empty or was begun with the same options."""
    if not out.exists() or (out.is_dir() and not any(out.glob("[!.]*"))):
        return
    try:
        found = parse_json((out / manifest.PREPARED).read_text("utf-8"))
        options = found["options"] if found["command"] == "modelnet" else None
    except (OSError, ValueError, KeyError, TypeError):
        options = None
    if options is None:
        raise UserError(
            f"{out} exists and was not made by hmgr_jax.prepare modelnet: give another --out or "
            "move it away."
        )
    wanted = dataclasses.asdict(making)
    other = [f"--{k} {options.get(k)}" for k in wanted if options.get(k) != wanted[k]]
    if other:
        raise UserError(
            f"{out} was begun with {' '.join(other)}: give the same options, or another --out."
        )


def _check_no_others(out: Path, tasks: Sequence[Task]) -> None:
    """Check that the source has every object of the folder."""
    wanted = {task.file for task in tasks}
    others = sorted(set((out / OBJECTS).glob("*/*/[!.]*.npz")) - wanted)
    if others:
        raise UserError(
            f"{out} holds {others[0].relative_to(out)}, of which --source has no OFF file "
            f"({len(others)} such objects): give the same --source, another --out, or remove them."
        )


def _read_left_out(out: Path) -> dict[str, str]:
    try:
        lines = (out / LEFT_OUT).read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {name: why for name, _, why in (line.partition("\t") for line in lines)}


def _report(tasks: Sequence[Task], fresh: int, left_out: Mapping[str, str]) -> Report:
    kept = [task for task in tasks if task.label not in left_out]
    splits = {s: sum(t.split == s for t in kept) for s in dict.fromkeys(t.split for t in kept)}
    return Report(splits, len(classes_of(kept)), fresh, left_out)
