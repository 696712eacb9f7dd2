"""A trained run in one small file: ``hmgr_jax.load("model.safetensors")``.

Weights are float16. The memory and the vectors of the calibration are a fixed random sample, in 8
bits with a scale per vector. λ and β are chosen on dev for that sample. The encoder of pictures is
described, with its PCA. The file searches and encodes; it cannot be trained further.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.open import open_data
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.data.split import Split
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.calibration import Calibration
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.finalized import compute
from hmgr_jax.evaluation.trained_run import (
    TrainedRun,
    read_run,
    saved_config,
    saved_model,
    state_shapes,
)
from hmgr_jax.files.manifest import ENCODER
from hmgr_jax.files.reading import parse_json
from hmgr_jax.interop import names, state_dict
from hmgr_jax.interop.picture_encoder import Encoder
from hmgr_jax.leaves import arrange_like, by_name
from hmgr_jax.models.base import Variables
from hmgr_jax.training import config as configs
from hmgr_jax.training.check import check_calibration

ENDING, FOLDER = ".safetensors", "pretrained"
KEY, FORMAT = "packed", "1"
"""The entry of a file's metadata that tells its format."""
STORED, PCA, SCALE = "stored/", "pca/", ":scale"
EIGHT_BITS = ("memory/", STORED)
ABOUT = ("features", "steps_per_epoch", "rows", "classes", "fingerprint")
"""What is kept of the metadata of the run."""


class Packed(NamedTuple):
    """The content of a file."""

    run: TrainedRun
    calibration: Calibration | None
    encoder: Callable[[], Encoder] | None
    """What makes the features of pictures; None if the file does not say."""


def included() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(file.stem for file in _included().glob(f"*{ENDING}"))


def _included() -> Path:
    return Path(str(resources.files("hmgr_jax"))) / FOLDER


def path_of(name: str | Path) -> Path | None:
    """The file of a model that comes with the package, or of this path; None for another path."""
    path = Path(os.path.expanduser(name))
    if path.exists():
        return path if path.is_file() and path.suffix == ENDING else None
    file = _included() / f"{name}{ENDING}"
    return file if file.is_file() else None


def pack(
    workdir: Path,
    out: Path,
    stored: int,
    *,
    calibrate: bool = False,
    encoder: Encoder | None = None,
) -> None:
    """Pack the dev-best step of a run; its train and dev splits are read.

    Args:
        workdir: the run.
        out: a new file, ``.safetensors``.
        stored: vectors of each modality that the file holds, for the memory and the calibration.
        calibrate: whether scores are calibrated even if those of the run are not.
        encoder: of pictures; by default the one that the run keeps, if it keeps one.

    Raises:
        UserError: ``out`` exists or has another ending, or the run retrieves or has tables.
    """
    if out.suffix != ENDING:
        raise UserError(f"--out is {out}, but a packed run ends in {ENDING}: rename it.")
    state_dict.check_free(out)
    run = read_run(workdir)
    config = ConfigDict(run.config.to_dict())
    if calibrate:
        config.eval.calibration = "bank"
    check_calibration(config, run.model.modalities)
    if run.model.needs_train_at_end:  # any other memory is packed as it is
        config.model.slots = stored
    model = saved_model(run.meta, config)
    if model.needs_tables or model.banks is not None:
        raise UserError(
            f"{workdir} holds a {config.model.name}, which reads tables of its data: only runs of "
            "weights and a memory can be packed."
        )
    fresh, kept = model.init(jax.random.key(0)).memory, by_name(run.state["memory"])
    same = {n: kept[n] for n, x in by_name(fresh).items() if kept[n].shape == x.shape}
    memory = arrange_like(fresh, {**by_name(fresh), **same}, None)
    variables = Variables(**{**run.state, "memory": memory}, tables=None)
    evaluator = Evaluator.of(config, model, make_mesh(1))
    vocabulary = run.vocabulary

    def split(role: str) -> Split:
        return open_data(config.data, vocabulary, (role,)).splits[role]

    calibration, variables = compute(evaluator, variables, config, split, stored)
    if encoder is None and (workdir / ENCODER).is_file():
        encoder = Encoder.load(workdir)
    config.data.root, config.data.pieces, config.init = "", "", {}  # places of one machine
    _write(out, run, config, variables, calibration, encoder)


