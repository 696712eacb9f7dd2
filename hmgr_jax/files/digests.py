"""sha256 of files, since an array with a flipped bit loads without an error.

A file of digests is sealed: it holds the sha256 of its own contents, so that damage to it is not
taken for damage to the files that it lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import CONFIG, RESULTS, write_json_atomic

SEAL = "sha256"
RUN = Path("digests", "run.json")
"""The digests of the single files of a run's folder; those of a checkpoint have its step's name."""
OF_RUN = (CONFIG, "tables.npz", "metrics.jsonl", RESULTS)


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the sha256 of its contents, for `unseal`."""
    return {**content, SEAL: _of_content(content)}


def unseal(found: Any, known: Collection[str] = ()) -> dict[str, Any]:
    """The contents of a JSON object that `seal` returned.

    An object without a seal, as older versions wrote it, may hold the keys ``known``.

    Raises:
        ValueError: it is no object, it was changed, or it has neither a seal nor known keys only.
    """
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} instead of an object")
    content = {name: value for name, value in found.items() if name != SEAL}
    if SEAL in found and found[SEAL] != _of_content(content):
        raise ValueError("its contents do not match their sha256")
    if SEAL not in found and not content.keys() <= set(known):
        raise ValueError("it has no sha256 of its contents")
    return content


def _of_content(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(folder: Path, digest_file: Path, names: Iterable[str] | None = None, **more: Any) -> None:
    """Write size and sha256 of files in ``folder`` to ``digest_file``, atomically.

    Args:
        folder: the files are in it.
        digest_file: the file to write, sealed.
        names: names in ``folder``; by default all files.
        **more: further JSON values, covered by the seal.
    """
    if names is None:
        paths = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(folder).as_posix() for path in paths)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }
    digest_file.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(digest_file, seal({"files": files, **more}))


def read(digest_file: Path) -> dict[str, Any] | None:
    """What `write` wrote; None if the file is missing or damaged: then nothing can be verified."""
    try:
        found = unseal(json.loads(digest_file.read_bytes()), known=("files",))
        files = {
            str(name): {**entry, "bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in found["files"].items()
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return {**found, "files": files}


def first_damage(
    folder: Path, files: Mapping[str, Mapping[str, Any]], *, hash_all: bool = False
) -> str | None:
    """Describe the first file of ``folder`` that is missing or altered; None if there is none.

    Sizes are checked first: they cost nothing and tell a truncated file from a flipped bit. A file
    whose entry has ``mtime_ns`` is hashed only if its modification time differs, or with
    ``hash_all``.
    """
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{path} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
    for name, wanted in files.items():
        unchanged = wanted.get("mtime_ns") == (folder / name).stat().st_mtime_ns
        if (hash_all or not unchanged) and sha256(folder / name) != wanted["sha256"]:
            return f"{folder / name} does not match its sha256"
    return None


def write_run(workdir: Path) -> None:
    """Write the digests of the files of a run: at its start, and when its results are written."""
    write(workdir, workdir / RUN, [name for name in OF_RUN if (workdir / name).is_file()])


def check_run(workdir: Path, name: str, advice: str) -> None:
    """Check a file of a run's folder, if it exists and its digest is known.

    Raises:
        UserError: the file was changed; the message ends with ``advice``.
    """
    known = read(workdir / RUN) or {"files": {}}
    listed = {name: known["files"][name]} if name in known["files"] else {}
    if (workdir / name).is_file() and (damage := first_damage(workdir, listed)):
        raise UserError(f"{damage}, so it was changed after the run wrote it: {advice}.")


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
