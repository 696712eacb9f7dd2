"""What is reported where a query has many right answers: precision-recall curves, train galleries.

At the end of a run and by ``--mode=evaluate``, of splits with labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import precision_recall
from hmgr_jax.metrics.protocols import get_protocol
from hmgr_jax.metrics.shared_labels import SharedLabels, sharing
from hmgr_jax.models.base import Variables
from hmgr_jax.retrieval.room import demand_room
from hmgr_jax.training import hosts
from hmgr_jax.training.evaluate import Evaluator, Scored
from hmgr_jax.training.plots import PALETTE, save_png

NAME = "precision_recall"
PREFIX = "train_gallery/"
"""Of metrics of queries whose gallery are the training items."""
LEVELS = np.linspace(0.0, 1.0, 101)
More = Callable[[Scored], Mapping[str, float]]


def reporter(
    folder: Path, split: Split, protocols: Sequence[str], *, title: str, name: str = NAME
) -> More:
    """``more`` of `Evaluator.metrics`: draws precision by recall as ``NAME.png``, adds no number.

    Only where a protocol of shared labels is asked for, and by the first process.
    """
    found: dict[str, np.ndarray] = {}

    def more(scored: Scored) -> dict[str, float]:
        asked = any(isinstance(get_protocol(each), SharedLabels) for each in protocols)
        if asked and hosts.first():
            found.update(curves(scored, split))  # of several pairs of modalities one picture
            draw(folder / f"{name}.png", found, title)
        return {}

    return more


def together(*reports: More) -> More:
    """Several of them as one."""

    def more(scored: Scored) -> dict[str, float]:
        found: dict[str, float] = {}
        for report in reports:
            found |= report(scored)
        return found

    return more


def curves(scored: Scored, split: Split) -> dict[str, np.ndarray]:
    """{direction: precision at `LEVELS` of recall, in percent}; right is what shares a label."""
    (a, b), scores = scored.modalities, scored.scores
    found = {}
    for matrix, query, gallery in ((scores, a, b), (scores.T, b, a)):
        relevant = sharing(split.labels[query], split.labels[gallery])
        found[direction(query, gallery)] = 100 * precision_recall(matrix, relevant, LEVELS)
    return found


def draw(path: Path, found: Mapping[str, np.ndarray], title: str) -> Path:
    """Precision over recall, a line a direction."""
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(found.items(), PALETTE, strict=False):
        axes.plot(100 * LEVELS, values, lw=1.6, color=color, label=name)
    axes.set(title=title, xlabel="recall, %", ylabel="precision, %", xlim=(0, 100), ylim=(0, 102))
    axes.grid(color="#e4e4e4", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return save_png(figure, path)


def demand_labels(queries: Split, train: Split, protocols: Sequence[str]) -> None:
    """Refuse a search of the training items that nothing could judge.

    Raises:
        UserError: no protocol of shared labels is among them, or labels are missing.
    """
    judged = any(isinstance(get_protocol(name), SharedLabels) for name in protocols)
    if not judged or not queries.labels or not train.labels:
        raise UserError(
            "eval.train_gallery needs labels of test and train and a protocol map or map_relevant "
            "in eval.protocols: add them, or set it to false."
        )


def against_train(
    evaluator: Evaluator,
    variables: Variables,
    queries: Split,
    train: Split,
    protocols: Sequence[str],
) -> dict[str, float]:
    """Metrics of queries whose gallery are the training items of the other modality (SCKR).

    Args:
        evaluator: of the model.
        variables: finalised.
        queries: the split that asks.
        train: the split that is searched.
        protocols: of these the ones of shared labels are reported, with `PREFIX` in front.

    Raises:
        UserError: see `demand_labels`.
    """
    demand_labels(queries, train, protocols)
    chosen = [p for p in map(get_protocol, protocols) if isinstance(p, SharedLabels)]
    found: dict[str, float] = {}
    for a, b in itertools.permutations(evaluator.model.modalities, 2):
        demand_room(len(queries.sources[a]), len(train.sources[b]), codes=0)
        codes = {
            a: evaluator.encode(variables, a, queries.sources[a]),
            b: evaluator.encode(variables, b, train.sources[b]),
        }
        first, second = sorted((a, b), key=evaluator.model.modalities.index)
        scores = evaluator.scores(variables, first, codes[first], second, codes[second])
        matrix = scores if first == a else scores.T
        relevant = sharing(queries.labels[a], train.labels[b])
        for protocol in chosen:
            of_direction = protocol.of_direction(matrix, relevant, direction(a, b))
            found |= {f"{PREFIX}{name}": value for name, value in of_direction.items()}
    return found
