"""Write a plan to a folder: row by row under a temporary name, renamed when complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import hmgr_jax
from hmgr_jax.data.regions.row_arrays import COUNTS
from hmgr_jax.errors import UserError
from hmgr_jax.files import manifest
from hmgr_jax.files.workdir import lock, partial_folder, write_json_atomic, write_text_atomic
from hmgr_jax.preparation.plan import FEATURES, NOUNS, Chunk, Plan
from hmgr_jax.preparation.row_file import PROGRESS, RowFile, Written, to_half
from hmgr_jax.progress import Progress

SAVE_SECONDS = 5.0
"""The most work that a kill can lose, in seconds."""
Files = Mapping[str, Mapping[str, RowFile]]


class Layout(NamedTuple):
    """How a plan is stored on the disk."""

    units: Callable[[Plan], Mapping[str, int]]
    """Number of units per split, each written atomically."""
    arrays: Callable[[Plan], Plan]
    """The plan with only the arrays stored in ``.npy`` files."""
    fill: Callable[[Path, Plan, Files, Written], list[str]]
    """Write the missing units; returns the names of all files except ``.npy`` and captions."""


class Terminated(BaseException):
    """SIGTERM was received; written rows are kept and the same command resumes."""


def check_free(out: Path, key: str) -> bool:
    """Whether ``out`` must be made; False if complete, `UserError` if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return True
    if manifest.made_by(out) == key:
        return False
    raise UserError(
        f"{out} exists and is not this preparation: give another --out or move it away."
    )


def write(plan: Plan, out: Path, layout: Layout | None = None) -> bool:
    """Make ``out`` according to ``plan``, resuming an interrupted attempt.

    If it ends early, the written rows are recorded in ``{out}.partial``. ``layout`` is `ROWS` by
    default. Returns False if ``out`` was complete already. Raises `UserError` if ``out`` holds
    something else, the disk has no room, or a row is bad.
    """
    key = plan.key(whole=True)
    if not check_free(out, key):
        return False
    partial = partial_folder(out)
    with lock(partial, "--out"), terminable():
        if not check_free(out, key):  # another process has made it meanwhile
            shutil.rmtree(partial)
            return False
        layout = layout or ROWS
        written = Written(partial, plan.key(whole=False), layout.units(plan))
        names = _write_texts(partial, plan) + plan.source.begin(partial)
        files = _open_files(partial, layout.arrays(plan), written)
        names += [f"{split}_{end}.npy" for split, found in files.items() for end in found]
        try:
            names += layout.fill(partial, plan, files, written)
        finally:
            for file in _each(files):
                file.close()
        plan.source.end(partial)
        described = describe(partial, names, plan)
        made = {"key": key, "version": hmgr_jax.__version__, **plan.about}
        write_json_atomic(partial / manifest.PREPARED, made)
        write_json_atomic(partial / manifest.MANIFEST, described)
        for unfinished in partial.rglob(".*.tmp"):  # of a process that was killed
            unfinished.unlink()
        os.replace(partial, out)
        for name in (PROGRESS, ".lock"):
            (out / name).unlink()
    return True


def describe(folder: Path, files: list[str], plan: Plan) -> dict[str, Any]:
    """The manifest of ``files`` (names in ``folder``) written by ``plan``.

    Of videos, images are videos and regions are frames.
    """
    splits = {}
    for name, split in plan.splits.items():
        regions, size = split.arrays[FEATURES].shape
        counts = [len(captions) for captions in split.captions]
        splits[name] = {
            "images": len(split),
            "captions": sum(counts),
            "captions_per_image": [min(counts), max(counts)],
            "regions": regions,
            "regions_per_image": _least_and_most(folder / f"{name}_{COUNTS}.npy", regions),
            "features": size,
        }
    listed = manifest.listed(folder, files)
    return {"format": manifest.FORMAT, **plan.source.described(), "splits": splits, "files": listed}


def _least_and_most(counts: Path, regions: int) -> list[int]:
    """Minimum and maximum of true regions; all are true without a file of counts."""
    if not counts.is_file():
        return [regions, regions]
    found = np.load(counts)
    return [int(found.min()), int(found.max())]


