"""One object of ModelNet from its OFF file: points, faces and views, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hmgr_jax.data.shapes3d.mesh import (
    edge_neighbours,
    face_features,
    normalise,
    sample_points,
    transform,
)
from hmgr_jax.data.shapes3d.modelnet.prepared import object_file, write_object
from hmgr_jax.data.shapes3d.off import read_off
from hmgr_jax.data.shapes3d.render import cameras_around, ray_caster, render
from hmgr_jax.data.shapes3d.simplify import simplify_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import replacing
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
