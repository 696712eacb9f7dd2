"""OFF files: vertices and faces as text."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from hmgr_jax.data.shapes3d.mesh import Mesh
from hmgr_jax.errors import UserError

_COMMENT = re.compile(r"#.*")
_BEFORE = " \t\r\n" + b"\xef\xbb\xbf".decode("latin-1")  # byte-order mark
AGAIN = "download or export the file again."
LARGEST = 2**31 - 1
"""Largest index of a corner."""


def read_off(path: Path) -> Mesh:
    """Read the triangles of an OFF file; larger faces are cut into triangles.

    Some files of ModelNet40 have their counts glued to the first word (``OFF490 518 0``); they are
    accepted. Comments, blank lines, and colours of vertices and faces are ignored.

    Raises:
        UserError: the file is missing, not OFF or cut short, has no faces, or holds a malformed
            number
            or a face with an unknown corner.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except FileNotFoundError:
        raise UserError(f"There is no {path}: correct the name or put the file there.") from None
    if not text.lstrip(_BEFORE).startswith("OFF"):
        raise UserError(f"{path} begins with {text[:20]!r} where OFF was expected: {AGAIN}")
    body = text.partition("OFF")[2]
    if "#" in body:
        body = _COMMENT.sub("", body)
    lines = [line for line in body.splitlines() if line.strip()]
    count, faces = _counts(path, lines)
    rows = lines[1 : 1 + count + faces]
    if len(rows) < count + faces:
        raise UserError(
            f"{path} ends after {len(rows):,} of its {count:,} vertices and {faces:,} faces: "
            f"{AGAIN}"
        )
    vertices = _vertices(path, rows[:count])
    triangles = _triangles(path, rows[count:])
    wrong = triangles[(triangles < 0) | (triangles >= count)]
    if len(wrong):
        raise UserError(
            f"{path} has a face with corner {wrong[0]:,} where the vertices are numbered "
            f"from 0 to {count - 1:,}: {AGAIN}"
        )
    return Mesh(vertices, triangles.astype(np.int32))


def write_off(path: Path, mesh: Mesh) -> None:
    """Write a mesh with vertices of 7 digits."""
    counts = f"{len(mesh.vertices)} {len(mesh.faces)} 0"
    rows = [" ".join(f"{x:.7g}" for x in point) for point in mesh.vertices.tolist()]
    rows += [f"3 {a} {b} {c}" for a, b, c in mesh.faces.tolist()]
    path.write_text("\n".join(["OFF", counts, *rows, ""]), encoding="ascii")


def _counts(path: Path, lines: list[str]) -> tuple[int, int]:
    """Numbers of vertices and faces."""
    words = lines[0].split() if lines else []
    if len(words) < 2 or not all(word.isdigit() for word in words[:2]):
        found = lines[0][:40] if lines else "nothing"
        raise UserError(
            f"{path} has {found!r} where the numbers of vertices and faces were expected: {AGAIN}"
        )
    count, faces = int(words[0]), int(words[1])
    if not count or not faces:
        raise UserError(f"{path} has {count} vertices and {faces} faces, so it is empty: {AGAIN}")
    return count, faces


def _vertices(path: Path, rows: list[str]) -> np.ndarray:
    try:
        values = np.array(" ".join(rows).split(), np.float64)
        if len(values) != 3 * len(rows):  # colours follow
            values = np.array([row.split()[:3] for row in rows], np.float64)
        found = values.reshape(len(rows), 3)
    except ValueError:
        raise UserError(f"{path} has a vertex that is not three numbers: {AGAIN}") from None
    if not np.isfinite(found).all():
        raise UserError(f"{path} has a vertex that is NaN or infinite: {AGAIN}")
    return found


def _triangles(path: Path, rows: list[str]) -> np.ndarray:
    """int64 [F, 3]; a face of n corners becomes n - 2 triangles around its first corner."""
    try:
        values = np.array(" ".join(rows).split(), np.int64)
        if len(values) == 4 * len(rows) and (values[::4] == 3).all():
            return values.reshape(-1, 4)[:, 1:]
    except (ValueError, OverflowError):
        pass  # colours may be fractions
    found: list[list[int]] = []
    for row in rows:
        words = row.split()
        try:
            corners = [int(word) for word in words[1 : 1 + int(words[0])]]
        except ValueError:
            corners = []
        if len(corners) < 3 or len(corners) != int(words[0]) or max(map(abs, corners)) > LARGEST:
            raise UserError(f"{path} has {row[:40]!r} where a face was expected: {AGAIN}")
        found += [[corners[0], a, b] for a, b in pairwise(corners[1:])]
    return np.array(found, np.int64)
