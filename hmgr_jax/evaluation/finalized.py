"""What evaluation adds to a checkpoint: the memory rewritten by the final weights, calibration.

Both come from the training items (and the choice of λ and β from dev), so that they are kept in the
run's folder, ``finalized.npz``: a search of a trained run needs no training data.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.split import SomeItems, Source, Split
from hmgr_jax.distributed import hosts
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.calibration import MOST_STORED, Calibration, choose, stored_items
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.workdir import replacing
from hmgr_jax.leaves import arrange_like, by_name
from hmgr_jax.metrics.protocols import evaluate_all
from hmgr_jax.models.base import Variables
from hmgr_jax.training import config as configs
from hmgr_jax.training.check import check_calibration

FILE, FORMAT = "finalized.npz", 2
AT_ONCE = 4096
"""Items whose codes are in memory at once."""
AGAIN = "it is made again."
MEMORY, STORED = "memory/", "stored/"


def finalize(
    evaluator: Evaluator,
    variables: Variables,
    config: ConfigDict,
    workdir: Path,
    step: int,
    split: Callable[[str], Split],
) -> tuple[Evaluator, Variables]:
    """The evaluator and the variables of a trained run for its final evaluation and for search.

    Args:
        evaluator: of the model.
        variables: of step ``step``, on the devices.
        config: of the run.
        workdir: the folder of the run; `FILE` is read there if it fits. Otherwise it is written,
            unless it is of the same checkpoint under other options.
        step: the step of the variables.
        split: opens a split by its role; not called if the file fits.

    Raises:
        UserError: the model has no two modalities to calibrate.
    """
    model, calibrate = evaluator.model, config.eval.calibration == "bank"
    check_calibration(config, model.modalities)
    if not (calibrate or model.needs_train_at_end):
        return evaluator, evaluator.finalized(variables, split)
    key = _key(config, workdir, step)
    kept = _read(workdir / FILE, key, variables)
    # All processes take the same way: encoding exchanges codes, and a file may appear on other
    # hosts later than on the first.
    if not all(hosts.exchange([np.asarray([kept is not None])])[0]):
        calibration, variables = compute(evaluator, variables, config, split, MOST_STORED)
        if hosts.is_first() and not _is_of_checkpoint(workdir / FILE, key):
            rewritten = variables if model.needs_train_at_end else None
            held = held_vectors(evaluator, variables) is not None
            _write(workdir / FILE, key, rewritten, calibration, held=held)
    else:
        assert kept is not None
        calibration, memory = kept
        variables = evaluator.finalized(replace(variables, memory=memory), split)
        if calibration is not None and not calibration.vectors:
            own = held_vectors(evaluator, variables)
            calibration = replace(calibration, vectors=own or {})
    return evaluator.calibrated(calibration if calibrate else None), variables


def compute(
    evaluator: Evaluator,
    variables: Variables,
    config: ConfigDict,
    split: Callable[[str], Split],
    most: int,
) -> tuple[Calibration | None, Variables]:
    """The calibration, None unless wanted, with at most ``most`` vectors; and the final variables.

    The other arguments are those of `finalize`.
    """
    model, calibrate = evaluator.model, config.eval.calibration == "bank"
    variables = evaluator.to_local_devices(variables)
    train, codes = split("train"), None
    if model.needs_train or model.needs_train_at_end:
        codes = evaluator.encode_split(model.before_finalize(variables), train)
        variables = model.finalize(variables, codes, train.rows)
    if not calibrate:
        return None, variables
    stored = held_vectors(evaluator, variables)
    if stored is None:
        kept = {m: SomeItems(s, stored_items(len(s), most)) for m, s in train.sources.items()}
        stored = {m: _vectors(evaluator, variables, m, kept[m]) for m in model.modalities}
    dev, names, select = split("dev"), config.eval.dev_protocols, config.eval.select
    (scored,) = evaluator.matrices(variables, dev)
    a, b = scored.modalities

    def quality(scores: np.ndarray) -> float:
        own, other = dev.groups[a], dev.groups[b]
        found = evaluate_all(names, scores, own, other, modalities=(a, b), **dev.about)
        return found[select]

    vectors = {m: evaluator.vectors(variables, m, scored.codes[m]) for m in (a, b)}
    found = Calibration(stored)
    return choose(found, scored.scores, vectors, quality, exact=model.coarse_exact), variables


def held_vectors(evaluator: Evaluator, variables: Variables) -> dict[str, np.ndarray] | None:
    """The calibration's vectors, where the memory holds them; None where it does not."""
    held = evaluator.model.stored_vectors(variables)
    return None if held is None else {m: np.asarray(x[:MOST_STORED]) for m, x in held.items()}


