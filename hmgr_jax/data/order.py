"""Rows of the batch of each step: a pure function of the seed and the step."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError

Batching = Literal["rows", "groups", "classes"]
_SHUFFLE, _CHOOSE, _CLASS = 0, 1, 4  # purposes of random numbers; others are in data/draws.py


class Order(Protocol):
    """Rows of the split in the global batch of every step."""

    steps_per_epoch: int

    def rows(self, step: int) -> np.ndarray:
        """Rows of the global batch of ``step``, int [B]: the same in every process."""
        ...


def make_order(split: Split, batch_size: int, seed: int, batching: Batching = "rows") -> Order:
    """Make the order of ``split``: by rows, by whole families, or by classes (one row of each).

    Raises:
        UserError: the batch is larger than the split, or does not fit families or classes.
    """
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, it is {batch_size}.")
    if batching == "rows":
        return RowOrder(len(split), batch_size, seed, split.name)
    if batching == "groups":
        return FamilyOrder(split, batch_size, seed)
    if batching == "classes":
        return ClassOrder(split, batch_size, seed)
    raise UserError(f'batching must be "rows", "groups" or "classes", it is {batching!r}.')


def steps_per_epoch(split: Split, batch_size: int, batching: Batching = "rows") -> int:
    """Full batches in one pass over the rows (``"rows"``) or images (``"groups"``)."""
    return make_order(split, batch_size, 0, batching).steps_per_epoch


class RowOrder:
    """Every row once an epoch, reshuffled each epoch; an epoch's incomplete batch is dropped."""

    def __init__(self, count: int, batch_size: int, seed: int, name: str = "split") -> None:
        if batch_size > count:
            raise UserError(
                f"the batch size is {batch_size} rows but {name} has only {count}: lower the batch "
                "size."
            )
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = count // batch_size

    def rows(self, step: int) -> np.ndarray:
        """Rows of the global batch of ``step``, int32 [B]."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        return _shuffled(self.seed, epoch, self.count)[start : start + self.batch_size]


class FamilyOrder:
    """Every image once an epoch with one of its captions, in batches of whole families.

    Images are the items of `Split.visual`; without families each is a family of its own. The
    caption is chosen by (seed, epoch, image). All families have one size, which divides the batch.
    """

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        side = split.visual
        images = split.rows[side]
        self._by_image = np.argsort(images, kind="stable").astype(np.int32)
        self._counts = np.bincount(images, minlength=len(split.sources[side]))
        self._starts = np.cumsum(self._counts) - self._counts
        if not self._counts.all():
            raise UserError(
                f"{side} {int(np.argmin(self._counts))} of {split.name} has no caption, but "
                "batches "
                'of whole groups need one per item: use batching "rows".'
            )
        self._members = _families(split, side, batch_size)
        if batch_size > self._members.size:
            raise UserError(
                f"the batch size is {batch_size} {side} items but {split.name} has only "
                f"{self._members.size}: lower the batch size."
            )
        self._families = RowOrder(
            len(self._members),
            batch_size // self._members.shape[1],
            seed,
            f"{split.name}'s list of families (of {self._members.shape[1]})",
        )
        self.seed, self.steps_per_epoch = seed, self._families.steps_per_epoch

    def rows(self, step: int) -> np.ndarray:
        """One row of every image of the step's families, int32 [B].

        The first members of all families come first, then all second ones.
        """
        images = self._members[self._families.rows(step)].T.reshape(-1)
        draws = _uniform(self.seed, step // self.steps_per_epoch, len(self._counts))[images]
        chosen = np.floor(draws * self._counts[images]).astype(np.int64)
        return self._by_image[self._starts[images] + chosen]


class ClassOrder:
    """One row of each class in a batch; smaller batches cycle through the classes.

    Classes are the groups of `Split.visual`. Every row of a class is used once before any is
    repeated. PCME trains on CUB-200 with one row per class (Chun et al., CVPR 2021).
    """

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        side = split.visual
        of_row = split.groups[side][split.rows[side]]
        names, self._counts = np.unique(of_row, return_counts=True)
        if len(names) % batch_size:
            raise UserError(
                f"the batch size is {batch_size}, which does not divide the {len(names)} classes "
                f"of {split.name}: set train.batch_size to {len(names)} or a divisor of it."
            )
        self._rows = np.split(np.argsort(of_row, kind="stable"), np.cumsum(self._counts)[:-1])
        self.batch_size, self.seed = batch_size, seed
        self._rounds = len(names) // batch_size  # batches in a cycle through all classes
        self.steps_per_epoch = max(1, len(of_row) // batch_size)

    def rows(self, step: int) -> np.ndarray:
        """Rows of the global batch of ``step``, int32 [B], of B classes."""
        turn, part = divmod(step, self._rounds)
        classes = _shuffled(self.seed, turn, len(self._rows))
        chosen = classes[part * self.batch_size : (part + 1) * self.batch_size]
        return np.array([self._row(int(number), turn) for number in chosen], np.int32)

    def _row(self, number: int, turn: int) -> int:
        """Row of class ``number`` in cycle ``turn``."""
        once, place = divmod(turn, int(self._counts[number]))
        rng = np.random.default_rng([self.seed, _CLASS, number, once])
        return int(self._rows[number][rng.permutation(int(self._counts[number]))[place]])


def _families(split: Split, side: str, batch_size: int) -> np.ndarray:
    """The images of every family, int [families, size]."""
    family = split.families.get(side, np.arange(len(split.sources[side])))
    sizes = np.unique(family, return_counts=True)[1]
    if sizes.min() != sizes.max():
        raise UserError(
            f"families of {split.name} have {sizes.min()} to {sizes.max()} members, but batches "
            'of whole groups need families of one size: use batching "rows".'
        )
    if batch_size % sizes[0]:
        raise UserError(
            f"the batch size is {batch_size}, but families of {split.name} have {sizes[0]} "
            f"members: give a multiple of {sizes[0]}."
        )
    return np.argsort(family, kind="stable").reshape(-1, sizes[0])


@lru_cache(maxsize=4)  # prefetching threads may be in two epochs at once
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    found = np.random.default_rng([seed, _SHUFFLE, epoch]).permutation(count).astype(np.int32)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=4)
def _uniform(seed: int, epoch: int, count: int) -> np.ndarray:
    found = np.random.default_rng([seed, _CHOOSE, epoch]).random(count)
    found.flags.writeable = False
    return found
