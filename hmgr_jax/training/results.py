"""The end of a run: the dev-best step on the test split, as ``results.json``, a table and plots."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.metrics.protocols import Sides, get_protocol
from hmgr_jax.training import config as configs
from hmgr_jax.training import plots
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.evaluate import Evaluator, recall_table
from hmgr_jax.training.experiment import Experiment
from hmgr_jax.training.parallel import replicate
from hmgr_jax.training.progress import table
from hmgr_jax.training.workdir import write_json_atomic

FILE = "results.json"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "hmgr-jax")


def finished(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """Results of the same run if it has finished in ``workdir``."""
    path = workdir / FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    return found if found["config_hash"] == configs.config_hash(config) else None


def finish(
    experiment: Experiment, evaluator: Evaluator, checkpoints: Checkpoints, workdir: Path
) -> dict[str, Any]:
    """Evaluate the dev-best step on test and write ``results.json`` and the plots."""
    config, splits = experiment.config, experiment.data.splits
    state, _, step = checkpoints.restore(experiment.abstract_state(), checkpoints.best_step())
    variables = replicate(experiment.mesh, state).variables(None)
    variables = evaluator.finalized(variables, splits["train"])
    metrics = evaluator.metrics(variables, splits["test"], config.eval.protocols)
    results = {
        "model": config.model.name,
        "data": config.name,
        "protocol": ",".join(config.eval.protocols),
        "split": "test",
        "metrics": metrics,
        "step": step,
        "seed": config.seed,
        "config_hash": configs.config_hash(config),
        "data_fingerprint": experiment.data.fingerprint,
    }
    write_json_atomic(workdir / FILE, results)
    plots.curves(workdir, step)
    plots.recalls(workdir, metrics, f"{config.model.name} on {config.name}, test")
    return results


def show(results: Mapping[str, Any], workdir: Path) -> None:
    """Print a run's results: protocol, table, and where its files lie."""
    title = f"{results['model']} on {results['data']}, {results['split']}, step {results['step']}"
    for name in results["protocol"].split(","):
        print(f"{name}: {get_protocol(name).description}")
    table(title, recall_table(results["metrics"]))
    for what, path in (
        ("results", FILE),
        ("curves", "curves.png"),
        ("recalls", "recalls.png"),
        ("checkpoint", f"checkpoints/{results['step']}"),
    ):
        print(f"{what + ':':12s}{workdir / path}")


def spread(runs: Sequence[Mapping[str, Any]], workdir: Path) -> dict[str, Any]:
    """Mean and standard deviation over seeds, printed as a table and written as ``seeds.json``."""
    names = list(runs[0]["metrics"])
    values = {name: [run["metrics"][name] for run in runs] for name in names}
    summary = {
        name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0}
        for name, v in values.items()
    }
    rows = [
        {"": name, "mean": s["mean"], "std": s["std"]}
        | {f"seed {run['seed']}": run["metrics"][name] for run in runs}
        for name, s in summary.items()
    ]
    table(f"{runs[0]['model']} on {runs[0]['data']}, {len(runs)} seeds, test", rows)
    record = {**runs[0], "metrics": summary, "seeds": [run["seed"] for run in runs]}
    record["step"] = [run["step"] for run in runs]
    del record["seed"]
    write_json_atomic(workdir / "seeds.json", record)
    return record


def check_protocols(experiment: Experiment) -> None:
    """Refuse protocols that do not fit the splits, before the first step."""
    evaluation, modalities = experiment.config.eval, experiment.model.modalities
    for role, names in (("test", evaluation.protocols), ("dev", evaluation.dev_protocols)):
        split = experiment.data.splits[role]
        a, b = modalities[:2]
        sides = Sides(split.groups[a], split.groups[b], (a, b), split.families)
        for name in names:
            get_protocol(name).check(sides)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
