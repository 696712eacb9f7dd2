"""Files of pictures: find all of a folder, or the one that a list names, and check them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from hmgr_jax.data.pictures.decode import UNREAD, endings, load_picture, read_ahead
from hmgr_jax.errors import UserError
from hmgr_jax.files.walk import files_below, one_name

CORRUPT = ("refuse", "skip")
CHECK_BELOW = 20_000
"""Up to this number of pictures, headers are read when a split is opened."""
NAMED = 10  # pictures in a warning
GLANCE = 32  # pixels; decoding at this size reads all bytes at little cost


def pictures_below(folder: Path) -> list[Path]:
    """Pictures of all formats that are read in a folder, see `files_below`; warns of `UNREAD`."""
    found = files_below(folder, endings() | {*UNREAD})
    unread = [str(path.relative_to(folder)) for path in found if path.suffix.lower() in UNREAD]
    if unread:
        warnings.warn(
            f"{len(unread)} of {len(found)} pictures in {folder} are HEIC, which is not read, and "
            f"are left out: {first_names(unread)}; export them as JPEG",
            RuntimeWarning,
            stacklevel=2,
        )
    return [path for path in found if path.suffix.lower() not in UNREAD]


class PictureFolder:
    """A folder of pictures, perhaps in subfolders; ``UserError`` if it does not exist.

    ``option`` is what names it, for messages.
    """

    def __init__(self, path: Path, option: str = "data.pictures") -> None:
        if not path.is_dir():
            where = ", absolute or relative to data.root" if option == "data.pictures" else ""
            raise UserError(
                f"{path} is not a folder: give {option} the folder of the pictures{where}."
            )
        self.path, self.option = path, option

    def find(self, name: str) -> Path | None:
        """Find the file called ``name``, which may lack its ending; None if there is none.

        ``name`` is relative to the folder, or else to any subfolder. A name with folders is also
        found in the folder itself (all pictures in one place), but in no other subfolder. Raises
        ``UserError`` if several files match.
        """
        direct, wanted = self.path / name, PurePosixPath(one_name(name)).parts
        if direct.is_file():
            return direct
        found = [file for file in self._by_name.get(wanted[-1], ()) if self._fits(file, wanted)]
        found = [file for file in found if file.parent == direct.parent] or found
        if len(found) > 1:
            raise UserError(
                f"{name} may be {found[0]} or {found[1]}: name pictures with their folders and "
                f"endings, or give {self.option} one folder of them."
            )
        return found[0] if found else None

    def find_shown(self, name: str) -> Path | None:
        """`find`, where another ending of ``name`` is accepted too."""
        path = PurePosixPath(name)
        other = str(path.with_suffix("")) if path.suffix.lower() in endings() else name
        return self.find(name) or self.find(other)

    def _fits(self, file: Path, wanted: tuple[str, ...]) -> bool:
        parts = tuple(map(one_name, file.relative_to(self.path).parent.parts))
        folders = wanted[:-1]
        return not parts or parts[len(parts) - len(folders) :] == folders

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """{file name with and without its ending: pictures}."""
        found: dict[str, list[Path]] = {}
        for path in pictures_below(self.path):
            for key in {one_name(path.name), one_name(path.stem)}:
                found.setdefault(key, []).append(path)
        return found


def readable_pictures(
    named: Sequence[tuple[str, Path | None, str]], policy: str, split: str, threads: int = 2
) -> list[Path | None]:
    """List the files of pictures; None for those that are left out.

    Under ``"refuse"`` a missing picture and, in sets up to `CHECK_BELOW`, an unreadable header is
    an error at once; other damage is found when the file is read. Under ``"skip"`` every file is
    decoded once; missing and damaged ones are left out with a warning, the same in every process.

    Args:
        named: (name, file or None if missing, where it is listed).
        policy: of `CORRUPT`.
        split: for messages.
        threads: that decode.

    Raises:
        UserError: a picture is missing or unreadable, or none is left.
    """
    missing = [(name, where) for name, file, where in named if file is None]
    if policy == "refuse":
        if missing:
            name, where = missing[0]
            raise UserError(
                f"{where} names {name}, but there is no such picture ({len(missing)} of the "
                f"{len(named)} of {split} are missing): put it there, correct data.pictures, or "
                "leave out what is missing by data.corrupt=skip."
            )
        if len(named) > CHECK_BELOW:
            return [file for _, file, _ in named]
    errors = list(_errors([file for _, file, _ in named], threads, decode=policy == "skip"))
    first = next((error for error in errors if error), None)
    if policy == "refuse" and first:
        raise UserError(first.rstrip(".") + ", or leave such pictures out by data.corrupt=skip.")
    kept = [None if error else file for error, (_, file, _) in zip(errors, named, strict=True)]
    left_out = [name for (name, _, _), error in zip(named, errors, strict=True) if error]
    warn_left_out(left_out, len(named), split, " with their captions")
    return kept


def decodable(files: Sequence[Path], threads: int = 4) -> Iterator[bool]:
    """Whether each picture can be decoded, in order."""
    return (not error for error in _errors(files, threads, decode=True))


def warn_left_out(left_out: Sequence[str], total: int, where: str, more: str = "") -> None:
    """Warn of pictures that are left out, by name and number.

    Raises:
        UserError: all ``total`` pictures are.
    """
    if left_out and len(left_out) == total:
        raise UserError(
            f"None of the {total} pictures of {where} can be read, such as {left_out[0]}: correct "
            "the folder, or copy them again."
        )
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {total} pictures of {where} are missing or cannot be read and are "
            f"left out{more}: {first_names(left_out)}",
            RuntimeWarning,
            stacklevel=2,
        )


def first_names(names: Sequence[str]) -> str:
    """The first `NAMED` names, for messages."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _errors(files: Sequence[Path | None], threads: int, *, decode: bool) -> Iterator[str]:
    """Error messages of reading pictures or their headers, empty where there is none."""

    def error(file: Path | None) -> str:
        if file is None:
            return "missing"
        try:
            load_picture(file, near=GLANCE, decode=decode)
        except UserError as error:
            return str(error)
        return ""

    return read_ahead(error, files, 8 * threads, threads)
