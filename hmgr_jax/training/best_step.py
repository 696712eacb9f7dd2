"""Which checkpoints of a run are kept, and which is the best."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmgr_jax.files import digests
from hmgr_jax.training.orbax_folder import METRIC, OrbaxFolder


class NewestAndBest:
    """Orbax preservation policy: the newest ``keep`` steps and the one with the best metric.

    ``metrics`` maps a step to its metric (higher is better), None without an evaluation; the
    earliest of equal steps is the best.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.metrics: dict[int, float | None] = {}

    def best(self, steps: Sequence[int]) -> int | None:
        """The best of ``steps``; None if none was evaluated."""
        return _best({step: self.metrics.get(step) for step in steps})

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of ``checkpoints`` (oldest first) are kept; called by Orbax."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.keep :], self.best(steps)}
        return [step in kept for step in steps]

    def read(self, folder: OrbaxFolder, step: int, known: Mapping[str, Any] | None) -> None:
        """Read the metric of a step; ``known`` is what its digests say, None without digests.

        Digests of older versions have no metric but vouch for its file; if that is damaged, the
        metric is unknown, with a warning.
        """
        self.metrics[step] = folder.metric(step)
        if known is None:
            return
        if "metric" in known:
            self.metrics[step] = known["metric"]
            return
        listed = {name: entry for name, entry in known["files"].items() if name == METRIC}
        if damage := digests.first_damage(folder.directory / str(step), listed):
            self.metrics[step] = None
            warnings.warn(
                f"the metric of step {step} is damaged, so it is unknown whether this step is the "
                f"best ({damage})",
                RuntimeWarning,
                stacklevel=5,
            )

    def warn_of_better(self, step: int, folder: Path) -> None:
        """Warn if digests in ``folder`` list a better step than ``step``: the best one is kept."""
        known = {step: self.metrics.get(step)}
        for file in folder.glob("[0-9]*.json"):
            found = digests.read(file) or {}
            known.setdefault(int(file.name.partition(".")[0]), found.get("metric"))
        better = _best(known)
        if better not in (None, step):
            warnings.warn(
                f"step {better} was the best on dev ({_shown(known[better])}), but its checkpoint "
                f"is damaged or gone: step {step} ({_shown(known[step])}) is used",
                RuntimeWarning,
                stacklevel=5,
            )


def _best(metrics: Mapping[int, float | None]) -> int | None:
    """The step with the best metric, the earliest of equals."""
    known = [(value, -step) for step, value in metrics.items() if value is not None]
    return -max(known)[1] if known else None


def _shown(metric: float | None) -> str:
    return "not evaluated" if metric is None else f"{metric:.1f}"
