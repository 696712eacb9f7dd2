"""Results of a run: ``results.json``, whether it has finished, and which protocols fit."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hmgr_jax.data.open import open_data
from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import by_labels, judged
from hmgr_jax.files import digests
from hmgr_jax.files.reading import read_object
from hmgr_jax.files.workdir import CONFIG, RESULTS
from hmgr_jax.metrics.directions import chance_of_both, direction
from hmgr_jax.metrics.protocols import Sides, get_protocol
from hmgr_jax.training import config as configs
from hmgr_jax.training.experiment import Experiment
from hmgr_jax.training.records import METRICS, MetricLog

SEEDS = "seeds.json"
FEW = 1000
"""A split of fewer items has its chance beside its recalls."""


def protocols(config: ConfigDict, split: str) -> tuple[str, ...]:
    """Names of the protocols of a split."""
    return tuple(config.eval.protocols if split == "test" else config.eval.dev_protocols)


def record(
    config: ConfigDict,
    *,
    protocols: Sequence[str],
    split: str,
    items: Split,
    metrics: Mapping[str, float],
    step: int,
    fingerprint: str,
    judgments: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """The record of an evaluation: metrics, and what identifies model, run and data.

    A split of fewer than `FEW` items also has the recalls of chance.
    """
    random = chance_of(items, metrics)
    return {
        "model": config.model.name,
        "protocol": ",".join(protocols),
        "split": split,
        "metrics": dict(metrics),
        "step": step,
        "config_hash": configs.config_hash(config),
        "data_fingerprint": fingerprint,
        **({"judgments": judgments} if judgments else {}),
        **({"chance": random} if random else {}),
    }


def chance_of(split: Split, metrics: Mapping[str, float]) -> dict[str, float]:
    """{metric: percent of a random order} of the recalls among ``metrics``; empty if of `FEW`."""
    if min(len(groups) for groups in split.groups.values()) >= FEW:
        return {}
    found: dict[str, float] = {}
    for a, b in itertools.combinations(split.groups, 2):
        if any(name.startswith(f"{direction(a, b)}/R@") for name in metrics):
            found |= chance_of_both(split.groups[a], split.groups[b], (a, b))
    return {name: value for name, value in found.items() if name in metrics}


def finished(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """Results of the same configuration in ``workdir``, or None; warns if they are not verified.

    Raises:
        UserError: the results cannot be read, were changed, or are of other files of the same
            names.
    """
    path, again = workdir / RESULTS, "remove it, and the same command computes it again"
    if not path.is_file():
        return None
    found = read_object(path, "move it away, or give another --workdir.")
    if not {"config_hash", "data_fingerprint", "metrics"} <= found.keys():
        raise UserError(
            f"{path} is not the results of a run: move it away, or give another --workdir."
        )
    if found["config_hash"] != configs.config_hash(config):
        return None
    known = digests.read(workdir / digests.RUN)
    if known is None:
        warnings.warn(
            f"{path} is not verified: {workdir / digests.RUN} is missing or damaged",
            RuntimeWarning,
            stacklevel=2,
        )
    elif RESULTS not in known["files"]:  # the run was killed between writing the two
        return None
    digests.check_run(workdir, RESULTS, again)
    digests.check_run(workdir, CONFIG, f"remove it and {RESULTS}, and the same command writes them")
    MetricLog(workdir).check(known and known["files"].get(METRICS))
    begun = read_object(workdir / CONFIG, f"remove {path} too, and the same command writes both.")
    moved = configs.moved(begun, configs.plain(config))
    if set(moved) == {"data.root"}:  # the same files may have moved
        opened = open_data(config.data)
        if opened.fingerprint == found["data_fingerprint"]:
            return found
    if moved:
        raise UserError(
            f"{workdir} holds the results of a run on other files "
            f"({configs.format_differences(moved)}): give another --workdir."
        )
    return found


def check_protocols(experiment: Experiment) -> None:
    """Check protocols and ``eval.select`` before the first step.

    Raises:
        UserError: a protocol does not fit the data, or none reports the selected metric.
    """
    evaluation, modalities = experiment.config.eval, experiment.model.modalities
    for role, names in (("test", evaluation.protocols), ("dev", evaluation.dev_protocols)):
        check_fit(names, experiment.data.splits[role], modalities)
    judged.open_judged(evaluation, experiment.data.splits["test"])
    if evaluation.get("train_gallery"):
        splits = experiment.data.splits
        by_labels.check_labels(splits["test"], splits["train"], evaluation.protocols)
    known = _metric_names(evaluation.dev_protocols, modalities)
    if evaluation.select not in known:
        raise UserError(
            f"eval.select is {evaluation.select!r}, which eval.dev_protocols do not report: choose "
            f"from {', '.join(known)}."
        )


def check_fit(protocols: Sequence[str], split: Split, modalities: Sequence[str]) -> None:
    """Check that protocols fit a split, before encoding.

    Raises:
        UserError: of the first protocol that does not fit.
    """
    for a, b in itertools.combinations(modalities, 2):
        sides = Sides(split.groups[a], split.groups[b], (a, b), **split.about)
        for name in protocols:
            get_protocol(name).check(sides)


def _metric_names(protocols: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Metrics of the protocols for pairs of modalities, in order."""
    pairs = list(itertools.combinations(modalities, 2))
    found = dict.fromkeys(
        n for name in protocols for pair in pairs for n in get_protocol(name).names(pair)
    )
    return [name for name in found if not name.endswith(("medR", "meanR"))]  # lower is better
