"""Features of pictures in a file each, as MCAN and grid features are given out."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError


class PictureArrays:
    """Regions or a grid of every picture, read when asked for.

    Items are {"regions": float16 [k, R, D], "n_regions": int32 [k]}; further regions than R are
    left out. A file is ``.npz`` with "x" [D, n] (MCAN), or ``.npy`` with a grid [D, h, w] or
    [1, D, h, w].
    """

    lengths: np.ndarray | None = None

    def __init__(self, files: Sequence[Path], regions: int) -> None:
        """``regions``: R. Raises `UserError` for a file that is missing, or the first damaged."""
        missing = next((path for path in files if not path.is_file()), None)
        if missing is not None or not files:
            raise UserError(
                f"There is no {missing or 'file of features'}, where the features of a picture "
                "were expected: correct data.vqa.features, or extract them."
            )
        self.files, self.regions = list(files), regions
        self.dim = _read(self.files[0]).shape[1]

    def __len__(self) -> int:
        return len(self.files)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Read pictures; ``length`` is not used.

        Raises:
            UserError: a file is damaged or has other features than the first; FoundNonFinite: it
                holds NaN or infinity.
        """
        del length
        items = np.asarray(items, np.int64).reshape(-1)
        found = np.zeros((len(items), self.regions, self.dim), np.float16)
        counts = np.zeros(len(items), np.int32)
        for row, item in enumerate(items.tolist()):
            values = _read(self.files[item])
            if values.shape[1] != self.dim:
                raise UserError(
                    f"{self.files[item]} has {values.shape[1]} features a region, but "
                    f"{self.files[0]} has {self.dim}: extract them the same way."
                )
            counts[row] = min(len(values), self.regions)
            found[row, : counts[row]] = values[: self.regions]
        return {"regions": found, "n_regions": counts}


def _read(path: Path) -> np.ndarray:
    """The regions of a file, [n, D]."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            values = loaded["x"] if path.suffix == ".npz" else loaded
    except KeyError:
        raise UserError(f"{path} holds no array x, as MCAN's features do: extract it.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it is cut short or damaged; extract it again."
        ) from None
    if path.suffix != ".npz" and values.ndim == 4 and len(values) == 1:
        values = values[0]
    wanted = 2 if path.suffix == ".npz" else 3
    if values.ndim != wanted or 0 in values.shape or values.dtype.kind != "f":
        shape = "[features, regions]" if wanted == 2 else "[features, height, width]"
        raise UserError(
            f"{path} holds {values.dtype} {list(values.shape)} where floats of {shape} were "
            "expected: extract it again."
        )
    values = values.reshape(len(values), -1).T
    if not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float16).max:
        raise FoundNonFinite(f"{path} holds NaN, infinity or more than float16 can: extract again.")
    return values
