"""Does a model's uncertainty rise when words are dropped and regions erased?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.damaged import Erased, FewerRegions, FewerWords
from hmgr_jax import bench
from hmgr_jax.data.split import Source, Split
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.evaluation.arrays import COUNTS
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.metrics.ranks import ranks, recalls
from hmgr_jax.metrics.uncertainty import spearman
from hmgr_jax.models.base import Feature
from hmgr_jax.reports.grid import save_png
from hmgr_jax.reports.plots import PALETTE

FILE, PLOT = "sigma.json", "sigma.png"
SPLITS = ("train", "dev", "test")


class Damage(NamedTuple):
    """How items of a modality lose parts."""

    unit: str
    """The unit of a level."""
    levels: Sequence[float]
    """Ascending from 0."""
    at: Callable[[Source, float], Source]
    """(source, level) -> the same items with that much removed."""


def run(
    workdir: str = "",
    split: str = "test",
    words: str = "0,1,2,3,4,5,6",
    shares: str = "0,0.1,0.2,0.3,0.4,0.5",
    seed: int = 0,
    recall: int = 1,
) -> dict[str, Any]:
    """Encode the items of a split with parts removed, and measure the model's uncertainty.

    ``words`` lists numbers of words that captions lose; ``shares`` lists the share of regions that
    images lose, or the share of the area that is erased from pictures. Level 0 is always measured.
    Uncertainty is `Model.uncertainty`, for PCME the geometric mean of sigma. ``--recall 0`` leaves
    out R@1, which takes most of the time for many items. Writes ``sigma.json`` and ``sigma.png``
    into ``workdir``.

    Returns:
        a row for JSON, with ``sides``, {modality: see `summarize_side`}.

    Raises:
        UserError: no run, a system without uncertainties, or invalid levels.
    """
    if not workdir:
        raise UserError("--workdir is missing: give the folder of a trained run.")
    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}.")
    levels = {"words": _levels(words, "words", whole=True), "shares": _levels(shares, "shares")}
    retriever = Retriever.load(workdir)
    data = retriever.open((split,))
    damages = {m: choose_damage(f, levels, seed) for m, f in retriever.model.inputs().items()}
    sides = study(retriever, data.splits[split], damages, bool(recall))
    model = retriever.config.model.name
    if not sides:
        raise UserError(
            f"{workdir} holds a {model}, which has no uncertainties: give the --workdir of a "
            "system that has them, such as pcme."
        )
    row = {"benchmark": "sigma", "workdir": str(workdir), "model": model, "step": retriever.step}
    row |= {"split": split, "data_fingerprint": data.fingerprint, "seed": seed, "sides": sides}
    draw(Path(workdir) / PLOT, sides, f"{model} on {retriever.config.name}, {split}")
    write_json_atomic(Path(workdir) / FILE, row)
    return row


def choose_damage(
    inputs: Mapping[str, Feature], levels: Mapping[str, Sequence[float]], seed: int
) -> Damage:
    """The damage that fits items with these ``inputs``: to words, pixels, regions or frames."""
    if "tokens" in inputs:
        return Damage("words", levels["words"], lambda s, k: FewerWords(s, int(k), seed))
    if "pixels" in inputs:
        return Damage("share of the pixels", levels["shares"], lambda s, x: Erased(s, x, seed))
    number = next(name for name in COUNTS if name in inputs)
    name = COUNTS[number]
    return Damage(
        f"share of the {name}",
        levels["shares"],
        lambda s, x: FewerRegions(s, x, seed, name=name, number=number),
    )


def study(
    retriever: Retriever, split: Split, damages: Mapping[str, Damage], recall: bool = True
) -> dict[str, dict[str, Any]]:
    """{modality: row of `summarize_side`} of the modalities that have uncertainties.

    Recall is that of damaged queries in a gallery of undamaged items.
    """
    evaluator, variables = retriever.evaluator, retriever.variables
    whole = evaluator.encode_split(variables, split)
    a, b = evaluator.model.modalities[:2]
    sides = {}
    for modality, how in damages.items():
        if evaluator.uncertainty(whole[modality]) is None:
            continue
        sigmas: list[Any] = []
        found: list[float] = []
        for level in how.levels:
            source = how.at(split.sources[modality], level)
            codes = whole | {modality: evaluator.encode(variables, modality, source)}
            sigmas.append(evaluator.uncertainty(codes[modality]))
            if recall:
                scores = evaluator.scores(variables, a, codes[a], b, codes[b])
                scores, other = (scores, b) if modality == a else (scores.T, a)
                rank = ranks(scores, split.groups[modality], split.groups[other])
                found.append(recalls(rank, (1,))["R@1"])
        sides[modality] = summarize_side(how, np.stack(sigmas), found)
    return sides


def summarize_side(how: Damage, sigma: np.ndarray, recall: Sequence[float]) -> dict[str, Any]:
    """Statistics of the uncertainties [levels, n] of a side; ``recall`` is R@1 of every level.

    Returns:
        ``removed`` (the unit of levels), ``items``, ``levels`` (a row each: ``level``, the mean
        ``sigma``, its standard error ``sigma_se``, ``R@1`` in percent), ``spearman`` (-1..1, of
        level and uncertainty over all pairs of item and level; None without two different
        values), and ``rose``, the percentage of items less certain at the last level than at 0.

    Raises:
        FoundNonFinite: an uncertainty is NaN or infinite.
    """
    sigma = np.asarray(sigma, np.float64)
    if not np.isfinite(sigma).all():
        level, item = np.argwhere(~np.isfinite(sigma))[0].tolist()
        raise FoundNonFinite(
            f"the uncertainty of item {item} without {how.levels[level]} ({how.unit}) is "
            f"{sigma[level, item]}"
        )
    n = sigma.shape[1]
    rows = []
    for place, (level, of_level) in enumerate(zip(how.levels, sigma, strict=True)):
        error = float(of_level.std(ddof=1) / n**0.5) if n > 1 else None
        row = {"level": level, "sigma": float(of_level.mean()), "sigma_se": error}
        rows.append(row | ({"R@1": recall[place]} if recall else {}))
    return {
        "removed": how.unit,
        "items": n,
        "levels": rows,
        "spearman": spearman(np.repeat(how.levels, n), sigma.reshape(-1)),
        "rose": 100.0 * int(np.count_nonzero(sigma[-1] > sigma[0])) / n,
    }


def draw(path: Path, sides: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Plot the mean uncertainty with its standard error by level, and R@1, one panel per side."""
    figure = Figure(figsize=(5.2 * len(sides), 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for place, (modality, side) in enumerate(sides.items(), start=1):
        axes = figure.add_subplot(1, len(sides), place)
        levels, means, errors = (
            [row[name] for row in side["levels"]] for name in ("level", "sigma", "sigma_se")
        )
        bars = [error or 0.0 for error in errors]
        axes.errorbar(levels, means, bars, color=PALETTE[0], marker="o", ms=4, lw=1.4, capsize=2)
        rho = "none" if side["spearman"] is None else f"{side['spearman']:.2f}"
        axes.set_title(f"{side['items']:,} {modality} items, Spearman's rho {rho}", fontsize=10)
        axes.set_xlabel(f"removed: {side['removed']}")
        axes.set_ylabel("mean uncertainty", color=PALETTE[0])
        axes.spines[["top"]].set_visible(False)
        if "R@1" in side["levels"][0]:
            right = axes.twinx()
            found = [row["R@1"] for row in side["levels"]]
            right.plot(levels, found, color=PALETTE[1], marker="s", ms=3, lw=1.2, ls="--")
            right.set_ylim(bottom=0)
            right.set_ylabel("R@1, %", color=PALETTE[1])
            right.spines[["top"]].set_visible(False)
    save_png(figure, path)


def _levels(text: str, flag: str, *, whole: bool = False) -> list[float]:
    """The sorted numbers of an option, with 0."""
    try:
        found: set[float] = {int(part) if whole else float(part) for part in text.split(",")}
    except ValueError:
        found = set()
    if not found - {0} or not all(level >= 0 and (whole or level < 1) for level in found):
        what = "numbers of words, such as 0,1,2,3" if whole else "shares below 1, such as 0,0.2,0.4"
        raise UserError(f"--{flag} must list {what}, got {text!r}.")
    return sorted(found | {0})


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
