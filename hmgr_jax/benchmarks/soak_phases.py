"""What a run of the soak is doing, seen from outside by what it has written."""

from __future__ import annotations

from pathlib import Path

from hmgr_jax.benchmarks.soak_recipe import EVALUATED, LOGGED, STEPS
from hmgr_jax.training.records import read_rows


def phase(workdir: Path, said: Path) -> str:
    """One of starting, compiling, training, evaluating, saving, finishing.

    Args:
        workdir: of the run.
        said: the file of its standard output since it was started last.
    """
    text = said.read_text(errors="replace") if said.exists() else ""
    if "steps of" not in text:
        return "starting"
    if list((workdir / "checkpoints").glob("*tmp*")):
        return "saving"
    if "epoch " not in text:
        return "compiling"
    rows, last = read_rows(workdir / "metrics.jsonl"), last_step(workdir)
    evaluated = any(row["step"] == last and "loss" not in row for row in rows[-2:])
    if last == STEPS and evaluated:
        return "finishing"
    if last and last % EVALUATED == 0 and last % LOGGED == 0 and not evaluated:
        return "evaluating"
    return "training"


def last_step(workdir: Path) -> int:
    """The last step of which there is a row; 0 where there is none."""
    rows = read_rows(workdir / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0
