"""Evaluation: encode every item once, score all pairs in tiles, rank by counting."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from ml_collections import ConfigDict

from hmgr_jax.data.split import Split
from hmgr_jax.distributed import hosts
from hmgr_jax.distributed.watchdog import report_progress
from hmgr_jax.evaluation.all_pairs import Bucket, Report, score_matrix
from hmgr_jax.evaluation.calibration import Calibration
from hmgr_jax.evaluation.encoders import Codes, Encoders, check_finite
from hmgr_jax.evaluation.tiles import (
    as_buckets,
    check_memory,
    code_bytes,
    in_shares,
    n_items,
)
from hmgr_jax.metrics.protocols import evaluate_all, over_pairs, pairs_of
from hmgr_jax.models.base import Model, Variables
from hmgr_jax.progress import Progress


class Scored(NamedTuple):
    """The scores of all pairs of two modalities of a split, and their codes."""

    modalities: tuple[str, str]
    scores: np.ndarray
    """float32 [n_a, n_b]."""
    codes: Mapping[str, Codes | list[Bucket]]
    """{modality: codes from `Evaluator.encode`}."""


More = Callable[[Scored], Mapping[str, float]]
"""Further metrics, or files, from the scores of a pair of modalities."""


class Evaluator(Encoders):
    """Encodes, scores and measures splits; its compiled encoders serve all evaluations of a run."""

    calibration: Calibration | None = None

    @classmethod
    def of(cls, config: ConfigDict, model: Model, mesh: Mesh) -> Evaluator:
        """An evaluator with the sizes of a configuration."""
        return cls(
            model,
            mesh,
            batch_size=config.eval.batch_size,
            tile=config.eval.tile,
            buckets=config.data.buckets,
            threads=max(config.data.threads, config.data.get("workers", 0)),
        )

    def calibrated(self, calibration: Calibration | None) -> Evaluator:
        """This evaluator, with scores and vectors by ``calibration``."""
        found = copy.copy(self)  # shares the compiled encoders
        found.calibration = calibration
        return found

    def vectors(
        self,
        variables: Variables,
        modality: str,
        codes: Codes | list[Bucket],
        *,
        against: str = "",
    ) -> np.ndarray:
        """``model.coarse`` of codes: float32 [n, E], in the order of items.

        With a calibration they have two more dimensions, see `Calibration.widened`; ``against`` is
        the modality that they search, by default the other one.

        Raises:
            FoundNonFinite: a vector holds NaN or infinity.
        """
        found = self.coarse(variables, modality, codes)
        check_finite(found, f"The vector of {modality} item")
        if self.calibration is None:
            return found
        return self.calibration.widened(modality, found, against)

    def penalties(
        self, variables: Variables, modality: str, codes: Codes | list[Bucket]
    ) -> np.ndarray:
        """What the calibration takes from every score of these items: float32 [n]."""
        if self.calibration is None:
            return np.zeros(n_items(as_buckets(codes)), np.float32)
        found = self.coarse(variables, modality, codes)
        return self.calibration.unit * self.calibration.penalty(modality, found)

    def scores(
        self,
        variables: Variables,
        a: str,
        codes_a: Codes,
        b: str,
        codes_b: Codes,
        *,
        progress: Report | None = None,
        store: Path | None = None,
    ) -> np.ndarray:
        """Calibrated score matrix float32 [items of a, items of b], see `score_matrix`.

        Each process scores its own rows, and all processes return the whole matrix.
        """
        if self.split:  # the codes have read it, and a tile would copy all of it
            variables = replace(variables, memory=None)

        def of(some: Codes, store: Path | None) -> np.ndarray:
            return score_matrix(
                Partial(_ScoreTile(self.model, a, b), variables),
                some,
                codes_b,
                tile=(self.tile, self.tile),
                devices=list(self.mesh.devices.flat),
                progress=progress,
                store=store,
            )

        index, count = hosts.process_share()
        if count == 1:
            found = of(codes_a, store)
        else:
            folder = store / f"{index}-of-{count}" if store else None
            found = in_shares(lambda own: of(own, folder), codes_a, n_items(as_buckets(codes_b)))
        if self.calibration is None or a == b:
            return found
        found = found - self.penalties(variables, a, codes_a)[:, None]
        return found - self.penalties(variables, b, codes_b)[None, :]

    def matrices(
        self,
        variables: Variables,
        split: Split,
        *,
        pairs: Sequence[tuple[str, str]] = (),
        codes: Mapping[str, Codes] | None = None,
        store: Path | None = None,
        tell: bool = False,
    ) -> Iterator[Scored]:
        """The score matrix of every pair of modalities of a split.

        Args:
            variables: of the model, finalised.
            split: the items to encode and score.
            pairs: of modalities; by default all.
            codes: those of the split, if they are known.
            store: a folder to resume an interrupted scoring, see `score_matrix`.
            tell: show the progress of a long scoring.

        Raises:
            UserError: a matrix and the codes do not fit into memory; raised before encoding.
        """
        pairs = pairs or list(itertools.combinations(self.model.modalities, 2))
        sizes = {m: len(split.sources[m]) for m in self.model.modalities}
        held = sum(
            code_bytes(
                self._with_whole_memory[m], variables, inputs, split.sources[m], self.buckets
            )
            for m, inputs in self.model.inputs().items()
        )
        for a, b in pairs:
            check_memory(sizes[a], sizes[b], codes=held)
        codes = self.encode_split(variables, split) if codes is None else codes
        for a, b in pairs:
            what = f"scoring {sizes[a]:,} {a} x {sizes[b]:,} {b} items"
            folder = None if store is None else store / f"{a}-{b}"
            report_progress(compiling=True)
            with Progress(
                0, "tiles", title=what, announce_after=2.0, shown=tell and hosts.is_first()
            ) as progress:
                scores = self.scores(
                    variables, a, codes[a], b, codes[b], progress=_report(progress), store=folder
                )
            yield Scored((a, b), scores, {a: codes[a], b: codes[b]})

    def metrics(
        self,
        variables: Variables,
        split: Split,
        protocols: Sequence[str],
        *,
        codes: Mapping[str, Codes] | None = None,
        store: Path | None = None,
        tell: bool = False,
        more: Callable[[Scored], Mapping[str, float]] | None = None,
    ) -> dict[str, float]:
        """Metrics of ``protocols`` and ``more`` for every pair of modalities of a split.

        Metrics without a direction are means over the pairs; ``rsum`` is their sum. ``codes``,
        ``store`` and ``tell`` are those of `matrices`.

        Raises:
            FoundNonFinite: a score is NaN or infinite.
            UserError: a protocol does not fit the split, or the scores do not fit into memory.
        """
        found: list[dict[str, float]] = []
        pairs = pairs_of(protocols, self.model.modalities)
        given: dict[str, Any] = {"pairs": pairs, "codes": codes, "store": store, "tell": tell}
        for scored in self.matrices(variables, split, **given):
            a, b = scored.modalities
            metrics = evaluate_all(
                protocols,
                scored.scores,
                split.groups[a],
                split.groups[b],
                modalities=(a, b),
                **split.about,
            )
            if more is not None and a != b:
                metrics = {**metrics, **more(scored)}
            found.append(metrics)
        return over_pairs(found)

    def finalized(self, variables: Variables, split: Callable[[str], Split]) -> Variables:
        """Variables for evaluation; encodes the training items if the model needs them.

        ``split`` opens a split by its role.
        """
        variables = self.to_local_devices(variables)
        if not self.model.needs_train:
            return variables
        train = split("train")
        codes = self.encode_split(self.model.before_finalize(variables), train)
        return self.model.finalize(variables, codes, train.rows)


def _report(progress: Progress) -> Report:
    """Report scored tiles to the user and to the watchdog."""

    def report(done: int, total: int) -> None:
        report_progress()
        progress.update(done, total=total)

    return report


class _ScoreTile:
    """``model.score`` as a function of weights and codes; equal for equal models.

    Equality lets a new evaluation reuse the compiled tile of the last one.
    """

    def __init__(self, model: Model, a: str, b: str) -> None:
        self._key = (model, a, b)

    def __call__(self, variables: Variables, codes_a: Codes, codes_b: Codes) -> jax.Array:
        model, a, b = self._key
        return model.score(variables, (a, codes_a), (b, codes_b))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ScoreTile) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        """Equal in every process, because it is part of the key of stored scores."""
        return f"{type(self).__name__}{self._key}"
