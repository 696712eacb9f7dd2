"""Ensembles: the mean of the score matrices of several runs over the same items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmgr_jax.data.split import Split
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.evaluation import results
from hmgr_jax.evaluation.judged import open_judged
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.evaluation.tiles import check_memory
from hmgr_jax.metrics.protocols import evaluate_all, over_pairs, pairs_of
from hmgr_jax.metrics.ranks import require_finite
from hmgr_jax.training import config as configs

Pair = tuple[str, str]


def mean_of_runs(runs: Sequence[Retriever], role: str) -> dict[str, Any]:
    """Evaluate the mean scores of ``runs`` on a split, with the protocols of the first run.

    The systems may differ. Scores are averaged without rescaling, so a system with a wider spread
    of scores has more weight.

    Args:
        runs: two or more runs, which may be equal.
        role: train, dev or test.

    Returns:
        the record of `hmgr_jax.evaluation.results.record` without a step, with ``runs``: the
        model, step and config_hash of each run.

    Raises:
        FoundNonFinite: a score of a run is NaN or infinite.
        UserError: the runs have different items or captions in the split, or the scores do not
            fit into memory; raised before scoring.
    """
    first = runs[0]
    opened = [run.open((role,)) for run in runs]
    splits = [data.splits[role] for data in opened]
    for run, split in zip(runs, splits, strict=True):
        _check_same_items(first, splits[0], run, split)
    names = results.protocols(first.config, role)
    results.check_fit(names, splits[0], first.model.modalities)
    people = open_judged(first.config.eval, splits[0])
    found: list[dict[str, float]] = []
    for (a, b), scores in _mean(runs, splits, role, names).items():
        of_pair = evaluate_all(
            names,
            scores,
            splits[0].groups[a],
            splits[0].groups[b],
            modalities=(a, b),
            **splits[0].about,
        )
        found.append(of_pair)
    metrics = over_pairs(found)
    if people:
        each = [run.judged_scores(people) for run in runs]
        metrics |= people.metrics(np.mean(each, axis=0))
    random = results.chance_of(splits[0], metrics)
    return {
        "model": "+".join(run.config.model.name for run in runs),
        "protocol": ",".join(names),
        "split": role,
        "metrics": metrics,
        "runs": [
            {
                "model": run.config.model.name,
                "step": run.step,
                "config_hash": configs.config_hash(run.config),
            }
            for run in runs
        ],
        "data_fingerprint": opened[0].fingerprint,
        **({"judgments": people.counts()} if people else {}),
        **({"chance": random} if random else {}),
    }


def _mean(
    runs: Sequence[Retriever], splits: Sequence[Split], role: str, names: Sequence[str]
) -> dict[Pair, np.ndarray]:
    """{(modality a, modality b): mean score matrix}; one matrix of a run is in memory at a time."""
    pairs = pairs_of(names, runs[0].model.modalities)
    for a, b in pairs:
        check_memory(len(splits[0].sources[a]), len(splits[0].sources[b]), matrices=2)
    total: dict[Pair, np.ndarray] = {}
    for run, split in zip(runs, splits, strict=True):
        found = run.evaluator.matrices(
            run.variables, split, pairs=pairs, store=run.store(role), tell=True
        )
        for pair, scores, _ in found:
            try:
                require_finite(scores)
            except FoundNonFinite as error:
                raise FoundNonFinite(f"{run.workdir}: {error}") from None
            total.setdefault(pair, np.zeros(scores.shape, np.float32))
            total[pair] += scores
    for scores in total.values():
        scores /= len(runs)
    return total


def _check_same_items(first: Retriever, ours: Split, run: Retriever, theirs: Split) -> None:
    if run.model.modalities != first.model.modalities:
        raise UserError(
            f"{first.workdir} scores {' and '.join(first.model.modalities)}, {run.workdir} scores "
            f"{' and '.join(run.model.modalities)}: give runs on the same items."
        )
    for modality in first.model.modalities:
        for what, a, b in _described(modality, ours, theirs):
            if len(a) != len(b):
                found = f"{len(a)} there and {len(b)} here"
            else:
                places = (i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
                place = next(places, None)
                if place is None:
                    continue
                found = f"number {place} is {a[place]!r} there and {b[place]!r} here"
            raise UserError(
                f"{run.workdir} has other {modality} {what} in {theirs.name} than {first.workdir} "
                f"({found}): give runs on the same items in the same order."
            )


def _described(
    modality: str, ours: Split, theirs: Split
) -> list[tuple[str, Sequence[Any], Sequence[Any]]]:
    """(name, ours, theirs) of everything that must agree for the same items."""
    found: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
        ("ids", ours.ids[modality], theirs.ids[modality]),
        ("groups", ours.groups[modality].tolist(), theirs.groups[modality].tolist()),
    ]
    a, b = (getattr(split.sources[modality], "captions", ()) for split in (ours, theirs))
    return [*found, ("captions", a, b)] if a and b else found
