"""What the modes of ``hmgr_jax.main`` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.pipeline import batches
from hmgr_jax.errors import UserError
from hmgr_jax.metrics.protocols import get_protocol
from hmgr_jax.retrieval.retriever import Retriever
from hmgr_jax.training import config as configs
from hmgr_jax.training import loop, results
from hmgr_jax.training.evaluate import recall_table
from hmgr_jax.training.experiment import Experiment, build
from hmgr_jax.training.parallel import MappedAxis, map_step, shard
from hmgr_jax.training.progress import table
from hmgr_jax.training.step import device_step
from hmgr_jax.training.workdir import write_json_atomic


def train(config: ConfigDict, workdir: Path, seeds: Sequence[int] = ()) -> int:
    """Train one run, or one for each seed and tabulate them."""
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds names a seed twice: {', '.join(map(str, seeds))}.")
    if not seeds:
        found = loop.train(config, workdir)
        if found:
            results.show(found, workdir)
        return 0
    runs = []
    for seed in seeds:
        one = ConfigDict({**config.to_dict(), "seed": seed}).lock()
        found = loop.train(one, workdir / f"seed{seed}")
        if found is None:
            return 0
        runs.append(found)
    results.spread(runs, workdir)
    print(f"results:    {workdir / 'seeds.json'}")
    return 0


def evaluate(workdir: Path, split: str, config: ConfigDict | None) -> int:
    """Evaluate the dev-best step of a run, by default as its configuration says."""
    retriever = Retriever.load(workdir, config)
    names = retriever.config.eval.protocols if split == "test" else retriever.config.eval.dev_protocols
    metrics = retriever.evaluate(split, names)
    for name in names:
        print(f"{name}: {get_protocol(name).description}")
    title = f"{retriever.config.model.name} on {retriever.config.name}, {split}, step {retriever.step}"
    table(title, recall_table(metrics))
    record = {
        "model": retriever.config.model.name,
        "protocol": ",".join(names),
        "split": split,
        "metrics": metrics,
        "step": retriever.step,
        "config_hash": configs.config_hash(retriever.config),
        "data_fingerprint": retriever.open((split,)).fingerprint,
    }
    path = workdir / f"evaluation-{split}.json"
    write_json_atomic(path, record)
    print(f"results:    {path}")
    return 0


def encode(workdir: Path, split: str, config: ConfigDict | None) -> int:
    """Write the codes of a split as ``codes/SPLIT_MODALITY.npy``, with their ids beside."""
    retriever = Retriever.load(workdir, config)
    folder = workdir / "codes"
    folder.mkdir(exist_ok=True)
    data = retriever.open((split,)).splits[split]
    for modality, codes in retriever.evaluator.encode_split(retriever.variables, data).items():
        vectors = retriever.model.coarse(retriever.variables, modality, codes)
        path = folder / f"{split}_{modality}.npy"
        np.save(path, np.asarray(vectors))
        ids = folder / f"{split}_{modality}_ids.txt"
        ids.write_text("".join(f"{name}\n" for name in data.ids[modality]))
        print(f"{modality}: {vectors.shape[0]} x {vectors.shape[1]} in {path}, ids in {ids}")
    return 0


def show(config: ConfigDict) -> int:
    """Print the model, the data and the plan of a recipe, without training."""
    experiment = build(config)
    _show_config(config)
    _show_model(experiment)
    _show_data(experiment)
    _show_plan(experiment)
    return 0


def _show_config(config: ConfigDict) -> None:
    print("Configuration (override with --config.KEY=VALUE)")
    for key, value in configs.flatten(configs.plain(config)).items():
        print(f"  {key} = {value}")


def _show_model(experiment: Experiment) -> None:
    state = experiment.abstract_state()
    rows: list[dict[str, Any]] = [
        {"part": name, "parameters": f"{sum(x.size for x in jax.tree.leaves(part)):,}"}
        for name, part in state.params.items()
    ]
    total = sum(x.size for x in jax.tree.leaves(state.params))
    rows.append({"part": "total", "parameters": f"{total:,}"})
    table(f"Model {experiment.config.model.name}", rows)


def _show_data(experiment: Experiment) -> None:
    data = experiment.data
    rows = [
        {"split": name, "rows": str(len(split))}
        | {f"{m} items": str(len(split.sources[m])) for m in split.sources}
        for name, split in data.splits.items()
    ]
    table(f"Data {data.name}: vocabulary of {len(data.vocabulary)} words", rows)
    split = data.splits["train"]
    print("Row 0 of train:")
    for modality, source in split.sources.items():
        item = split.rows[modality][:1]
        print(f"  {modality} {split.ids[modality][int(item[0])]}")
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
    batch = shard(mesh, experiment.for_model(next(iter(stream))))
    stage = experiment.stages()[0]
    flops = _flops(experiment, stage, experiment.abstract_state(), batch)
    print(
        f"Plan: {t.steps} steps of {t.batch_size} rows, {plan.steps_per_epoch} steps an epoch, "
        f"{t.steps / plan.steps_per_epoch:.1f} epochs, on {mesh.devices.size} device(s); a step "
        f"costs {flops / 1e9:.1f} GFLOP a device by XLA's count."
    )


def _flops(experiment: Experiment, stage: Any, state: Any, batch: Any) -> float:
    step = device_step(experiment.model, experiment.optimizer(stage), MappedAxis())
    compiled = map_step(step, experiment.mesh).lower(state, None, batch).compile()
    return float(compiled.cost_analysis().get("flops", 0.0))

