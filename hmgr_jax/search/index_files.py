"""The folder of an index: ``index.json`` (the manifest), ``items.jsonl`` and the engine's files.

The folder is written under another name and renamed when it is complete. The manifest lists size,
sha256 and modification time of every file, and is sealed by its own sha256. A query hashes only
files whose time has changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.files import digests
from hmgr_jax.files.manifest import listed
from hmgr_jax.files.workdir import lock, partial_folder, sync, write_json_atomic, write_text_atomic

MANIFEST, ITEMS, COMMAND = "index.json", "items.jsonl", "command.txt"
VERSIONS = "versions"
"""The folder of the versions of an index, see `hmgr_jax.search.versions`."""
FORMAT = 1
TYPES: dict[str, type] = {
    "version": str,
    "about": dict,
    "engine": dict,
    "deleted": list,
    "files": dict,
}
ABOUT: dict[str, type] = {"model": str, "engine": str, "dim": int, "count": int}
ABOUT_RUN: dict[str, type] = {
    "workdir": str,
    "system": str,
    "modality": str,
    "split": str,
    "candidates": int,
}
"""Types of the values of a manifest, and of its ``about``; those of a run may be missing."""
Built = TypeVar("Built")


class Found(NamedTuple):
    """The contents of a folder besides the engine's files."""

    about: dict[str, Any]
    engine: dict[str, Any]
    items: list[list[str]]
    deleted: list[int]


def write(
    folder: Path,
    items: Iterable[Sequence[str]],
    deleted: list[int],
    about: dict[str, Any],
    fill: Callable[[Path], dict[str, Any]],
    command: str,
) -> None:
    """Write ``folder``; ``fill`` writes the engine's files and returns their manifest entry.

    Raises:
        UserError: the folder exists, or another process is writing it.
    """
    _check_new(folder)
    partial = partial_folder(folder)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with lock(partial, "--out"):
        _make_empty(partial)
        write_text_atomic(partial / COMMAND, command)
        lines = (json.dumps(list(item), ensure_ascii=False) + "\n" for item in items)
        with (partial / ITEMS).open("wb") as file:  # names of files may be no UTF-8
            file.writelines(line.encode("utf-8", "surrogateescape") for line in lines)
        engine = fill(partial)
        names = [path.relative_to(partial).as_posix() for path in _files(partial)]
        manifest = {
            "format": FORMAT,
            "version": hmgr_jax.__version__,
            "about": about,
            "engine": engine,
            "deleted": deleted,
            "files": {
                name: {**entry, "mtime_ns": (partial / name).stat().st_mtime_ns}
                for name, entry in listed(partial, names).items()
            },
        }
        for name in names:
            sync(partial / name)
        write_json_atomic(partial / MANIFEST, digests.seal(manifest))
        _check_new(folder)
        os.replace(partial, folder)
        (folder / ".lock").unlink()
    sync(folder.parent)


def read(folder: Path, model: str | None, *, verify: bool = False) -> Found:
    """The manifest and the items of an index; ``verify`` hashes every file.

    Raises:
        UserError: there is no index, it is incomplete or damaged, or of another format or model.
    """
    manifest = manifest_of(folder)
    about = manifest["about"]
    if model is not None and about["model"] != model:
        raise UserError(
            f"{folder} was built with model {about['model']}, but this run is model {model}, and "
            f"their vectors are not comparable: build an index with this run.{_advice(folder)}"
        )
    damage = digests.first_damage(folder, manifest["files"], hash_all=verify)
    if damage is not None:
        raise UserError(f"The index is damaged: {damage}.{_advice(folder)}")
    items = _read_items(folder)
    if len(items) - len(manifest["deleted"]) != about["count"]:
        raise UserError(
            f"{folder} holds {len(items)} items, but its manifest counts {about['count']} and "
            f"{len(manifest['deleted'])} deleted ones.{_advice(folder)}"
        )
    return Found(about, manifest["engine"], items, manifest["deleted"])


def manifest_of(folder: Path) -> dict[str, Any]:
    """The contents of ``index.json``.

    Raises:
        UserError: there is no index, it is incomplete, or of another format.
    """
    if not folder.is_dir():
        partial = partial_folder(folder)
        if partial.is_dir():
            raise UserError(f"{folder} is incomplete.{_advice(partial)}")
        raise UserError(
            f"There is no index {folder}: build one with python -m hmgr_jax.search index "
            f"--workdir RUN --out {_whole(folder)}"
        )
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        number = int(found["format"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{folder} holds no complete index ({MANIFEST}).{_advice(folder)}"
        ) from None
    if number != FORMAT:
        raise UserError(f"{folder} has format {number}, expected {FORMAT}.{_advice(folder)}")
    try:
        manifest = digests.unseal(found, known=(*TYPES, "format"))
        _check_types(manifest)
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{folder / MANIFEST} is damaged ({why}).{_advice(folder)}") from None
    return manifest


def check_unchanged(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise `UserError` if the index in ``folder`` is no longer that of ``manifest``."""
    if manifest_of(folder) != manifest:
        raise UserError(f"{folder} was replaced while it was read: run the same command again.")


def _check_types(manifest: dict[str, Any]) -> None:
    """Raise KeyError or TypeError unless all values are there and of their types."""
    about, files, deleted = manifest["about"], manifest["files"], manifest["deleted"]
    for name, kind in TYPES.items():
        _check_type(name, manifest[name], kind)
    for name, kind in (ABOUT | ABOUT_RUN).items():
        if name in ABOUT or name in about:
            _check_type(name, about[name], kind)
    for number in deleted:
        _check_type("deleted", number, int)
    for name, entry in files.items():
        _check_type(name, entry, dict)
        _check_type("bytes", entry["bytes"], int)
        _check_type("sha256", entry["sha256"], str)


def _check_type(name: str, value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise TypeError(f"{name} is {value!r:.40}, no {kind.__name__}")


def _read_items(folder: Path) -> list[list[str]]:
    """The items, each id, caption, picture and owner."""
    try:
        lines = (folder / ITEMS).read_text("utf-8", "surrogateescape").split("\n")[:-1]
        items = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / ITEMS} is damaged ({error}).{_advice(folder)}") from None
    for number, item in enumerate(items):
        if not isinstance(item, list) or [type(part) for part in item] != [str] * 4:
            raise UserError(
                f"{folder / ITEMS} is damaged (item {number} is {item!r:.40}).{_advice(folder)}"
            )
    return items


def read_part(folder: Path, read: Callable[[], Built]) -> Built:
    """What ``read`` returns; an error includes the command that rebuilds the index.

    Raises:
        UserError: a file of the index cannot be read.
    """
    try:
        return read()
    except UserError as error:
        raise UserError(f"{error}.{_advice(folder)}") from None


def _advice(folder: Path) -> str:
    try:
        command = (folder / COMMAND).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        command = ""
    it = "it" if (whole := _whole(folder)) == folder else whole
    return f" Remove {it} and build it again: {command or 'with the program that wrote it'}"


def _whole(folder: Path) -> Path:
    """The folder of the index of which ``folder`` is a version."""
    return folder.parent.parent if folder.parent.name == VERSIONS else folder


def _check_new(folder: Path) -> None:
    if folder.exists():
        raise UserError(f"{folder} exists: give another --out, or remove it.")


def _make_empty(partial: Path) -> None:
    for path in partial.iterdir():
        if path.name == ".lock":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
