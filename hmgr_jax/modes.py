"""The modes of ``hmgr_jax.main``, one function per mode."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from hmgr_jax.data.open import missing_root
from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.text.captions import unknown_shares
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import by_labels, code_files, results, score_store
from hmgr_jax.evaluation.ensemble import mean_of_runs
from hmgr_jax.evaluation.judged import open_judged
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.files.workdir import check_writable, write_json_atomic
from hmgr_jax.leaves import by_name
from hmgr_jax.models.base import Model
from hmgr_jax.progress import table
from hmgr_jax.reports import finish, object_reports, uncertainty
from hmgr_jax.reports.finish import RunEvaluation
from hmgr_jax.search import needs
from hmgr_jax.search.retrieved import load_run, run_tables
from hmgr_jax.shapes import Tree
from hmgr_jax.terminal import escape_controls
from hmgr_jax.training import assumed, loop, recipe_file
from hmgr_jax.training import config as configs
from hmgr_jax.training.check import check
from hmgr_jax.training.experiment import Experiment, build, make_model
from hmgr_jax.training.flops import matmul_flops

CHANGEABLE = ("data.", "eval.", "parallel.")
"""Keys that may change between training and evaluation, besides ``config.SCORING``."""


def train(config: ConfigDict, workdir: Path, seeds: Sequence[int] = ()) -> int:
    """Train one run, or one run per seed with a table of the results."""
    if not seeds:
        found = train_run(config, workdir)
        if found and hosts.is_first():
            finish.show(found, configs.data_name(config))
            finish.show_files(found, workdir)
        return 0
    if hosts.is_first():  # launchers would take an old file for the end of this run
        (workdir / results.SEEDS).unlink(missing_ok=True)
    runs = {}
    for seed in seeds:
        one = ConfigDict({**config.to_dict(), "seed": seed}).lock()
        found = train_run(one, workdir / f"seed{seed}")
        if found is None:
            return 0
        runs[seed] = found
    if hosts.is_first():
        finish.spread(runs, configs.data_name(config), workdir)
        print(f"results:    {workdir / results.SEEDS}")
    return 0


def train_run(config: ConfigDict, workdir: Path) -> loop.Results | None:
    """Train the dependencies of a run, then the run; a finished run is not repeated.

    Returns:
        the results, or None if a signal stopped the training.

    Raises:
        UserError: see `hmgr_jax.training.loop.train`.
    """
    done = results.finished(workdir, config)
    if hosts.broadcast_from_first(done is not None):
        return done
    if config.needs and not (workdir / "checkpoints").is_dir():
        experiment = build(config)  # errors are found before hours of training for it
        results.check_protocols(experiment)
        run_tables(experiment, None)
    if config.needs and not needs.train_dependencies(config, workdir, train_run):
        return None
    return loop.train(config, workdir, evaluate=RunEvaluation, make_tables=run_tables)


def load(
    workdir: Path, config: ConfigDict | None, overrides: Mapping[str, str | None]
) -> Retriever:
    """Load the run in ``workdir`` with data and evaluation values of ``config`` or overrides."""
    if not overrides:
        return load_run(workdir, config)
    for key in overrides:
        if not key.startswith(CHANGEABLE) and key not in configs.SCORING:
            raise UserError(
                f"--config.{key} cannot change after {workdir} was trained: only "
                f"{', '.join(name + '*' for name in CHANGEABLE)} can."
            )

    def change(saved: ConfigDict) -> ConfigDict:
        for key, text in overrides.items():
            recipe_file.override(saved, key, text)
        return saved

    return load_run(workdir, change=change)


def evaluate(retriever: Retriever, split: str) -> int:
    """Evaluate the dev-best step of a run: ``evaluation-SPLIT.json`` and a table.

    For systems with uncertainties also ``uncertainty-SPLIT.png``, ``.csv`` and ``.html``; for 3D
    objects ``map-SPLIT.png`` and sheets of neighbours.
    """
    config, workdir = retriever.config, retriever.workdir
    names = results.protocols(config, split)
    data, store = retriever.open((split,)), retriever.store(split)
    results.check_fit(names, data.splits[split], retriever.model.modalities)
    if (unknown := unknown_shares(data.splits)) and hosts.is_first():
        print(f"Unknown words: {unknown}.", flush=True)
    people = open_judged(config.eval, data.splits[split])
    hosts.stop_at_once()
    hosts.check_same(
        configuration=configs.config_hash(config),
        step=str(retriever.step),
        vocabulary=retriever.vocabulary.saved(),
        data=data.fingerprint,
        weights=retriever.variables,
    )
    title = f"{config.model.name} on {configs.data_name(config)}, {split}"
    own, evaluator = data.splits[split], retriever.evaluator
    suffix, failed = f"-{split}", list[OSError]()
    with written_folder(workdir) as folder:
        more = finish.reports(evaluator, folder, own, names, title, suffix, failed)
        metrics = retriever.evaluate(own, names, store=store, tell=True, more=more)
    if config.eval.get("train_gallery") and split == "test":
        train = retriever.open(("train",)).splits["train"]
        metrics |= by_labels.against_train(evaluator, retriever.variables, own, train, names)
    if people:
        metrics |= people.metrics(retriever.judged_scores(people))
    found = results.record(
        config,
        protocols=names,
        split=split,
        items=own,
        metrics=metrics,
        step=retriever.step,
        fingerprint=data.fingerprint,
        judgments=people.counts() if people else None,
    )
    written = _finish(found, config, workdir / f"evaluation-{split}.json", [store])
    if failed:
        raise failed[0]
    if written:
        heading = object_reports.heading(config, names, split)
        object_reports.heat_map(workdir, metrics, retriever.model.modalities, heading, suffix)
        object_reports.show(workdir, suffix)
        finish.show_uncertainty(workdir, f"{uncertainty.NAME}{suffix}")
    return 0


def ensemble(workdirs: Sequence[Path], split: str, overrides: Mapping[str, str | None]) -> int:
    """Evaluate the mean scores of several runs; write ``ensemble-SPLIT.json`` in the first."""
    runs = [load(workdir, None, overrides) for workdir in workdirs]
    found = mean_of_runs(runs, split)
    path = runs[0].workdir / f"ensemble-{split}.json"
    _finish(found, runs[0].config, path, [run.store(split) for run in runs])
    return 0


def _finish(
    found: Mapping[str, Any], config: ConfigDict, path: Path, stores: Sequence[Path | None]
) -> bool:
    """Print an evaluation, write it and delete its score files; whether this process wrote it."""
    if not hosts.is_first():
        return False
    finish.show(found, configs.data_name(config))  # first: writing may fail
    if not os.access(path.parent, os.W_OK):
        print(f"results:    not written, {path.parent} may only be read")
        return False
    write_json_atomic(path, found)
    for store in stores:
        if store is not None:
            score_store.discard(store)
    print(f"results:    {path}")
    return True


@contextlib.contextmanager
def written_folder(workdir: Path) -> Iterator[Path]:
    """``workdir``, or where it may only be read a folder that is deleted at the end."""
    if os.access(workdir, os.W_OK):
        yield workdir
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def encode(retriever: Retriever, split: str) -> int:
    """Write the codes of a split as ``codes/SPLIT_MODALITY.npy``, and their ids.

    Raises:
        UserError: the folder cannot be written, or holds codes of other data.
    """
    check_writable(retriever.workdir)
    folder, opened = retriever.workdir / "codes", retriever.open((split,))
    data, fingerprint = opened.splits[split], opened.fingerprint
    code_files.check_same_data(folder, split, data.ids, fingerprint)
    evaluator, variables = retriever.evaluator, retriever.variables
    codes = evaluator.encode_split(variables, data)
    vectors = {m: evaluator.vectors(variables, m, of) for m, of in codes.items()}
    about = {code_files.FINGERPRINT: fingerprint, "step": retriever.step}
    code_files.write_codes(folder, split, vectors, data.ids, about)
    for modality, found in vectors.items():
        path, ids = code_files.paths(folder, split, modality)
        print(f"{modality}: {found.shape[0]} x {found.shape[1]} in {path}, ids in {ids}")
    return 0


def show(config: ConfigDict) -> int:
    """Print the model, the data and the plan of a recipe, without training.

    While the data is not there, the model has `assumed` sizes, and a sentence says what is wanted.
    """
    if wanted := missing_root(config.data):
        return _show_without_data(config, wanted)
    experiment = build(config)
    _show_config(config)
    _show_model(experiment.config, experiment.model, experiment.abstract_state().params)
    _show_data(experiment)
    _show_plan(experiment)
    return 0


def _show_without_data(config: ConfigDict, wanted: str) -> int:
    check(config)
    _show_config(config)
    plan = assumed.assumed_plan(config)
    try:
        model = make_model(config, plan)
    except UserError as error:
        print(f"Model {config.model.name}: {error}")
    else:
        params = jax.eval_shape(lambda: model.init(jax.random.key(0)).params)
        sizes = assumed.describe(plan, model.inputs())
        _show_model(config, model, params, f", as with {sizes}")
    t = config.train
    print(f"Plan: {t.steps} steps of {t.batch_size} rows.")
    print(f"The data is not there, so its sizes are unknown. {wanted}")
    return 0


def _show_config(config: ConfigDict) -> None:
    print("Configuration (override with --config.KEY=VALUE)")
    for key, value in configs.flatten(configs.plain(config)).items():
        print(f"  {key} = {value}")


def _show_model(config: ConfigDict, model: Model, params: Tree, note: str = "") -> None:
    """Print the parameters by part; parts may be nested."""
    sizes = {name: x.size for name, x in by_name(params).items()}
    rows: list[dict[str, Any]] = []
    for part, paths in model.parts().items():
        inside = [s for name, s in sizes.items() if f"{name}/".startswith(_folders(paths))]
        rows.append({"part": part, "parameters": f"{sum(inside):,}", "within": ", ".join(paths)})
    rows.append({"part": "total", "parameters": f"{sum(sizes.values()):,}", "within": ""})
    table(f"Model {config.model.name}{note}", rows)


def _folders(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{path}/" for path in paths)


def _show_data(experiment: Experiment) -> None:
    data = experiment.data
    rows = [
        {"split": name, "rows": str(len(split))}
        | {f"{m} items": str(len(split.sources[m])) for m in split.sources}
        for name, split in data.splits.items()
    ]
    unknown = unknown_shares(data.splits)
    more = f", unknown words: {unknown}" if unknown else ""
    table(f"Data {data.name}: vocabulary of {len(data.vocabulary)} words{more}", rows)
    split = data.splits["train"]
    print("Row 0 of train:")
    for modality, source in split.sources.items():
        item = split.rows[modality][:1]
        print(escape_controls(f"  {modality} {split.ids[modality][int(item[0])]}"))
        for name, value in source.gather(item).items():
            print(f"    {name}: {value.dtype} {list(value.shape[1:])}")
        captions = getattr(source, "captions", None)
        if captions:
            print(f"    {captions[int(item[0])]!r}")


def _show_plan(experiment: Experiment) -> None:
    t, plan, mesh = experiment.config.train, experiment.plan, experiment.mesh
    stream = batches(
        experiment.data.splits["train"],
        batch_size=t.batch_size,
        seed=experiment.config.seed,
        steps=1,
        pad_to=mesh.devices.size,
        buckets=experiment.config.data.buckets,
    )
    batch = experiment.for_model(next(iter(stream)))
    flops = step_flops(experiment, batch)
    print(
        f"Plan: {t.steps} steps of {t.batch_size} rows, {plan.steps_per_epoch} steps per epoch, "
        f"{t.steps / plan.steps_per_epoch:.1f} epochs, on {mesh.devices.size} device(s); the "
        f"matrix products of a step cost {flops / 1e9:.3g} GFLOP per device."
    )
    if missing := experiment.goes_without():
        print(missing)


def step_flops(experiment: Experiment, batch: Any) -> int:
    """FLOPs of the matrix products of the first stage's step, on each device."""
    step = experiment.step_function(experiment.stages()[0])
    return matmul_flops(
        step, experiment.abstract_state(), run_tables(experiment, None).train, batch
    )
