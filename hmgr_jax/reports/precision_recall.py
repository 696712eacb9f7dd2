"""Precision over recall of a split with labels, as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hmgr_jax.data.split import Split
from hmgr_jax.distributed import hosts
from hmgr_jax.evaluation.evaluate import More, Scored
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.precision import precision_recall
from hmgr_jax.metrics.protocols import get_protocol
from hmgr_jax.metrics.shared_labels import SharedLabels, sharing
from hmgr_jax.reports.grid import save_png
from hmgr_jax.reports.plots import PALETTE

NAME = "precision_recall"
LEVELS = np.linspace(0.0, 1.0, 101)


def reporter(
    folder: Path, split: Split, protocols: Sequence[str], *, title: str, name: str = NAME
) -> More:
    """``more`` of `Evaluator.metrics`: draws precision by recall as ``NAME.png``, adds no metric.

    The first process draws it if a protocol of shared labels is evaluated.
    """
    found: dict[str, np.ndarray] = {}

    def more(scored: Scored) -> dict[str, float]:
        asked = any(isinstance(get_protocol(each), SharedLabels) for each in protocols)
        if asked and hosts.is_first():
            found.update(curves(scored, split))  # one plot for all pairs of modalities
            draw(folder / f"{name}.png", found, title)
        return {}

    return more


def curves(scored: Scored, split: Split) -> dict[str, np.ndarray]:
    """{direction: precision in percent at `LEVELS` of recall}, by shared labels."""
    (a, b), scores = scored.modalities, scored.scores
    found = {}
    for matrix, query, gallery in ((scores, a, b), (scores.T, b, a)):
        matrix, relevant = sharing(matrix, split.labels[query], split.labels[gallery])
        found[direction(query, gallery)] = 100 * precision_recall(matrix, relevant, LEVELS)
    return found


def draw(path: Path, found: Mapping[str, np.ndarray], title: str) -> Path:
    """Plot precision over recall, with one line per direction."""
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(found.items(), PALETTE, strict=False):
        axes.plot(100 * LEVELS, values, lw=1.6, color=color, label=name)
    axes.set(title=title, xlabel="recall, %", ylabel="precision, %", xlim=(0, 100), ylim=(0, 102))
    axes.grid(color="#e4e4e4", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return save_png(figure, path)
