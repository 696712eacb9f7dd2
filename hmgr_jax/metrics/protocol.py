"""What a protocol is: which matrix is ranked, what must hold of its sides, what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import both_directions
from hmgr_jax.metrics.ranks import require_pairs

Metrics = dict[str, float]
About = Mapping[str, Mapping[str, np.ndarray]]
"""{"families" | "labels" | "numbers" | "kinds": {modality: array [n, ...]}}: what is known of
items."""


@dataclass(frozen=True)
class Sides:
    """The two sides of a score matrix, and which of their items belong together."""

    groups_a: np.ndarray
    """int [n_a]; pairs of equal group are positives, any number on either side."""
    groups_b: np.ndarray
    """int [n_b]."""
    modalities: tuple[str, str] = ("image", "text")
    """What the sides are, in the order of the matrix."""
    families: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int [n]}, as in `hmgr_jax.data.split.Split`; empty where the data has none."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: 0 or 1 [n, K]}, as in `Split`: kinds of objects."""
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: int [n]}, as in `Split`: COCO's numbers."""
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: str [n]}, as in `Split`: sorts of questions."""

    @property
    def text_first(self) -> bool:
        """Whether the text is the first side, so that the images are the second."""
        return self.modalities[0] == "text"

    def turned(self) -> Sides:
        """The sides of the transposed matrix."""
        return replace(
            self,
            groups_a=self.groups_b,
            groups_b=self.groups_a,
            modalities=self.modalities[::-1],
        )


@dataclass(frozen=True)
class Protocol:
    """All against all in one matrix: every item of a side is a query for the other side."""

    name: str
    description: str
    """One line, printed with every number."""
    items: int | None = None
    """Images (or whatever is not text) that the protocol is defined on; None: any number."""
    within: bool = False
    """Whether items of a modality also search their own kind: the pair of it with itself."""

    def check(self, sides: Sides) -> None:
        """Raise `UserError` if the protocol does not fit; it can be asked before training."""
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
            modalities: what the two sides are.
            **about: families, labels, numbers and kinds of `Sides`, as `Split.about` gives them.

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
        """The metrics that it reports, found on five pairs of one family."""
        pairs, family = np.arange(5), np.zeros(5, np.int32)
        anywhere = replace(self, items=None)
        families = dict.fromkeys(modalities, family)
        scores = np.eye(5, dtype=np.float32)
        return list(
            anywhere.evaluate(scores, pairs, pairs, modalities=modalities, families=families)
        )

    def _metrics(self, scores: np.ndarray, sides: Sides) -> Metrics:
        return both_directions(scores, sides.groups_a, sides.groups_b, modalities=sides.modalities)
