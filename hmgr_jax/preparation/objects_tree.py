"""Raw ModelNet: ``class/train/name.off`` and ``class/test/name.off``, and their conversion."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
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

SPLITS = ("train", "test")
UP = {
    "y": np.eye(3),
    "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
}
"""Rotations that turn the upward axis to y."""


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
    """Find all OFF files of the tree, by split, class and name.

    Raises:
        UserError: there is none.
    """
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
    """Prepare one object; returns an error message, empty on success.

    Points are drawn from the whole surface and views show it, whatever is left of its faces. What
    is random depends on the name alone. The file is whole or not there.
    """
    try:
        _write(task, making)
    except UserError as error:
        return str(error)
    except OSError as error:
        if error.filename and Path(error.filename) != task.path:
            raise  # a full disk is not the fault of an object
        return f"{task.path} cannot be read ({error.strerror or error})."
    except (ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        return f"{task.path} cannot be made into points, faces and views ({what})."
    return ""


def _write(task: Task, making: Making) -> None:
    stamp = task.path.stat().st_mtime_ns
    mesh = normalise(transform(read_off(task.path), UP[making.up]))
    rng = np.random.default_rng([zlib.crc32(task.name.encode()), zlib.crc32(task.split.encode())])
    points = sample_points(mesh, making.points, rng)
    fewer = simplify_mesh(mesh, making.faces)
    arrays = {
        "points": points,
        "face": face_features(fewer),
        "neighbor_index": edge_neighbours(fewer.faces),
    }
    views = render(mesh, cameras_around(making.views), making.size, ray_caster(mesh))
    task.file.parent.mkdir(parents=True, exist_ok=True)
    temporary = task.file.with_name(f".{task.file.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write_object(file, arrays, views)
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, ns=(stamp, stamp))
        os.replace(temporary, task.file)
    finally:
        temporary.unlink(missing_ok=True)


def classes_of(tasks: Sequence[Task]) -> list[str]:
    """Names of the classes, in order."""
    return sorted({task.name.partition("/")[0] for task in tasks})
