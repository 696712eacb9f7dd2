"""The folder of a run: a lock, and small files written atomically."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgr_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

RESULTS = "results.json"
"""The file of a run's test metrics."""
CONFIG = "config.json"
"""The file of a run's configuration."""


@contextlib.contextmanager
def lock(workdir: Path, flag: str = "--workdir") -> Iterator[None]:
    """Lock ``workdir`` (made if absent) for this process; ``flag`` is the option that names it.

    The kernel releases the lock when its holder ends, so it is never stale; the pid and host in
    ``.lock`` are only for the message. Raises UserError while another run holds the lock.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    # The file is never deleted, or a third run could lock a new file of the same name.
    descriptor = os.open(workdir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{workdir} is in use by {_holder(descriptor)}: wait for that run, stop it, or "
                f"give another {flag}."
            ) from None
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write ``obj`` as JSON; a reader or a crash finds either the old or the new file, complete.

    Raises ValueError for NaN and infinity, which JSON does not have; the old file then stays.
    """
    write_text_atomic(path, json.dumps(obj, indent=2, allow_nan=False) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` (UTF-8) atomically and durably."""
    with replacing(path) as file:
        file.write(text.encode())


def write_npy_atomic(path: Path, array: np.ndarray) -> None:
    """Replace the ``.npy`` at ``path`` atomically and durably."""
    with replacing(path) as file:
        write_npy(file, array)


def write_npy(file: BufferedWriter, array: np.ndarray) -> None:
    """Write an array as a ``.npy``.

    `numpy.save` does not notice that the last bytes were not written, as on a full disk.
    """
    import numpy as np  # the query of a running server writes no array, and starts quicker

    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, header)
    file.write(array.reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file that replaces ``path`` atomically and durably when the block succeeds."""
    with temporary_for(path) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    sync(path.parent)  # the new name is an entry of the folder


def link_atomic(link: Path, folder: Path) -> None:
    """Make ``link`` a symbolic link to ``folder``, atomically and durably."""
    with temporary_for(link) as temporary:
        temporary.symlink_to(folder, target_is_directory=True)
        os.replace(temporary, link)
    sync(link.parent)


@contextlib.contextmanager
def temporary_for(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder that will replace it; removed at the end.

    What a killed process of the same id has left there is removed too: in a container, a command
    has the same id every time. Errors of the system name ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
    except OSError as error:
        named = {str(name) for name in (error.filename, error.filename2) if name is not None}
        if error.errno is not None and (not named or str(temporary) in named):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise `UserError` if no file can be made in ``folder``; called before hours of work."""
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{folder} cannot be written, and the results belong there: change its permissions, or "
            "work on a copy of it."
        )


def _holder(descriptor: int) -> str:
    """The holder of the lock, which may not have written its pid yet."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another run"


def cache_folder() -> Path:
    """``hmgr_jax`` in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmgr_jax"


def partial_folder(out: Path) -> Path:
    """The folder in which ``out`` is written before it is renamed."""
    return out.with_name(f"{out.name}.partial")
