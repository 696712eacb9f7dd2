"""Different pictures whose features are equal, which no model can tell apart."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

FEW, SHARE = 3, 0.01
"""Least number of such pictures, and least share of all, for a warning."""


def warn_equal(features: Iterable[np.ndarray], files: Sequence[Path], where: str) -> None:
    """Warn if many pictures have the features of another one although their files differ.

    Args:
        features: of each picture, in the order of ``files``; equal ones have equal bytes.
        files: of the pictures; identical files and missing ones do not count.
        where: the data set or folder, for the message.
    """
    groups: dict[bytes, list[Path]] = defaultdict(list)
    for row, file in zip(features, files, strict=True):
        groups[hashlib.sha256(row.tobytes()).digest()].append(file)
    alike = [_different(group) for group in groups.values() if len(group) > 1]
    alike = [group for group in alike if len(group) > 1]
    count = sum(map(len, alike))
    if count >= max(FEW, SHARE * len(files)):
        first, second = alike[0][:2]
        warnings.warn(
            f"{count:,} of {len(files):,} pictures of {where} have the same features as another, "
            f"different picture, such as {first.name} and {second.name}: look at them, for they "
            "cannot be told apart",
            RuntimeWarning,
            stacklevel=2,
        )


def _different(files: Iterable[Path]) -> list[Path]:
    """One file of each content."""
    found: dict[bytes, Path] = {}
    for file in files:
        if file.is_file():
            with file.open("rb") as opened:
                found.setdefault(hashlib.file_digest(opened, "sha256").digest(), file)
    return list(found.values())
