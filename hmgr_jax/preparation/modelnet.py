"""Convert raw ModelNet, ``class/{train,test}/name.off``, to a folder with one file per object.

The folder can be used once it has a manifest, which is written last. Run again, the command makes
only objects that are missing or have changed.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hmgr_jax
from hmgr_jax.data.shapes3d.mesh import (
    edge_neighbours,
    face_features,
    normalise,
    sample_points,
    transform,
)
from hmgr_jax.data.shapes3d.modelnet.prepared import OBJECTS, object_file, write_object
from hmgr_jax.data.shapes3d.off import read_off
from hmgr_jax.data.shapes3d.render import cameras_around, load_embree, ray_caster, render
from hmgr_jax.data.shapes3d.simplify import load_trimesh, simplify_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.files import manifest
from hmgr_jax.files.reading import parse_json
from hmgr_jax.files.workdir import lock, replacing, write_json_atomic, write_text_atomic
from hmgr_jax.preparation.writing import terminable
from hmgr_jax.progress import Progress
from hmgr_jax.workers import begin_worker

SPLITS = ("train", "test")
UP = {
    "y": np.eye(3),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}
"""Rotations that turn the upward axis to y."""

AHEAD = 2
"""Objects in the queue, as a multiple of the processes."""
BROUGHT_DOWN = "{} brought down the process that prepared it, perhaps for want of memory."


@dataclass(frozen=True)
class Making:
    """Options of the conversion."""

    points: int = 2048
    faces: int = 1024
    views: int = 12
    size: int = 256
    """Size of a view in pixels."""
    up: str = "z"
    """The upward axis of the files; z in ModelNet."""


class Task(NamedTuple):
    """One object: its file, its name ``class/object``, and its output folder."""

    path: Path
    split: str
    name: str
    out: Path

    @property
    def file(self) -> Path:
        """The prepared object."""
        return object_file(self.out, self.split, self.name)

    @property
    def label(self) -> str:
        """Its path below the source."""
        kind, _, _ = self.name.partition("/")
        return f"{kind}/{self.split}/{self.path.name}"

    def is_done(self) -> bool:
        """Whether it was made from the current file, by its modification time."""
        try:
            return self.file.stat().st_mtime_ns == self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return False


def find_objects(source: Path, out: Path) -> list[Task]:
    """Find all OFF files of the tree, by split, class and name; raises `UserError` if none."""
    found = [
        Task(path, split, f"{path.parts[-3]}/{path.stem}", out)
        for split in SPLITS
        for path in sorted(source.glob(f"*/{split}/*"))
        if path.suffix.lower() == ".off" and not path.name.startswith(".")
    ]
    if not found:
        raise UserError(
            f"{source} holds no class/train/name.off and class/test/name.off: give --source the "
            "folder of ModelNet that holds the folders of classes."
        )
    return found


def make_object(task: Task, making: Making) -> str:
    """Prepare one object atomically; returns an error message, empty on success.

    Points and views show the whole surface. Random draws depend on the name alone.
    """
    try:
        stamp = task.path.stat().st_mtime_ns
        arrays, views = _made_of(task, making)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{task.path} cannot be read ({error.strerror or error})."
    except (ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        return f"{task.path} cannot be made into points, faces and views ({what})."
    _write(task, stamp, arrays, views)
    return ""


def _made_of(task: Task, making: Making) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays and views of an object."""
    mesh = normalise(transform(read_off(task.path), UP[making.up]))
    rng = np.random.default_rng([zlib.crc32(task.name.encode()), zlib.crc32(task.split.encode())])
    points = sample_points(mesh, making.points, rng)
    fewer = simplify_mesh(mesh, making.faces)
    arrays = {
        "points": points,
        "face": face_features(fewer),
        "neighbor_index": edge_neighbours(fewer.faces),
    }
    return arrays, render(mesh, cameras_around(making.views), making.size, ray_caster(mesh))


def _write(task: Task, stamp: int, arrays: dict[str, np.ndarray], views: np.ndarray) -> None:
    """Write an object; a full disk is not its fault, and ends the preparation.

    Raises:
        UserError: it cannot be written.
    """
    try:
        task.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(task.file) as file:
            write_object(file, arrays, views)
            file.flush()
            os.utime(file.fileno(), ns=(stamp, stamp))
    except OSError as error:
        size = sum(x.nbytes for x in (*arrays.values(), views))
        free = shutil.disk_usage(task.out).free
        raise UserError(
            f"{task.file} cannot be written ({error.strerror or error}): it takes up to {size:,} "
            f"bytes where {free:,} are free, so make room and run the same command again."
        ) from None


def classes_of(tasks: Sequence[Task]) -> list[str]:
    """Names of the classes, in order."""
    return sorted({task.name.partition("/")[0] for task in tasks})


def made(tasks: Sequence[Task], making: Making, workers: int) -> Iterator[tuple[Task, str]]:
    """Yield every finished task with its error message (see `make_object`)."""
    if workers == 1:
        for task in tasks:
            yield task, make_object(task, making)
        return
    waiting = deque(tasks)
    while waiting:  # again where a pool was brought down
        suspects: list[Task] = []
        yield from _in_pool(waiting, making, min(workers, len(waiting)), suspects)
        for task in suspects:
            yield task, _alone(task, making)


def _in_pool(
    waiting: deque[Task], making: Making, workers: int, suspects: list[Task]
) -> Iterator[tuple[Task, str]]:
    """Run ``waiting`` until it is empty or a process dies; ``suspects`` then are what ran."""
    running: dict[Future[str], Task] = {}
    pool = _pool(workers)
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * workers:
                task = waiting.popleft()
                running[pool.submit(make_object, task, making)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running[future], future.result()
                del running[future]
    except BrokenProcessPool:
        suspects += running.values()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(task: Task, making: Making) -> str:
    """Run one task in a process of its own."""
    if task.is_done():  # it had come to its end before the other one fell
        return ""
    pool = _pool(1)
    try:
        return pool.submit(make_object, task, making).result()
    except BrokenProcessPool:
        return BROUGHT_DOWN.format(task.path)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


def usual_workers() -> int:
    """The number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
