"""Time and memory of an EdgeConv: maps of points beside maps of edges."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax import bench
from hmgr_jax.benchmarks.program import median_time, platform, program_bytes
from hmgr_jax.errors import UserError
from hmgr_jax.layers.batch_norm import STATS, BatchNorm, ValidRows
from hmgr_jax.layers.edges import gathered, nearest
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.point_clouds import SLOPE, EdgeConv
from hmgr_jax.models.base import LocalAxis
from hmgr_jax.shapes import Array, Float, Tree

Program = Callable[[Tree, tuple[Array, Array]], Tree]
Layer = Callable[[Tree, tuple[Array, Array], ValidRows | None], tuple[Array, Tree]]
"""(variables, (points [b, N, C], their neighbours), rows) -> (output, statistics)."""


def run(
    batch: int = 32,
    points: int = 1024,
    neighbours: int = 20,
    channels: int = 64,
    features: int = 64,
    repeats: int = 3,
) -> dict[str, Any]:
    """Time one EdgeConv in the split and in the concatenated form, in inference and in training.

    The split form applies the linear map to points and visits neighbours one after the other. The
    concatenated form applies it to ``[x_j - x_i ; x_i]`` of all edges and stores them. Training is
    the gradient of the mean square of the output, with batch statistics. Clouds are random. The
    search for neighbours is the same for both forms and is timed apart.

    Returns:
        a row for JSON: ``nearest_seconds``, and for ``inference`` and ``training`` of ``split`` and
        ``concatenated`` seconds (median of warm calls) and bytes of the compiled program, with
        ``apart``, the largest difference of outputs and, in training, of gradients relative to the
        largest gradient.

    Raises:
        UserError: a size is too small.
    """
    if min(batch, neighbours, channels, features, repeats) < 1 or points < neighbours:
        raise UserError(
            "Every size must be at least 1, and --points at least --neighbours: raise the one "
            "that is not."
        )
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, points, channels), np.float32))
    find = jax.jit(lambda x: nearest(x, neighbours))
    index = find(x)
    layer = EdgeConv(features, neighbours)
    variables = jax.jit(lambda: layer.init(jax.random.key(0), x, None, index))()
    forms: dict[str, Layer] = {
        "split": lambda v, given, rows: _split(layer, v, given, rows),
        "concatenated": _concatenated,
    }
    kinds = {"inference": _infer, "training": _train}
    row = {
        "benchmark": "edgeconv",
        "batch": batch,
        "points": points,
        "neighbours": neighbours,
        "channels": channels,
        "features": features,
        "platform": platform(),
        "nearest_seconds": median_time(lambda: find(x), repeats)[0],
    }
    for kind, program in kinds.items():
        of_forms, results = {}, []
        for name, form in forms.items():
            of_forms[name], result = _measured(program(form), variables, (x, index), repeats)
            results.append(result)
        row[kind] = {**of_forms, "apart": _apart(*results)}
    return {**row, "load": os.getloadavg()[0]}


def _infer(form: Layer) -> Program:
    return lambda variables, given: {"out": form(variables, given, None)[0]}


def _train(form: Layer) -> Program:
    def program(variables: Tree, given: tuple[Array, Array]) -> Tree:
        x, index = given
        rows = ValidRows(jnp.ones(len(x), bool), LocalAxis())

        def loss(params: Tree, x: Array) -> tuple[Array, tuple[Array, Tree]]:
            out, changed = form({**variables, "params": params}, (x, index), rows)
            return jnp.mean(out**2), (out, changed)

        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (of_params, of_points), (out, stats) = gradient(variables["params"], x)
        return {"out": out, "stats": stats, "params": of_params, "points": of_points}

    return program


def _split(
    layer: EdgeConv, variables: Tree, given: tuple[Array, Array], rows: ValidRows | None
) -> tuple[Float[Array, "b N D"], Tree]:
    found: Any = layer.apply(variables, given[0], rows, given[1], mutable=[STATS])
    return found[0], found[1]


def _concatenated(
    variables: Tree, given: tuple[Array, Array], rows: ValidRows | None
) -> tuple[Float[Array, "b N D"], Tree]:
    """The form of the paper."""
    x, index = given
    near = gathered(x, index)
    own = jnp.broadcast_to(x[:, :, None], near.shape)
    edges = jnp.concatenate([near - own, own], axis=-1)
    y = einsum("nc,cd->nd", edges.reshape(-1, edges.shape[-1]), variables["params"]["kernel"])
    norm = {name: variables[name]["edges"]["norm"] for name in ("params", STATS)}
    y, changed = BatchNorm().apply(norm, y.reshape(*near.shape[:3], -1), rows, mutable=[STATS])
    return jnp.max(jax.nn.leaky_relu(y, SLOPE), axis=2), {
        STATS: {"edges": {"norm": changed[STATS]}}
    }


def _measured(
    program: Program, variables: Tree, x: tuple[Array, Array], repeats: int
) -> tuple[dict[str, Any], Tree]:
    compiled = jax.jit(program).lower(variables, x).compile()
    seconds, found = median_time(lambda: compiled(variables, x), repeats)
    return {"seconds": seconds, "memory_bytes": program_bytes(compiled)}, found


def _apart(a: Tree, b: Tree) -> dict[str, float]:
    """Largest differences; those of gradients are relative to the largest gradient."""
    found = {}
    for name, value in a.items():
        pairs = list(zip(jax.tree.leaves(value), jax.tree.leaves(b[name]), strict=True))
        largest = max(float(jnp.max(jnp.abs(x))) for x, _ in pairs)
        off = max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)
        found[name] = off / largest if name in ("params", "points") else off
    return found


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
