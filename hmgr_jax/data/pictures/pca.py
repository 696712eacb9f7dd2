"""A PCA of the features of regions, and its file of ``mean`` [D] and ``components`` [D, N]."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import readable
from hmgr_jax.files.workdir import replacing

ARRAYS = ("mean", "components")


@dataclass(frozen=True, eq=False)
class Pca:
    """Features x [D] become ``(x - mean) @ components``; raises ``ValueError`` for other shapes."""

    mean: np.ndarray
    components: np.ndarray

    def __post_init__(self) -> None:
        shapes = self.mean.shape, self.components.shape
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][:1] or 0 in shapes[1]:
            raise ValueError(f"mean has the shape {shapes[0]} and components {shapes[1]}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.components).all()):
            raise ValueError("NaN or infinity")

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the components."""
        return self.mean, self.components

    @property
    def size(self) -> int:
        """N, the number of components."""
        return self.components.shape[1]

    def sha256(self) -> str:
        """Hexadecimal digest of both arrays."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(f"{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: str | Path) -> Pca:
        """The PCA in a file; raises `UserError` if there is none."""
        advice = "give an .npz of mean [D] and components [D, N]."
        found = read_npz(Path(path), advice, ARRAYS)
        with readable(path, "a PCA", advice):
            return cls(*(found[name].astype(np.float32) for name in ARRAYS))

    def write(self, path: Path) -> None:
        """Write a file atomically."""
        with replacing(path) as file:
            np.savez(file, mean=self.mean, components=self.components)

    @classmethod
    def fit(cls, features: Iterable[np.ndarray], size: int) -> Pca:
        """The first ``size`` components of all rows, from their exact covariance in float64.

        Raises `UserError` if the rows have fewer independent numbers.
        """
        count, total, products = 0, np.zeros(()), np.zeros(())
        for block in features:
            rows = block.astype(np.float64)
            count, total = count + len(rows), total + rows.sum(axis=0)
            products = products + rows.T @ rows
        most = min(count - 1, total.size)
        if size > most:
            raise UserError(
                f"--pca is {size}, but {count} rows of {total.size} features have at most "
                f"{max(most, 0)} components: give fewer."
            )
        mean = total / count
        _, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
        kept = vectors[:, ::-1][:, :size]
        signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(size)])
        return cls(mean.astype(np.float32), (kept * signs).astype(np.float32))