def _write(
    out: Path,
    run: TrainedRun,
    config: ConfigDict,
    variables: Variables,
    calibration: Calibration | None,
    encoder: Encoder | None,
) -> None:
    state = {"params": variables.params, "stats": variables.stats, "memory": variables.memory}
    arrays = {name: np.asarray(x) for name, x in by_name(jax.device_get(state)).items()}
    about = {k: v for k, v in run.meta.items() if k in ABOUT}
    about["step"] = run.step
    if encoder is not None:
        if encoder.pca is not None:
            rounded = [x.astype(np.float16).astype(np.float32) for x in encoder.pca.arrays]
            encoder = encoder.with_pca(Pca(*rounded), sqrt=encoder.sqrt)
            arrays |= {f"{PCA}{n}": x for n, x in enumerate(rounded)}
        about["encoder"] = {"place": encoder.network.place, **encoder.describe()}
    if calibration is not None:
        about["calibration"] = [calibration.strength, calibration.sharpness, calibration.unit]
        if run.model.stored_vectors(variables) is None:
            arrays |= {f"{STORED}{m}": x for m, x in calibration.vectors.items()}
    metadata = {
        KEY: FORMAT,
        "config": json.dumps(configs.plain(config)),
        "vocabulary": json.dumps(run.meta["vocabulary"], ensure_ascii=False),
        "about": json.dumps(about),
    }
    state_dict.write(out, dict(_narrowed(arrays)), metadata)


def read(path: Path, change: Callable[[ConfigDict], ConfigDict] = lambda saved: saved) -> Packed:
    """The content of a packed file; ``change`` edits its configuration.

    Raises:
        UserError: the file is damaged, of another kind or format, or does not fit the model.
    """
    weights = state_dict.read_weights(path)
    if weights.metadata.get(KEY) != FORMAT:
        raise UserError(
            f"{path} was not written by hmgr-jax convert pack (format {FORMAT}): give the "
            "--workdir of a trained run or a packed file."
        )
    texts = {k: parse_json(weights.metadata[k]) for k in ("config", "vocabulary", "about")}
    about = texts["about"]
    meta = {**about, "config": texts["config"], "vocabulary": texts["vocabulary"]}
    config = change(saved_config(meta))
    model = saved_model(meta, config)
    arrays = _widened(weights.state)
    template = state_shapes(model)
    own = {n: x for n, x in arrays.items() if not n.startswith((STORED, PCA))}
    state = names.to_params(names.our_own(template), own, template)
    calibration = None
    if "calibration" in about:
        stored = {n.removeprefix(STORED): x for n, x in arrays.items() if n.startswith(STORED)}
        held = model.stored_vectors(Variables(**state, tables=None))
        calibration = Calibration(stored or held or {}, *about["calibration"])
    run = TrainedRun(config, model, state, meta, about["step"])
    return Packed(run, calibration, _encoder(about.get("encoder"), arrays))


def pca_of(path: Path) -> Pca:
    """The PCA of the encoder in a packed file.

    Raises:
        UserError: the file is damaged or holds none.
    """
    state = state_dict.read_weights(path).state
    if f"{PCA}0" not in state:
        raise UserError(f"{path} holds no PCA: give the file of one, or leave --pca out.")
    return Pca(*(state[f"{PCA}{n}"].astype(np.float32) for n in range(2)))


def _encoder(
    described: dict[str, Any] | None, arrays: Mapping[str, np.ndarray]
) -> Callable[[], Encoder] | None:
    if described is None:
        return None
    place = described.pop("place")
    pca = Pca(arrays[f"{PCA}0"], arrays[f"{PCA}1"]) if described["pca"] else None
    return functools.partial(Encoder.from_description, described, place, pca)


def _narrowed(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays as they are written: stored vectors in 8 bits, other floats in 16."""
    for name, x in arrays.items():
        if x.dtype.kind != "f":
            yield name, x
        elif name.startswith(EIGHT_BITS) and x.ndim == 2:
            scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-12) / 127
            yield name, np.round(x / scale).astype(np.int8)
            yield f"{name}{SCALE}", scale.astype(np.float32)
        else:
            small = x.astype(np.float16)
            yield name, small if np.isfinite(small).all() else x.astype(np.float32)


def _widened(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `_narrowed`, in float32."""
    found = {}
    for name, x in arrays.items():
        if f"{name}{SCALE}" in arrays:
            found[name] = x.astype(np.float32) * arrays[f"{name}{SCALE}"]
        elif not name.endswith(SCALE):
            found[name] = x.astype(np.float32) if x.dtype.kind == "f" else x
    return found
