"""HDF5 files that others wrote; needs h5py, the extra ``h5``.

Nothing outside the file is read: external links, external storage and virtual datasets are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import AXES
from hmgr_jax.files.reading import check_packed, readable

LINKS = 64
"""Most soft links that one lookup follows: few bytes of links can multiply to any number."""
ADVICE = "copy the file again."


def open_hdf5(path: Path) -> Group:
    """Open a file; closed when the group is collected.

    Raises:
        UserError: h5py is not installed, or the file cannot be read.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path} needs h5py to be read: install it with pip install 'hmgr-jax[h5]'."
        ) from None
    with readable(path, "HDF5", ADVICE):
        return Group(path, h5py.File(path, "r"), "")


class Dataset:
    """A dataset: ``shape`` and ``dtype``; ``numpy.asarray`` reads it, an index a part of it.

    Text is read as str. Raises `UserError` for what is damaged, or takes memory out of proportion
    to the bytes that are stored.
    """

    def __init__(self, path: Path, dataset: Any, name: str) -> None:
        import h5py

        self._dataset, self._place = dataset, f"{path}, {name},"
        with self._readable():
            if dataset.is_virtual or dataset.external:
                raise UserError(
                    f"{self._place} is read from another file (external storage or a virtual "
                    "dataset), which could be any file: copy its numbers into this one."
                )
            if dataset.shape is None:
                raise ValueError("it is empty")
            self.shape: tuple[int, ...] = tuple(map(int, dataset.shape))
            self.dtype: np.dtype = dataset.dtype
            self.text = h5py.check_string_dtype(dataset.dtype) is not None
            if len(self.shape) > AXES:
                raise ValueError(f"it has {len(self.shape)} axes")

    def _readable(self) -> Any:
        return readable(self._place, "a dataset", ADVICE)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        with self._readable():
            count = len(range(len(self))[rows]) if isinstance(rows, slice) else 1
            return self._read(rows, count * math.prod(self.shape[1:]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with self._readable():
            found = self._read((), math.prod(self.shape))
        return found if dtype is None else found.astype(dtype)

    def _read(self, place: Any, numbers: int) -> np.ndarray:
        """Read a part of ``numbers``, which takes whole chunks."""
        chunk = math.prod(self._dataset.chunks or (0,))
        stored = self._dataset.id.get_storage_size()
        check_packed(max(numbers, chunk) * self.dtype.itemsize, stored, "the dataset")
        if self.text:
            return np.asarray(self._dataset.asstr("utf-8")[place], np.str_)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"it holds {self.dtype} where numbers or text were expected")
        return np.asarray(self._dataset[place])


class Group(Mapping[str, "Group | Dataset"]):
    """A group, with its objects by name or path; soft links are followed within the file."""

    def __init__(self, path: Path, group: Any, name: str, top: Group | None = None) -> None:
        self._path, self._group, self._name = path, group, name
        self._top = top  # None of the top itself, which would never be collected

    def __iter__(self) -> Iterator[str]:
        with self._readable():
            names = list(self._group)
            if not all(isinstance(name, str) for name in names):
                raise ValueError("a name in it is not UTF-8")
        return iter(names)

    def __len__(self) -> int:
        with self._readable():
            return len(self._group)

    def __contains__(self, name: object) -> bool:
        with self._readable(name):
            return isinstance(name, str) and name in self._group

    def __getitem__(self, name: str) -> Group | Dataset:
        return self._find(name, iter(range(LINKS)))

    def _find(self, name: str, links: Iterator[int]) -> Group | Dataset:
        """Look up a path; every soft link that is followed takes one of ``links``."""
        found: Group | Dataset = self
        for part in name.split("/"):
            if not isinstance(found, Group):
                raise KeyError(name)
            found = found._child(part, links) if part not in ("", ".") else found
        return found

    def _child(self, name: str, links: Iterator[int]) -> Group | Dataset:
        import h5py

        whole = f"{self._name}/{name}".lstrip("/")
        with self._readable(name):
            link = self._group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UserError(
                    f"{self._path}, {whole}, is a link to another file, which could be any file: "
                    "copy its numbers into this one."
                )
            if isinstance(link, h5py.SoftLink):
                if next(links, None) is None:
                    raise ValueError(f"its links lead in a circle, or are more than {LINKS}")
                start = self if self._top is None or not link.path.startswith("/") else self._top
                try:
                    return start._find(link.path, links)
                except KeyError:
                    raise ValueError(f"its link leads to {link.path}, which is not there") from None
            if link is None and name in list(self._group):
                raise ValueError("it is listed, but not there")
            found = None if link is None else self._group[name]
            if isinstance(found, h5py.Dataset):
                return Dataset(self._path, found, whole)
            if isinstance(found, h5py.Group):
                return Group(self._path, found, whole, self if self._top is None else self._top)
            if found is not None:
                raise ValueError("it is neither a group nor a dataset")
        raise KeyError(name)

    def walk(self) -> Iterator[tuple[str, Dataset]]:
        """Yield (path, dataset) of all groups below this one, every group once.

        MATLAB's own groups and datasets, which begin with #, are left out.
        """
        import h5py

        seen, todo = set(), [("", self)]
        while todo:
            above, group = todo.pop()
            with group._readable():
                address = h5py.h5o.get_info(group._group.id).addr
            if address in seen:
                continue
            seen.add(address)
            below = []
            for name in group:
                if name.startswith("#"):
                    continue
                item = group[name]
                if isinstance(item, Group):
                    below.append((f"{above}{name}/", item))
                else:
                    yield f"{above}{name}", item
            todo += reversed(below)

    def _readable(self, name: object = "") -> Any:
        place = f"{self._name}/{name}".strip("/")
        return readable(f"{self._path}, {place}," if place else self._path, "HDF5", ADVICE)