def _open_files(folder: Path, plan: Plan, written: Written) -> Files:
    """Open the files of all arrays; a split with a new file counts as unwritten."""
    planned = {
        folder / f"{name}_{end}.npy": len(split) * array.row_bytes
        for name, split in plan.splits.items()
        for end, array in split.arrays.items()
    }
    there = sum(path.stat().st_blocks * 512 for path in planned if path.exists())
    check_room(folder, sum(planned.values()) - there)  # the files are sparse
    for path in folder.glob("*.npy"):
        if path not in planned:  # counts that a replaced source file no longer needs
            path.unlink()
    files = {
        name: {
            end: RowFile(folder / f"{name}_{end}.npy", len(split), array)
            for end, array in split.arrays.items()
        }
        for name, split in plan.splits.items()
    }
    for name, found in files.items():
        if any(file.fresh for file in found.values()):
            written.done[name][:] = False
    return files


def check_room(folder: Path, wanted: int) -> None:
    """Check the free space before the work of hours; ``wanted`` is in bytes."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{folder} needs {wanted / 1e9:,.1f} GB more where {free / 1e9:,.1f} GB are free: make "
            "room or give an --out on another disk."
        )


def _fill(folder: Path, plan: Plan, files: Files, written: Written) -> list[str]:
    """Write all missing rows."""
    for name, changed in plan.source.changed(written.begun).items():
        written.done[name] &= ~changed
    total = sum(len(split) for split in plan.splits.values())
    saved = time.monotonic()
    with Progress(total, NOUNS[plan.visual], done=written.count(), stream=sys.stderr) as bar:
        try:
            for chunk in plan.source.chunks(written.todo()):
                _write_chunk(chunk, files[chunk.split])
                written.done[chunk.split][chunk.rows] = True
                bar.advance(len(chunk.rows))
                if time.monotonic() - saved >= SAVE_SECONDS:
                    _save(files, written)
                    saved = time.monotonic()
        finally:
            _save(files, written)
    for name, todo in written.todo().items():
        if todo.any():
            first = plan.splits[name].ids[int(np.flatnonzero(todo)[0])]
            raise RuntimeError(f"the source gave no features of {first} of {name}")
    return []


def _units(plan: Plan) -> dict[str, int]:
    return {name: len(split) for name, split in plan.splits.items()}


ROWS = Layout(_units, lambda plan: plan, _fill)
"""All arrays in ``.npy`` files, written image by image; the fastest layout for training."""


def _write_chunk(chunk: Chunk, files: Mapping[str, RowFile]) -> None:
    for end, file in files.items():
        values = chunk.arrays[end]
        file.write(chunk.rows, to_half(values, chunk.where) if end == FEATURES else values)


def _save(files: Files, written: Written) -> None:
    """Sync the rows, then save the record, which names only rows on the disk."""
    for file in _each(files):
        file.sync()
    written.save()


def _each(files: Files) -> Iterator[RowFile]:
    for found in files.values():
        yield from found.values()


def _write_texts(folder: Path, plan: Plan) -> list[str]:
    """Write captions, ids and word graphs of every split; returns the names of the files."""
    names = []
    for name, split in plan.splits.items():
        pairs = list(zip(split.ids, split.captions, strict=True))
        texts = {"ids": split.ids, "caps": [line for _, captions in pairs for line in captions]}
        if not texts["caps"]:  # a gallery
            del texts["caps"]
        if len({len(captions) for captions in split.captions}) > 1:
            texts["cap_ids"] = [image for image, captions in pairs for _ in captions]
        for end, lines in texts.items():
            write_text_atomic(folder / f"{name}_{end}.txt", "".join(f"{x}\n" for x in lines))
            names.append(f"{name}_{end}.txt")
        if split.graphs:
            names.append(f"{name}{manifest.GRAPHS}")
            write_text_atomic(folder / names[-1], split.graphs.read_bytes().decode("utf-8"))
    return names


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        former = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: Python allows no handlers there
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if former is None else former)
