"""The end of a run: the dev-best step on the test split, as ``results.json``, a table and plots."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.open import open_data
from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError
from hmgr_jax.metrics.protocols import Sides, get_protocol
from hmgr_jax.training import answers, by_labels, hosts, judged, object_reports, plots, uncertainty
from hmgr_jax.training import config as configs
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.evaluate import Evaluator, recall_table
from hmgr_jax.training.experiment import Experiment
from hmgr_jax.training.parallel import replicate
from hmgr_jax.training.progress import table
from hmgr_jax.training.records import read_rows
from hmgr_jax.training.workdir import write_json_atomic

FILE, SEEDS = "results.json", "seeds.json"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hmgr-jax")


def protocols(config: ConfigDict, split: str) -> tuple[str, ...]:
    """Names of the protocols by which a split is evaluated."""
    return tuple(config.eval.protocols if split == "test" else config.eval.dev_protocols)


def record(
    config: ConfigDict,
    *,
    protocols: Sequence[str],
    split: str,
    metrics: Mapping[str, float],
    step: int,
    fingerprint: str,
    judgments: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """What is written of an evaluation: the numbers and all that they depend on."""
    return {
        "model": config.model.name,
        "protocol": ",".join(protocols),
        "split": split,
        "metrics": dict(metrics),
        "step": step,
        "config_hash": configs.config_hash(config),
        "data_fingerprint": fingerprint,
        **({"judgments": judgments} if judgments else {}),
    }


def finished(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """Results of the same run if it has finished in ``workdir``.

    Raises:
        UserError: there are results that cannot be read, or of other files of the same names.
    """
    path = workdir / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        same = found["config_hash"] == configs.config_hash(config)
        begun = json.loads((workdir / "config.json").read_bytes()) if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not what a run writes: move it away, or give another --workdir."
        ) from None
    if not same:
        return None
    moved = configs.moved(begun, configs.plain(config))
    if set(moved) == {"data.root"}:  # the same files may lie elsewhere by now
        opened = open_data(config.data)
        if opened.fingerprint == found["data_fingerprint"]:
            return found
    if moved:
        raise UserError(
            f"{workdir} holds the results of a run on other files ({configs.spell(moved)}): give "
            "another --workdir."
        )
    return found


def finish(
    experiment: Experiment, evaluator: Evaluator, checkpoints: Checkpoints, workdir: Path
) -> dict[str, Any]:
    """Evaluate the dev-best step on test and write the plots and, last, ``results.json``."""
    config, splits = experiment.config, experiment.data.splits
    state, _, step = checkpoints.restore(experiment.abstract_state(), checkpoints.best_step())
    if hosts.first():
        _say_if_better_was_lost(workdir, config.eval.select, step)
    variables = replicate(experiment.mesh, state.variables(experiment.test_tables))
    variables = evaluator.finalized(variables, splits["train"])
    title = f"{config.model.name} on {config.name}, test"
    protocols = config.eval.protocols
    more = reports(evaluator, workdir, splits["test"], protocols, title)
    metrics = evaluator.metrics(variables, splits["test"], protocols, tell=True, more=more)
    if config.eval.get("train_gallery"):
        given = splits["test"], splits["train"], protocols
        metrics |= by_labels.against_train(evaluator, variables, *given)
    people = judged.open_judged(config.eval, splits["test"])
    if people:
        words = experiment.data.vocabulary
        scores = people.scores(evaluator, variables, config.data, words)
        try:
            metrics |= people.metrics(scores)
        except UserError as error:  # all scores are equal: the recalls of hours are worth keeping
            warnings.warn(f"no rank correlations: {error}", RuntimeWarning, stacklevel=2)
            people = None
    found = record(
        config,
        protocols=protocols,
        split="test",
        metrics=metrics,
        step=step,
        fingerprint=experiment.data.fingerprint,
        judgments=people.counts() if people else None,
    )
    if hosts.first():
        plots.curves(workdir, step)
        plots.recalls(workdir, metrics, title)
        shown = object_reports.heading(config, protocols, "test")
        object_reports.heat_map(workdir, metrics, experiment.model.modalities, shown)
        write_json_atomic(workdir / FILE, found)  # last: whoever finds it finds everything else
    return found


def reports(
    evaluator: Evaluator,
    workdir: Path,
    split: Split,
    protocols: Sequence[str],
    title: str,
    suffix: str = "",
) -> by_labels.More:
    """``more`` of `Evaluator.metrics`: what is written besides numbers, as far as it applies.

    ``suffix`` follows the names of the files.
    """
    return by_labels.together(
        uncertainty.reporter(
            evaluator, workdir, split, title=title, name=f"{uncertainty.NAME}{suffix}"
        ),
        by_labels.reporter(
            workdir, split, protocols, title=title, name=f"{by_labels.NAME}{suffix}"
        ),
        object_reports.sheets(workdir, split, suffix),
        answers.reporter(workdir, split, suffix),
    )


def _say_if_better_was_lost(workdir: Path, select: str, step: int) -> None:
    """A damaged checkpoint may have been the best one."""
    dev = {row["step"]: row[f"dev/{select}"] for row in _dev_rows(workdir, select)}
    best = max(dev, key=lambda at: (dev[at], -at), default=step)
    if dev.get(best) != dev.get(step):
        warnings.warn(
            f"step {best} was the best on dev ({select} {dev[best]:.1f}), but its checkpoint is "
            f"damaged or gone: step {step} ({dev.get(step, float('nan')):.1f}) is reported",
            RuntimeWarning,
            stacklevel=3,
        )


def _dev_rows(workdir: Path, select: str) -> list[dict[str, float]]:
    return [row for row in read_rows(workdir / "metrics.jsonl") if f"dev/{select}" in row]


def show(results: Mapping[str, Any], data: str) -> None:
    """Print an evaluation on the data set named ``data``: its protocols and its tables."""
    _show_protocols(results)
    runs = results.get("runs")
    what = f"mean scores of {len(runs)} runs" if runs else f"step {results['step']}"
    title = f"{results['model']} on {data}, {results['split']}, {what}"
    graded, rho = (
        {k: v for k, v in results["metrics"].items() if k.startswith(prefix)}
        for prefix in (judged.PREFIX, uncertainty.PREFIX)
    )
    apart = graded | rho
    table(title, recall_table({k: v for k, v in results["metrics"].items() if k not in apart}))
    if graded:
        table("agreement with people", recall_table(graded))
    if rho:
        table("uncertainty", recall_table({k: f"{v:.2f}" for k, v in rho.items()}))


def _show_protocols(results: Mapping[str, Any]) -> None:
    for name in results["protocol"].split(","):
        print(f"{name}: {get_protocol(name).description}")
    for line in judged.describe(results.get("judgments", {}), results["split"]):
        print(line)
    for line in uncertainty.describe(results["metrics"]):
        print(line)


def show_files(results: Mapping[str, Any], workdir: Path) -> None:
    """Print where the files of a finished run lie."""
    for what, path in (
        ("results", FILE),
        ("curves", "curves.png"),
        ("recalls", "recalls.png"),
        ("checkpoint", f"checkpoints/{results['step']}"),
    ):
        print(f"{what + ':':12s}{workdir / path}")
    if (workdir / f"{answers.NAME}.json").is_file():
        print(f"{'answers:':12s}{workdir / answers.NAME}.json")
    if (workdir / f"{by_labels.NAME}.png").is_file():
        print(f"{'precision:':12s}{workdir / by_labels.NAME}.png")
    object_reports.show(workdir)
    show_uncertainty(workdir)


def show_uncertainty(workdir: Path, name: str = uncertainty.NAME) -> None:
    """Print where the report of uncertainties of that name lies, if there is one."""
    for what, path in uncertainty.files(workdir, name).items():
        print(f"{what + ':':12s}{path}")


def spread(runs: Mapping[int, Mapping[str, Any]], data: str, workdir: Path) -> dict[str, Any]:
    """Mean and standard deviation over seeds, printed as a table and written as ``seeds.json``.

    Args:
        runs: {seed: results}.
        data: the name of the data set.
        workdir: where the file goes.
    """
    first = next(iter(runs.values()))
    # A correlation is left out of a run where there was none to find.
    common = [n for n in first["metrics"] if all(n in run["metrics"] for run in runs.values())]
    values = {name: [run["metrics"][name] for run in runs.values()] for name in common}
    summary = {
        name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0}
        for name, v in values.items()
    }
    rows = [
        {"": name, **summary[name]}
        | {f"seed {seed}": value for seed, value in zip(runs, v, strict=True)}
        for name, v in values.items()
    ]
    _show_protocols(first)
    table(f"{first['model']} on {data}, {len(runs)} seeds, {first['split']}", rows)
    each = {name: [run[name] for run in runs.values()] for name in ("step", "config_hash")}
    found = {**first, "metrics": summary, "seeds": list(runs), **each}
    write_json_atomic(workdir / SEEDS, found)
    return found


def check_protocols(experiment: Experiment) -> None:
    """Refuse, before the first step, protocols that do not fit and a selection that none reports.

    Raises:
        UserError: one of them.
    """
    evaluation, modalities = experiment.config.eval, experiment.model.modalities
    for role, names in (("test", evaluation.protocols), ("dev", evaluation.dev_protocols)):
        demand_that_fit(names, experiment.data.splits[role], modalities)
    judged.open_judged(evaluation, experiment.data.splits["test"])
    if evaluation.get("train_gallery"):
        splits = experiment.data.splits
        by_labels.demand_labels(splits["test"], splits["train"], evaluation.protocols)
    known = _metric_names(evaluation.dev_protocols, modalities)
    if evaluation.select not in known:
        raise UserError(
            f"eval.select is {evaluation.select!r}, which eval.dev_protocols do not report: choose "
            f"from {', '.join(known)}."
        )


def demand_that_fit(protocols: Sequence[str], split: Split, modalities: Sequence[str]) -> None:
    """Refuse protocols that do not fit a split, before anything is encoded.

    Raises:
        UserError: the first that does not.
    """
    for a, b in itertools.combinations(modalities, 2):
        sides = Sides(split.groups[a], split.groups[b], (a, b), **split.about)
        for name in protocols:
            get_protocol(name).check(sides)


def _metric_names(protocols: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """What the protocols report of pairs of modalities, in their order."""
    pairs = list(itertools.combinations(modalities, 2))
    found = dict.fromkeys(
        n for name in protocols for pair in pairs for n in get_protocol(name).names(pair)
    )
    return [name for name in found if not name.endswith(("medR", "meanR"))]  # less is better there


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
