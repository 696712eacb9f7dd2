"""Known answers: compare outputs with those of the papers' released code.

A case is one ``CASE.npz``: inputs, outputs and ``meta`` (JSON: the model, its sizes and options, a
seed, name and shape of every parameter of the official state_dict). The weights are drawn from the
seed, so that a case of a full-size network takes kilobytes.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import parse_json, readable
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models.base import LocalAxis, Model, Variables
from hmgr_jax.shapes import Array, Float, Int, Tree

BY_MODEL = {
    "center_loss": "parity_center3d",
    "clip": "parity_clip",
    "dgcnn": "parity_encoders",
    "imram": "parity_imram",
    "meshnet": "parity_encoders",
    "pcme": "parity_pcme",
    "resnet50": "parity_encoders",
    "siglip": "parity_clip",
    "singleview": "parity_encoders",
}
"""{``meta["model"]``: the module whose ``CHECKER`` checks it}."""
BY_ARRAYS = {
    ("sims", "i2t", "t2i"): "parity_recall",
    ("image", "mesh", "point", "label"): "parity_center3d",
}
"""{arrays of a case without a model: the module}."""


@dataclass(frozen=True)
class Case:
    """The content of a file."""

    name: str
    meta: Mapping[str, Any]
    state: Mapping[str, np.ndarray]
    """The official state_dict."""
    arrays: Mapping[str, np.ndarray]

    def option(self, name: str, kind: type) -> Any:
        """An entry of ``meta``; UserError if there is none of this type."""
        value = self.meta.get(name)
        if not isinstance(value, (int, float) if kind is float else kind):
            raise UserError(f"its meta has {name} = {value!r}, no {kind.__name__}: get it again.")
        return value

    def inputs(self, *names: str) -> list[np.ndarray]:
        """Arrays of these names; UserError if one is not there."""
        lacking = ", ".join(n for n in names if n not in self.arrays)
        if lacking:
            raise UserError(f"it lacks the input {lacking}: get it again.")
        return [self.arrays[n] for n in names]


@dataclass(frozen=True)
class Checker:
    """The check of one kind of cases."""

    inputs: tuple[str, ...]
    """Names of input arrays."""
    answers: Callable[[Case], Mapping[str, Answer]]
    """Our outputs by official name, computed from inputs and weights."""
    outputs: Callable[[Case], Mapping[str, np.ndarray]] | None = None
    """Official outputs that are not stored as arrays of numbers."""


def find(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Files of the cases ``names`` (shell patterns) in ``folder``, by default of all."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give the one that holds the .npz cases.")
    there = sorted(path.stem for path in folder.glob("*.npz"))
    if not there:
        raise UserError(f"There is no .npz file in {folder}: give the folder of the cases.")
    patterns = [name.removesuffix(".npz") for name in names] or ["*"]
    found = [fnmatch.filter(there, pattern) for pattern in patterns]
    lacking = [p for p, some in zip(patterns, found, strict=True) if not some]
    if lacking:
        raise UserError(
            f"There is no case {', '.join(lacking)} in {folder}: choose from {', '.join(there)}."
        )
    return [folder / f"{name}.npz" for name in dict.fromkeys(n for some in found for n in some)]


def check_all(paths: Iterable[Path]) -> tuple[list[Comparison], list[str]]:
    """Check cases; returns comparisons, and a message for every case that cannot be checked."""
    comparisons: list[Comparison] = []
    problems: list[str] = []
    for path in paths:
        try:
            comparisons += check(load(path))
        except UserError as error:
            problems.append(f"Case {path.stem} is not understood: {error}")
    return comparisons, problems


def load(path: Path) -> Case:
    """Read a case; raises `UserError` unless it is an .npz of plain arrays with valid ``meta``."""
    arrays = read_npz(path, "get it again.")
    with readable(path, "a whole case", "get it again."):
        meta = parse_json(str(arrays.pop("meta", "{}")))
        state = _state(meta)
    return Case(path.stem, meta, state, arrays)


def weights(params: Sequence[tuple[str, Sequence[int]]], seed: int) -> dict[str, np.ndarray]:
    """The state_dict of a case: one standard-normal draw per tensor, in the order of ``params``.

    Matrices and kernels are divided by sqrt(fan in), vectors by 10; weights of norms are shifted by
    1; ``running_var`` is uniform in 0.5..1.5 and ``num_batches_tracked`` 0.
    """
    rng = np.random.default_rng(seed)
    return {name: _draw(rng, name, tuple(shape)) for name, shape in params}


def check(case: Case) -> list[Comparison]:
    """Compare every output of a case with ours, at matmul precision highest.

    Raises `UserError` if the kind of the case or one of its arrays is unknown.
    """
    checker = _checker(case)
    try:
        with jax.default_matmul_precision("highest"), _quick_compilation():
            ours = checker.answers(case)
    except FoundNonFinite as error:
        outputs = [n for n in case.arrays if n not in checker.inputs]
        return [Comparison(case.name, n, np.nan, RTOL, str(error)) for n in outputs]
    unknown = [n for n in case.arrays if n not in ours and n not in checker.inputs]
    if unknown:
        raise UserError(f"it holds unknown outputs {', '.join(unknown)}: remove them.")
    compared = [n for n in case.arrays if n in ours]
    if not compared:
        raise UserError(f"it holds no output, which would be one of {', '.join(ours)}: add some.")
    official = {**case.arrays, **(checker.outputs(case) if checker.outputs else {})}
    return [compare(case.name, n, ours[n], official[n]) for n in compared]


@contextlib.contextmanager
def _quick_compilation() -> Iterator[None]:
    """Disable compiler optimisations, which take most of the time of a case."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _state(meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    params = meta.get("params", [])
    if "text_seed" not in meta:
        return weights(params, meta.get("seed", 0))
    state: dict[str, np.ndarray] = {}  # two encoders (PCME), each in its own order
    for side, seed in (("image::", meta["seed"]), ("text::", meta["text_seed"])):
        own = [(name, shape) for name, shape in params if name.startswith(side)]
        state |= weights(own, seed)
    return state


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return np.asarray(rng.uniform(0.5, 1.5, shape), np.float32)
    value = rng.standard_normal(shape)
    if len(shape) > 1:
        return np.asarray(value / np.sqrt(int(np.prod(shape[1:]))), np.float32)
    around = 1.0 if shape and name.endswith("weight") else 0.0
    return np.asarray(0.1 * value + around, np.float32)


