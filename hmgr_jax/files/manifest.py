"""``manifest.json``: counts, sizes and sha256 of a prepared folder, written last and checked.

It holds nothing that differs between two preparations of the same data (no times, no paths): its
own sha256 is the fingerprint that runs remember (`hmgr_jax.data.fingerprint`) while it lists all
that they read.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.progress import Progress

MANIFEST = "manifest.json"
PREPARED = "prepared.json"
"""What made a folder: command, options, versions; not listed in the manifest."""
GRAPHS = "_caps.conllu"
FORMAT = 1
_BLOCK = 8 << 20


def listed(folder: Path, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{name: its bytes and sha256} of files by their names in ``folder``."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(files)}
    with Progress(sum(sizes.values()), "bytes", title="checksums", stream=sys.stderr) as bar:
        return {
            name: {"bytes": size, "sha256": _sha256(folder / name, bar.advance)}
            for name, size in sizes.items()
        }


def digest(text: str) -> str:
    """Hexadecimal sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path) -> str:
    """Check a prepared folder against its manifest; a sentence that says what was checked.

    Raises:
        UserError: there is no manifest, or the first file that is not as it says.
    """
    files = _read(folder)
    for name in sorted(_names(folder)):
        if name not in files and name not in (MANIFEST, PREPARED):
            graphs = f"have prepare dependencies --root {folder} --check list it"
            raise UserError(
                f"{folder / name} is not in {MANIFEST}, so its contents are vouched for by "
                "nothing: "
                f"{graphs if name.endswith(GRAPHS) else 'prepare again'}, or move it away."
            )
    for name, entry in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != entry["bytes"]:
            what = "is missing" if found is None else f"has {found} bytes"
            raise UserError(
                f"{path} {what} where {MANIFEST} says {entry['bytes']} bytes: copy it again or "
                "prepare again."
            )
    total = sum(entry["bytes"] for entry in files.values())
    with Progress(total, "bytes", title="checksums", stream=sys.stderr) as bar:
        for name, entry in files.items():
            found_sum = _sha256(folder / name, bar.advance)
            if found_sum != entry["sha256"]:
                raise UserError(
                    f"{folder / name} has sha256 {found_sum[:12]}... where {MANIFEST} says "
                    f"{entry['sha256'][:12]}...: it has changed, so copy it again or prepare again."
                )
    return f"{folder} is as its manifest says: {len(files)} files, {total:,} bytes."


def _names(folder: Path) -> Iterator[str]:
    """Of all files in a folder and below it, but hidden ones."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            yield name


def add(folder: Path, name: str) -> bool:
    """List the file ``name``, made since, whole or not at all; False where there is no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    files = _read(folder)
    size = (folder / name).stat().st_size
    files[name] = {"bytes": size, "sha256": _sha256(folder / name, lambda _: None)}
    found = json.loads(path.read_text("utf-8"))
    write_json_atomic(path, found | {"files": dict(sorted(files.items()))})
    return True


def made_by(folder: Path) -> str | None:
    """The key of the preparation that made ``folder``, None where none did."""
    try:
        made = json.loads((folder / PREPARED).read_text("utf-8"))
        return str(made["key"]) if (folder / MANIFEST).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(folder: Path) -> dict[str, Any]:
    """The files of a manifest."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
        files = {
            str(name): {"bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in found["files"].items()
        }
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give a folder that hmgr_jax.prepare made."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): prepare the folder again.") from None
    return files


def _sha256(path: Path, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
    return digest.hexdigest()
