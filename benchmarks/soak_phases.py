"""What a run of the soak is doing, seen from outside by what it has written."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak_recipe import EVALUATED, LOGGED, STEPS
from hmgr_jax.training.records import read_rows


@dataclass(frozen=True)
class Pace:
    """Seconds of the three parts of a run that nobody disturbs."""

    first_step: float
    """From the start until the first step is made."""
    training: float
    """From there to the last evaluation."""
    finishing: float
    """From there to its end."""

    def moment(self, draw: random.Random, reached: int) -> tuple[int, float]:
        """A moment, uniform over what a start still has to do where ``reached`` steps were made.

        It is told as (step, seconds): so long after the row of that step, or after the start for
        step 0. Told as seconds alone, runs would get nowhere where the machine becomes busier.
        """
        left = (1 - reached / STEPS) * self.training
        moment = draw.uniform(0, self.first_step + left + self.finishing)
        if moment < self.first_step:
            return 0, moment
        beyond = moment - self.first_step
        if beyond >= left:
            return STEPS, beyond - left
        rows, seconds = divmod(beyond, self.training / STEPS * LOGGED)
        return max(1, reached + int(rows) * LOGGED), seconds


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
