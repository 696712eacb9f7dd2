"""List the items of batches whose loss was not finite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jax

from hmgr_jax.data.order import make_order
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.training.experiment import Experiment

FILE = "bad_batches.json"


def write(workdir: Path, experiment: Experiment, steps: Iterable[int]) -> Path:
    """Write the ids of the items of these steps (counted from 1) to ``bad_batches.json``.

    The order of the data is a function of the step, so the ids are computed now. Each entry is
    ``{"step": 6, "image": [ids], "text": [ids]}`` in the order of the global batch. Only process 0
    writes.

    Returns:
        the path of the file.
    """
    config, split = experiment.config, experiment.data.splits["train"]
    order = make_order(split, config.train.batch_size, config.seed, config.data.batching)
    found = []
    for step in steps:
        rows = order.rows(step - 1)
        ids = {m: [str(split.ids[m][i]) for i in split.rows[m][rows]] for m in split.sources}
        found.append({"step": step, **ids})
    if jax.process_index() == 0:
        write_json_atomic(workdir / FILE, found)
    return workdir / FILE
