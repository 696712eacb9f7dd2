"""Quality and speed of re-ranking a shortlist, beside an exhaustive search."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np

from hmgr_jax import bench
from hmgr_jax.benchmarks.program import median_time
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.metrics.directions import direction
from hmgr_jax.metrics.ranks import ranks, recalls
from hmgr_jax.search.gallery import Gallery, of_split
from hmgr_jax.search.searcher import Searcher

SPLITS = ("train", "dev", "test")
BEST = 10


def run(
    workdir: str = "", split: str = "test", candidates: str = "20,50,100", repeats: int = 3
) -> dict[str, Any]:
    """Search the items of a split in both directions, exhaustively and by shortlists.

    The time of encoding is not measured. An exhaustive search scores all pairs in tiles; a
    shortlist is chosen by inner products, and then its pairs are scored. Times are for all queries
    together, medians of ``repeats`` calls after one that compiles.

    Returns:
        a row for JSON: for each direction the recalls (percent; an item outside the shortlist ranks
        last) and seconds, exhaustive and for each number of ``candidates``, with ``kept`` (share of
        the exhaustive best ten that is found, 0 to 1) and ``speedup``.

    Raises:
        UserError: no run, a system whose score is an inner product, or invalid candidates.
    """
    if not workdir:
        raise UserError("--workdir is missing: give the folder of a trained run.")
    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}.")
    counts = _counts(candidates)
    retriever = Retriever.load(workdir)
    name = retriever.config.model.name
    if retriever.model.coarse_exact:
        raise UserError(
            f"{workdir} holds a {name}, whose score is an inner product, so no shortlist is "
            "needed: give a run that scores pairs, such as imram."
        )
    a, b = (of_split(retriever, split, m) for m in retriever.model.modalities[:2])
    return {
        "benchmark": "shortlist",
        "workdir": str(workdir),
        "model": name,
        "step": retriever.step,
        "split": split,
        "directions": {
            direction(asked.modality, searched.modality): _direction(
                retriever, asked, searched, counts, max(1, repeats)
            )
            for asked, searched in ((a, b), (b, a))
        },
    }


def _direction(
    retriever: Retriever, asked: Gallery, searched: Gallery, counts: list[int], repeats: int
) -> dict[str, Any]:
    codes = {g.modality: g.codes(retriever) for g in (asked, searched)}
    searcher = Searcher.build(retriever, searched)
    groups = retriever.open((asked.split,)).splits[asked.split].groups
    own = groups[asked.modality], groups[searched.modality]
    a, b = asked.modality, searched.modality
    seconds, (order, scores) = median_time(
        lambda: retriever.search((a, codes[a]), (b, codes[b]), len(searched.items)), repeats
    )
    whole = np.empty_like(scores)
    np.put_along_axis(whole, order, scores, axis=1)
    rows = []
    for count in (min(count, len(searched.items)) for count in counts):
        taken, (numbers, found) = median_time(
            partial(searcher.search, a, codes[a], count, candidates=count), repeats
        )
        below = np.full_like(whole, min(whole.min(), found.min()) - 1)
        np.put_along_axis(below, numbers, found, axis=1)
        best = zip(numbers[:, :BEST], order[:, :BEST], strict=True)
        kept = np.mean([len(np.intersect1d(*pair)) / len(pair[1]) for pair in best])
        rows.append(
            {"candidates": count, "seconds": round(taken, 4), "speedup": round(seconds / taken, 2)}
            | {"kept": round(float(kept), 4)}
            | recalls(ranks(below, *own))
        )
    return {
        "queries": len(asked.items),
        "gallery": len(searched.items),
        "exhaustive": {"seconds": round(seconds, 4)} | recalls(ranks(whole, *own)),
        "shortlists": rows,
    }


def _counts(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise UserError(f"--candidates must be numbers such as 20,50,100, got {text!r}.")
    return found


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