def _vectors(
    evaluator: Evaluator, variables: Variables, modality: str, source: Source
) -> np.ndarray:
    """Coarse vectors of a source, some items at a time: codes of pair scorers are large."""
    found = []
    for first in range(0, len(source), AT_ONCE):
        some = SomeItems(source, np.arange(first, min(first + AT_ONCE, len(source))))
        codes = evaluator.encode(variables, modality, some)
        found.append(evaluator.vectors(variables, modality, codes))
    return np.concatenate(found)


def _key(config: ConfigDict, workdir: Path, step: int) -> str:
    """What the file depends on: the checkpoint, and the options of model and evaluation."""
    about: dict[str, Any] = {"model": configs.plain(config.model)}
    about |= {name: config.eval[name] for name in ("calibration", "select", "dev_protocols")}
    digests = workdir / "digests" / f"{step}.json"
    checkpoint = f"{FORMAT} {step} {digests.read_text('utf-8') if digests.is_file() else ''}"
    parts = checkpoint, json.dumps(configs.plain(about), sort_keys=True)
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:16] for part in parts)


def _is_of_checkpoint(path: Path, key: str) -> bool:
    """Whether the file is whole and of the checkpoint of ``key``, under any options."""
    try:
        return str(read_npz(path, AGAIN, ("key",))["key"]).split("-")[0] == key.split("-")[0]
    except UserError:
        return False


def _write(
    path: Path,
    key: str,
    variables: Variables | None,
    calibration: Calibration | None,
    *,
    held: bool,
) -> None:
    """Write the file; vectors of the calibration that the memory ``held`` are in it once."""
    arrays: dict[str, np.ndarray] = {"key": np.asarray(key)}
    if variables is not None:
        leaves = by_name(jax.device_get(variables.memory))
        arrays |= {f"{MEMORY}{name}": np.asarray(leaf) for name, leaf in leaves.items()}
    if calibration is not None:
        if not held:
            arrays |= {f"{STORED}{m}": rows for m, rows in calibration.vectors.items()}
        numbers = [calibration.strength, calibration.sharpness, calibration.unit]
        arrays["calibration"] = np.asarray(numbers, np.float64)
    try:
        with replacing(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:  # such as a folder that may only be read
        warnings.warn(
            f"{path} cannot be written ({error}): it is computed again at the next use",
            RuntimeWarning,
            stacklevel=3,
        )


def _read(path: Path, key: str, variables: Variables) -> tuple[Calibration | None, Any] | None:
    """Calibration and memory; None without a file of this key."""
    if not path.is_file():
        return None
    try:
        arrays = read_npz(path, AGAIN)
        known = str(arrays["key"])
    except (UserError, KeyError):
        warnings.warn(f"{path} is damaged: it is made again", RuntimeWarning, stacklevel=3)
        return None
    if known != key:
        return None
    stored = {n.removeprefix(STORED): x for n, x in arrays.items() if n.startswith(STORED)}
    leaves = {n.removeprefix(MEMORY): x for n, x in arrays.items() if n.startswith(MEMORY)}
    memory = arrange_like(variables.memory, leaves, None) if leaves else variables.memory
    calibrated = "calibration" in arrays
    return Calibration(stored, *map(float, arrays["calibration"])) if calibrated else None, memory
