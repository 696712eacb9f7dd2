"""Convert between an official state_dict and a model's parameters: names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.leaves import arrange_like, by_name
from hmgr_jax.shapes import Tree

Arrays = tuple[np.ndarray, ...]
SHOWN = 8
"""Largest number of names of each kind in a message."""


@dataclass(frozen=True)
class Entry:
    """Official tensors and the parameters of ours made from them; mostly one of each."""

    official: tuple[str, ...]
    paths: tuple[str, ...]
    """Parameters, such as ``text/words/vectors``."""
    inward: Callable[..., Arrays] = lambda *x: x
    """Official arrays to ours."""
    outward: Callable[..., Arrays] = lambda *x: x
    """The inverse."""
    words: bool = False
    """Whether it has one row per word of the vocabulary."""


Names = Sequence[Entry]


def same(official: str, path: str, *, words: bool = False) -> Entry:
    """A tensor with equal layout in both."""
    return Entry((official,), (path,), words=words)


def our_own(template: Tree) -> list[Entry]:
    """Every leaf under its own path."""
    return [same(path, path) for path in by_name(template)]


def within(names: Names, prefix: str) -> list[Entry]:
    """The entries with all paths below ``prefix``."""
    return [replace(e, paths=tuple(f"{prefix}/{path}" for path in e.paths)) for e in names]


def unused(names: Names, template: Tree) -> list[str]:
    """Official names without a counterpart in a model with the parameters of ``template``."""
    leaves = by_name(template)
    return [n for entry in names if not leaves.keys() >= {*entry.paths} for n in entry.official]


def covers(names: Names, params: Tree) -> bool:
    """Whether every parameter has official names."""
    return not _without_name(names, by_name(params))


def to_params(names: Names, state: Mapping[str, np.ndarray], template: Tree) -> Tree:
    """Parameters (numpy, on the host) from an official state_dict.

    Args:
        names: the mapping of the model; entries without a place in ``template`` are skipped.
        state: arrays by official name; a floating type may differ from ours.
        template: arrays or ShapeDtypeStructs with the shapes and types of all parameters.

    Raises:
        UserError: tensors are missing, extra or misshaped; the vocabulary has another size than the
            embedding; a value is not finite.
    """
    leaves = by_name(template)
    _check_names(names, leaves)
    used = [entry for entry in names if leaves.keys() >= {*entry.paths}]
    wanted = {
        name: shape
        for entry in used
        for name, shape in zip(entry.official, _official_shapes(entry, leaves), strict=True)
    }
    _check_vocabulary(used, state, wanted)
    types = {n: leaves[entry.paths[0]].dtype for entry in used for n in entry.official}
    _check_tensors({n for entry in names for n in entry.official}, state, wanted, types)
    found: dict[str, np.ndarray] = {}
    for entry in used:
        arrays = [_finite(n, state[n], types[n]) for n in entry.official]
        for path, x in zip(entry.paths, entry.inward(*arrays), strict=True):
            found[path] = np.array(x, order="C").reshape(leaves[path].shape)
    return arrange_like(template, found, None)


def from_params(names: Names, params: Tree) -> dict[str, np.ndarray]:
    """The official state_dict of parameters, the inverse of ``to_params``.

    Entries without parameters are left out, although the official module may require them. Raises
    UserError if a parameter has no official name.
    """
    leaves = by_name(params)
    _check_names(names, leaves)
    state: dict[str, np.ndarray] = {}
    for entry in names:
        if leaves.keys() >= {*entry.paths}:
            arrays = entry.outward(*(np.asarray(leaves[path]) for path in entry.paths))
            state |= {
                n: np.array(x, order="C") for n, x in zip(entry.official, arrays, strict=True)
            }
    return state


def _without_name(names: Names, leaves: Mapping[str, Any]) -> list[str]:
    known = {path for entry in names for path in entry.paths}
    return [path for path in leaves if path not in known]


def _check_names(names: Names, leaves: Mapping[str, Any]) -> None:
    lacking = _without_name(names, leaves)
    if lacking:
        raise UserError(
            f"{_listed(lacking)} of this model have no counterpart in the official one: disable "
            "the options that the official model does not have."
        )


def _official_shapes(entry: Entry, leaves: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Official shapes, computed by the transform itself on arrays that need no memory."""
    nothing = np.zeros((), np.float32)
    ours = (np.broadcast_to(nothing, leaves[path].shape) for path in entry.paths)
    return [x.shape for x in entry.outward(*ours)]


def _check_vocabulary(
    used: Names, state: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `UserError` if the number of words is the only difference."""
    others = [n for n in wanted if n not in state or state[n].shape != wanted[n]]
    tables = [n for entry in used if entry.words for n in entry.official]
    if len(others) != 1 or others[0] not in tables or others[0] not in state:
        return
    name = others[0]
    found, expected = state[name].shape, wanted[name]
    if found[1:] == expected[1:]:
        raise UserError(
            f"{name} holds vectors of {found[0]} words, but the vocabulary has {expected[0]}: give "
            "the vocabulary that the weights were trained with."
        )


def _check_tensors(
    known: set[str],
    state: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    types: Mapping[str, Any],
) -> None:
    missing = [n for n in wanted if n not in state]
    extra = [n for n in state if n not in known]
    misshaped = [
        f"{n} is {state[n].dtype}{list(state[n].shape)} and should be {list(shape)}"
        for n, shape in wanted.items()
        if n in state and (state[n].shape != shape or not _fits(state[n].dtype, types[n]))
    ]
    kinds = (("missing", missing), ("extra", extra), ("misshaped", misshaped))
    problems = "; ".join(f"{kind}: {_listed(which)}" for kind, which in kinds if which)
    if problems:
        raise UserError(
            f"The weights are not those of this model ({problems}): give its own weights, or the "
            "hyper-parameters that they were trained with."
        )


def _fits(found: Any, wanted: Any) -> bool:
    """Whether a type may be converted to another: all floating types may."""
    return found == wanted or all(jnp.issubdtype(t, np.floating) for t in (found, wanted))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _finite(name: str, x: np.ndarray, dtype: Any) -> np.ndarray:
    x = np.asarray(x, dtype)
    if not np.isfinite(x).all():
        raise UserError(f"{name} holds NaN or infinity: give weights of a finished run.")
    return x
