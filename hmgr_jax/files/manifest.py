"""``manifest.json``: counts, sizes and sha256 of a prepared folder, written last and checked.

It is equal for two preparations of the same data (no times, no paths), so its own sha256 is the
fingerprint that runs save (`hmgr_jax.data.fingerprint`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hmgr_jax.errors import UserError, reason
from hmgr_jax.files.reading import parse_json
from hmgr_jax.files.workdir import replacing, write_json_atomic
from hmgr_jax.progress import Progress

MANIFEST = "manifest.json"
PREPARED = "prepared.json"
"""What made a folder: command, options, versions; not listed in the manifest."""
ENCODER, ENCODER_PCA = "encoder.json", "encoder_pca.npz"
"""The encoder of pictures with the place of its weights, not listed either; and its PCA, listed."""
GALLERY = "gallery"
"""The split of pictures without captions."""
GRAPHS = "_caps.conllu"
FORMAT = 1
_BLOCK = 8 << 20
BLOCKS, BLOCK_BYTES = 64, 4096


def listed(folder: Path, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{name: its bytes, sha256 and `sampled`} of files by their names in ``folder``."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(files)}
    with Progress(sum(sizes.values()), "bytes", title="checksums", stream=sys.stderr) as bar:
        return {
            name: {
                "bytes": size,
                "sha256": _sha256(folder / name, bar.advance),
                "sampled": sampled(folder / name),
            }
            for name, size in sizes.items()
        }


def blocks(path: Path) -> Iterator[bytes]:
    """A small file whole, else `BLOCKS` evenly spread blocks from the first byte to the last."""
    size = path.stat().st_size
    if size <= BLOCKS * BLOCK_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for k in range(BLOCKS):
            yield os.pread(file.fileno(), BLOCK_BYTES, (size - BLOCK_BYTES) * k // (BLOCKS - 1))


def sampled(path: Path) -> str:
    """Hexadecimal sha256 of the `blocks` of a file, which is that of a small file."""
    return hashlib.sha256(b"".join(blocks(path))).hexdigest()


def entries(folder: Path) -> Any:
    """What the manifest of ``folder`` lists; None without one, or without files."""
    try:
        return parse_json((folder / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stands_for(entries: Any, folder: Path, path: Path, *, by_blocks: bool = True) -> bool:
    """Whether the `entries` of ``folder`` describe ``path`` as it is, by size and `blocks`.

    The manifest of another program stands for everything. Older ones of ours tell only the size of
    large files. Files elsewhere are derived from the folder, see `hmgr_jax.data.records.open`.

    Args:
        entries: `entries` of the folder.
        folder: the folder, as its real path.
        path: the file.
        by_blocks: read the file; otherwise only the size is compared.
    """
    try:
        name = (path.parent.resolve().relative_to(folder) / path.name).as_posix()
        if name not in entries:
            return "/" in name
        size, entry = path.stat().st_size, entries[name]
        if entry["bytes"] != size or not by_blocks:
            return bool(entry["bytes"] == size)
        wanted = entry.get("sampled", entry.get("sha256") if size <= BLOCKS * BLOCK_BYTES else None)
        return wanted in (None, sampled(path))
    except (ValueError, KeyError, TypeError, AttributeError):
        return True


def digest(text: str) -> str:
    """Hexadecimal sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path) -> str:
    """Check a prepared folder against its manifest; returns a summary.

    Raises `UserError` for the first file that differs.
    """
    files = _read(folder)
    for name in sorted(_names(folder)):
        if name not in files and name not in (MANIFEST, PREPARED, ENCODER):
            advice = "prepare again"
            if name.endswith(GRAPHS):
                advice = f"have prepare dependencies --root {folder} --check list it"
            raise UserError(
                f"{folder / name} is not in {MANIFEST}, so its contents cannot be verified: "
                f"{advice}, or move it away."
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
    for name, entry in listed(folder, list(files)).items():
        if entry["sha256"] != files[name]["sha256"]:
            raise UserError(
                f"{folder / name} has sha256 {entry['sha256'][:12]}... where {MANIFEST} says "
                f"{files[name]['sha256'][:12]}...: it has changed, so copy it again or prepare "
                "again."
            )
    return f"{folder} is as its manifest says: {len(files)} files, {total:,} bytes."


def _names(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, except hidden ones."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()


def add(folder: Path, name: str) -> bool:
    """Add the file ``name`` to the manifest atomically; False if there is no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    files = _read(folder) | listed(folder, [name])
    found = parse_json(path.read_text("utf-8"))
    write_json_atomic(path, found | {"files": dict(sorted(files.items()))})
    return True


def encoder_of(folder: Path) -> Any:
    """The description of the encoder in a manifest, None if there is none.

    Raises `UserError` if ``folder`` has no manifest.
    """
    _read(folder)
    return parse_json((folder / MANIFEST).read_text("utf-8")).get("encoder")


def keep_encoder(root: str | Path, workdir: Path) -> None:
    """Copy the encoder of the pictures of a prepared folder, if there is one, to a run."""
    if root and Path(root, ENCODER).is_file():
        for name in (ENCODER_PCA, ENCODER):
            if Path(root, name).is_file():
                with replacing(workdir / name) as file:
                    file.write(Path(root, name).read_bytes())


def made_by(folder: Path) -> str | None:
    """The key of the preparation that made ``folder``; None if none did."""
    try:
        made = parse_json((folder / PREPARED).read_text("utf-8"))
        return str(made["key"]) if (folder / MANIFEST).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(folder: Path) -> dict[str, Any]:
    """The files of a manifest."""
    path = folder / MANIFEST
    try:
        found = parse_json(path.read_text("utf-8"))
        files = {
            str(name): {**entry, "bytes": int(entry["bytes"]), "sha256": str(entry["sha256"])}
            for name, entry in found["files"].items()
        }
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give a folder that hmgr_jax.prepare made."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): prepare the folder again.") from None
    return files


def _sha256(path: Path, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
    return digest.hexdigest()
