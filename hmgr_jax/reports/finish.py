"""Evaluation of a run during training and at its end: metrics, plots and ``results.json``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.split import Split
from hmgr_jax.data.vqa.questions import ANSWER, QUESTION
from hmgr_jax.distributed import hosts
from hmgr_jax.distributed.parallel import place
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import by_labels, judged
from hmgr_jax.evaluation.evaluate import Evaluator, More, Scored
from hmgr_jax.evaluation.finalized import finalize
from hmgr_jax.evaluation.results import SEEDS, check_protocols, record
from hmgr_jax.files import digests
from hmgr_jax.files.workdir import RESULTS, write_json_atomic
from hmgr_jax.metrics.protocols import get_protocol
from hmgr_jax.metrics.vqa import chosen
from hmgr_jax.models.base import Variables
from hmgr_jax.progress import table
from hmgr_jax.reports import object_reports, plots, precision_recall, uncertainty
from hmgr_jax.shapes import Tree
from hmgr_jax.training.checkpoint import Checkpoints
from hmgr_jax.training.config import data_name
from hmgr_jax.training.experiment import Experiment

ANSWERS = "answers"


class RunEvaluation:
    """Evaluates a run on dev during training, and the selected step on test at its end.

    Raises:
        UserError: a protocol does not fit the data, or none reports the metric of ``eval.select``.
    """

    def __init__(self, experiment: Experiment, workdir: Path) -> None:
        check_protocols(experiment)
        self.experiment, self.workdir = experiment, workdir
        self.evaluator = Evaluator.of(experiment.config, experiment.model, experiment.mesh)

    def on_dev(self, variables: Variables) -> dict[str, float]:
        """Metrics of the dev split."""
        evaluator, splits = self.evaluator, self.experiment.data.splits
        model, names = self.experiment.model, self.experiment.config.eval.dev_protocols
        variables = evaluator.finalized(variables, splits.__getitem__)
        if not model.remembers:
            return evaluator.metrics(variables, splits["dev"], names)
        # Without the memory first: the memory reads the same codes.
        codes = evaluator.encode_split(model.before_finalize(variables), splits["dev"])
        without = evaluator.metrics(variables, splits["dev"], names, codes=codes)
        after, report = model.memory_report(variables, codes)
        found = without
        if report:  # the memory is awake
            found = evaluator.metrics(variables, splits["dev"], names, codes=after)
        select = self.experiment.config.eval.select
        return {**found, f"memory/without/{select}": without[select], **report}

    def finish(self, checkpoints: Checkpoints, tables: Tree) -> dict[str, Any]:
        """Evaluate the selected step on test; write plots and, last, ``results.json``.

        ``tables`` are those of the model at evaluation.
        """
        experiment, evaluator, workdir = self.experiment, self.evaluator, self.workdir
        config, splits = experiment.config, experiment.data.splits
        state, _, step = checkpoints.restore(experiment.abstract_state(), best=True)
        split = bool(experiment.model.split_slots)
        variables = place(experiment.mesh, state.variables(tables), split_memory=split)
        evaluator, variables = finalize(
            evaluator, variables, config, workdir, step, splits.__getitem__
        )
        if hosts.is_first() and evaluator.calibration is not None:
            print(evaluator.calibration.describe(), flush=True)
        title = f"{config.model.name} on {data_name(config)}, test"
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
            except UserError as error:  # all scores are equal; the recalls are still useful
                warnings.warn(f"no rank correlations: {error}", RuntimeWarning, stacklevel=2)
                people = None
        found = record(
            config,
            protocols=protocols,
            split="test",
            items=splits["test"],
            metrics=metrics,
            step=step,
            fingerprint=experiment.data.fingerprint,
            judgments=people.counts() if people else None,
        )
        if hosts.is_first():
            plots.curves(workdir, step)
            plots.recalls(workdir, metrics, title)
            shown = object_reports.heading(config, protocols, "test")
            object_reports.heat_map(workdir, metrics, experiment.model.modalities, shown)
            write_json_atomic(workdir / RESULTS, found)
            digests.write_run(workdir)  # last: it marks a finished run
        return found


def reports(
    evaluator: Evaluator,
    workdir: Path,
    split: Split,
    protocols: Sequence[str],
    title: str,
    suffix: str = "",
    failed: list[OSError] | None = None,
) -> More:
    """``more`` of `Evaluator.metrics`: writes all reports that fit the split and the system.

    ``suffix`` follows the names of the files. Errors of the system, such as a full disk, are added
    to ``failed``, so that the evaluation goes on; without it they are raised.
    """
    names = (f"{name}{suffix}" for name in (uncertainty.NAME, precision_recall.NAME))
    each = (
        uncertainty.reporter(evaluator, workdir, split, title=title, name=next(names)),
        precision_recall.reporter(workdir, split, protocols, title=title, name=next(names)),
        object_reports.sheets(workdir, split, suffix),
        _answers(workdir, split, suffix),
    )

    def more(scored: Scored) -> dict[str, float]:
        found: dict[str, float] = {}
        for report in each:
            try:
                found |= report(scored)
            except OSError as error:
                if failed is None:
                    raise
                failed.append(error)
        return found

    return more


def _answers(workdir: Path, split: Split, suffix: str) -> More:
    """``more`` of `Evaluator.metrics`: the first process writes ``answers.json`` of questions.

    The file is a list of {"question_id", "answer"} in the order of the split, as VQA's servers
    expect; ids that are whole numbers are written as such. It adds no metric.
    """

    def more(scored: Scored) -> dict[str, float]:
        if scored.modalities == (QUESTION, ANSWER) and hosts.is_first():
            answers, ids = split.ids[ANSWER], split.ids[QUESTION]
            given = [
                {"question_id": int(name) if name.isdigit() else name, "answer": answers[best]}
                for name, best in zip(ids, chosen(scored.scores).tolist(), strict=True)
            ]
            write_json_atomic(workdir / f"{ANSWERS}{suffix}.json", given)
        return {}

    return more


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
    shown = {k: v for k, v in results["metrics"].items() if k not in apart}
    random = {f"chance, {name}": value for name, value in results.get("chance", {}).items()}
    table(title, recall_table(shown | random))
    if graded:
        table("agreement with people", recall_table(graded))
    if rho:
        table("uncertainty", recall_table({k: f"{v:.2f}" for k, v in rho.items()}))


def recall_table(metrics: Mapping[str, float | str]) -> list[dict[str, float | str]]:
    """Metrics as rows of a table, one per direction and protocol."""
    rows: dict[str, dict[str, float | str]] = {}
    for name, value in metrics.items():
        direction, _, measure = name.rpartition("/")
        whole = "sum" if measure == "rsum" else "mean"
        rows.setdefault(direction or whole, {"": direction or whole})[measure] = value
    return list(rows.values())


def _show_protocols(results: Mapping[str, Any]) -> None:
    for name in results["protocol"].split(","):
        print(f"{name}: {get_protocol(name).description}")
    for line in judged.describe(results.get("judgments", {}), results["split"]):
        print(line)
    for line in uncertainty.describe(results["metrics"]):
        print(line)


def show_files(results: Mapping[str, Any], workdir: Path) -> None:
    """Print the paths of the files of a finished run."""
    for what, path in (
        ("results", RESULTS),
        ("curves", "curves.png"),
        ("recalls", "recalls.png"),
        ("checkpoint", f"checkpoints/{results['step']}"),
    ):
        print(f"{what + ':':12s}{workdir / path}")
    if (workdir / f"{ANSWERS}.json").is_file():
        print(f"{'answers:':12s}{workdir / ANSWERS}.json")
    if (workdir / f"{precision_recall.NAME}.png").is_file():
        print(f"{'precision:':12s}{workdir / precision_recall.NAME}.png")
    object_reports.show(workdir)
    show_uncertainty(workdir)


def show_uncertainty(workdir: Path, name: str = uncertainty.NAME) -> None:
    """Print the paths of the report of uncertainties of that name, if it exists."""
    for what, path in uncertainty.files(workdir, name).items():
        print(f"{what + ':':12s}{path}")


def spread(runs: Mapping[int, Mapping[str, Any]], data: str, workdir: Path) -> dict[str, Any]:
    """Mean and standard deviation over seeds, printed as a table and written as ``seeds.json``.

    Args:
        runs: {seed: results}.
        data: the name of the data set.
        workdir: the folder of the file.
    """
    first = next(iter(runs.values()))
    # A run without a correlation lacks that metric.
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
