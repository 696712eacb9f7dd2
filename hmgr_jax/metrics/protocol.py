"""The base class of protocols: which matrix is ranked, requirements, reported metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import both_directions, direction
from hmgr_jax.metrics.ranks import require_pairs

Metrics = dict[str, float]


@dataclass(frozen=True)
class Sides:
    """The two sides of a score matrix, and which of their items belong together."""

    groups_a: np.ndarray
    """int [n_a]; pairs of equal group are positives."""
    groups_b: np.ndarray
    """int [n_b]."""
    modalities: tuple[str, str] = ("image", "text")
    """Modalities of rows and columns."""
    families: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int [n]}, as in `hmgr_jax.data.split.Split`; empty where the data has none."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: 0 or 1 [n, K]}, as in `Split`: classes or kinds of objects."""
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int [n]}, as in `Split`: COCO's ids."""
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: str [n]}, as in `Split`: kinds of questions."""

    @property
    def text_first(self) -> bool:
        """Whether texts are the rows of the matrix."""
        return self.modalities[0] == "text"

    def turned(self) -> Sides:
        """The sides of the transposed matrix."""
        a, b = self.groups_b, self.groups_a
        return replace(self, groups_a=a, groups_b=b, modalities=self.modalities[::-1])

    def text_last(self, scores: np.ndarray) -> tuple[np.ndarray, Sides]:
        """The matrix and its sides, transposed if texts are its rows."""
        return (scores.T, self.turned()) if self.text_first else (scores, self)

    def both_ways(self, scores: np.ndarray) -> Iterator[tuple[str, np.ndarray, Sides]]:
        """(direction, matrix, sides) with the queries of side a, then with those of side b."""
        for matrix, sides in ((scores, self), (scores.T, self.turned())):
            yield direction(*sides.modalities), matrix, sides


@dataclass(frozen=True)
class Protocol:
    """One matrix of all items: every item of a side is a query for the other side."""

    name: str
    description: str
    """One line, printed with every number."""
    items: int | None = None
    """Number of images (or other non-text items) required; None: any."""
    within: bool = False
    """Whether each modality also searches itself."""

    def check(self, sides: Sides) -> None:
        """Raise `UserError` if the protocol does not fit; can be called before training."""
        found = len(sides.groups_b if sides.text_first else sides.groups_a)
        if self.items is not None and found != self.items:
            what = "clips" if "video" in sides.modalities else "images"
            raise UserError(
                f"protocol {self.name} is defined on {self.items} distinct {what}, found {found}: "
                "evaluate the full test split or use the protocol plain"
            )

    def evaluate(
        self,
        scores: np.ndarray,
        groups_a: np.ndarray,
        groups_b: np.ndarray,
        *,
        modalities: tuple[str, str] = ("image", "text"),
        **about: Mapping[str, np.ndarray],
    ) -> Metrics:
        """Metrics of a score matrix, percentages as numbers in 0..100.

        Args:
            scores: float [n_a, n_b], higher is better.
            groups_a: int [n_a].
            groups_b: int [n_b].
            modalities: of rows and columns.
            **about: families, labels, numbers and kinds of `Sides`, from `Split.about`.

        Raises:
            FoundNonFinite: a score is NaN or infinite.
            UserError: sizes do not fit the protocol or each other, or a query has no positive.
        """
        scores, groups_a, groups_b = map(np.asarray, (scores, groups_a, groups_b))
        require_pairs(scores, groups_a, groups_b)
        sides = Sides(groups_a, groups_b, modalities, **about)
        self.check(sides)
        return self._metrics(scores, sides)

    def names(self, modalities: tuple[str, str]) -> list[str]:
        """Names of the reported metrics, found by evaluating five pairs of one family."""
        pairs = np.arange(5)
        families = dict.fromkeys(modalities, np.zeros(5, np.int32))
        sides = Sides(pairs, pairs, modalities, families)
        return list(replace(self, items=None)._metrics(np.eye(5, dtype=np.float32), sides))

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        return both_directions(scores, sides.groups_a, sides.groups_b, modalities=sides.modalities)

    def _check_known(self, sides: Sides, field: str, noun: str, advice: str) -> None:
        """Raise `UserError` unless ``field`` of ``sides`` has an entry for every item."""
        groups = (sides.groups_a, sides.groups_b)
        for modality, items in zip(sides.modalities, groups, strict=True):
            found = len(getattr(sides, field).get(modality, ()))
            if found != len(items):
                raise UserError(
                    f"protocol {self.name} needs the {noun} of all {len(items)} items of modality "
                    f"{modality}, found {found}: {advice}"
                )


def of_both(modalities: tuple[str, str], measures: Sequence[str]) -> list[str]:
    """``DIRECTION/MEASURE`` of both directions."""
    ways = (direction(*modalities), direction(*modalities[::-1]))
    return [f"{way}/{measure}" for way in ways for measure in measures]


def mean_of(folds: Sequence[Metrics]) -> Metrics:
    """The mean of every metric over ``folds``."""
    return {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