def _checker(case: Case) -> Checker:
    model, arrays = case.meta.get("model"), ", ".join(case.arrays)
    if model is None:
        modules = [m for names, m in BY_ARRAYS.items() if case.arrays.keys() >= {*names}]
        if not modules:
            raise UserError(f"it names no model and its arrays ({arrays}) are of no known kind.")
        module = modules[0]
    elif model in BY_MODEL:
        module = BY_MODEL[model]
    else:
        known = ", ".join(BY_MODEL)
        raise UserError(f"its model is {model!r}, and only these can be checked: {known}.")
    return importlib.import_module(f"hmgr_jax.interop.{module}").CHECKER


ATOL, RTOL = 1e-5, 1e-4
RTOL_NORMS = 1e-3
"""Relative tolerance of gradient norms."""


@dataclass(frozen=True)
class Answer:
    """A quantity computed here."""

    value: Any
    """An array or a number."""
    labels: Sequence[str] | None = None
    """Names of the entries of a vector, for messages."""
    rtol: float = RTOL
    atol: float = ATOL


@dataclass(frozen=True)
class Comparison:
    """The comparison of one quantity of a case."""

    case: str
    quantity: str
    error: float
    """The largest ``|ours - official|``; NaN if they cannot be compared."""
    rtol: float
    fault: str
    """The largest deviation and its place; empty within tolerance."""
    atol: float = ATOL

    def row(self) -> dict[str, str]:
        """The cells of a table."""
        return {
            "case": self.case,
            "quantity": self.quantity,
            "largest error": f"{self.error:.1e}",
            "tolerance": f"{self.atol:.0e} + {self.rtol:.0e} |x|",
            "ok": f"NO, {self.fault}" if self.fault else "yes",
        }


def compare(case: str, quantity: str, answer: Answer, official: np.ndarray) -> Comparison:
    """Check elementwise ``|ours - official| <= atol + rtol |official|``, and both finite."""
    ours = np.asarray(answer.value, np.float64)
    if ours.shape != official.shape or official.dtype.kind not in "iuf" or not ours.size:
        fault = f"ours is {list(ours.shape)}, theirs {official.dtype}{list(official.shape)}"
        return Comparison(case, quantity, np.nan, answer.rtol, fault, answer.atol)
    official = official.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(ours - official)
        excess = error - (answer.atol + answer.rtol * np.abs(official))
    excess = np.where(np.isfinite(ours) & np.isfinite(official), excess, np.inf)
    fault = ""
    if not (excess <= 0).all():
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        fault = f"{_place(worst, answer.labels)}{ours[worst]:.7g} instead of {official[worst]:.7g}"
    return Comparison(case, quantity, float(error.max()), answer.rtol, fault, answer.atol)


def _place(index: tuple[Any, ...], labels: Sequence[str] | None) -> str:
    if not index:
        return ""
    return f"{labels[index[0]]}: " if labels else f"{[int(i) for i in index]}: "


def training_loss(
    model: Model, params: Tree, codes: Mapping[str, Any], step: Int[Array, ""]
) -> Float[Array, ""]:
    """The loss of codes [B, ...] of B pairs, each a group of its own."""
    index = jnp.arange(len(jax.tree.leaves(codes)[0]))
    row = {"index": index, "valid": index >= 0, "group": index, "item": index}
    keys = Keys.at(jnp.int32(0), step, index)
    variables = Variables(params, None, None, None)
    total, *_ = model.loss(variables, codes, row, step=step, keys=keys, axis=LocalAxis())
    return total


def in_order(norms: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Gradient norms in the order of a case's ``grad_names``; UserError if it has others."""
    unknown = [n for n in names if n not in norms]
    if unknown:
        raise UserError(f"its grad_names have {', '.join(unknown)}, not of this model: remove it.")
    return [norms[n] for n in names]
