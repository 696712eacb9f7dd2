"""Time, FLOPs and memory of one training step; needs jax, flax, optax and numpy alone."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers.linear import einsum
from hmgr_jax.models import defaults, get_model, unknown_name
from hmgr_jax.models.base import Feature, Model, Plan
from hmgr_jax.training.flops import matmul_flops
from hmgr_jax.training.optimizer import Optimizer, Schedule
from hmgr_jax.training.parallel import MappedAxis, make_mesh, map_step, replicate, shard
from hmgr_jax.training.step import device_step, init_state

F8K_LENGTHS = (8, 9, 10, 11, 11, 12, 12, 13, 14, 14, 15, 16, 16, 17, 19, 22)
"""Equally likely: the lengths of Flickr8k's captions, <start> and <end> counted."""


def run(
    model: str = "hmgr",
    batch: int = 128,
    dim: int = 1024,
    dtype: str = "float32",
    regions: int = 36,
    region_dim: int = 2048,
    words: int = 24,
    lengths: str = "full",
    vocabulary: int = 10000,
    devices: int = 0,
    repeats: int = 5,
    matmul_size: int = 0,
    options: str = "",
) -> dict[str, Any]:
    """Train ``repeats`` warm steps on random items of the size of COCO's.

    ``lengths`` of captions padded to ``words`` are all ``full`` or as many as those of Flickr8k
    (``f8k``, 14 in the mean); ``options`` are further hyper-parameters: ``variant=text,steps=3``.

    Returns:
        a row for JSON: ``seconds`` of a step (median), ``compile_seconds`` (tracing included; a
        compile cache shortens them), FLOPs of one device by XLA's count (a loop counts once) and
        by our own of the matrix products (a loop counts as often as it turns),
        ``share_of_matmul_rate`` (our count a second over what a plain matrix product of the same
        type reaches, measured before and after, of ``matmul_size`` rows and columns or as many as
        suit the platform), bytes of one device's program.

    Raises:
        UserError: no such system, or more devices than there are.
    """
    if min(batch, dim, regions, region_dim, words, repeats) < 1 or vocabulary < 4:
        raise UserError("Every size must be at least 1, and the vocabulary 4: raise what is less.")
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype is float32 or bfloat16, not {dtype!r}.")
    if lengths not in ("full", "f8k"):
        raise UserError(f"--lengths is full or f8k, not {lengths!r}.")
    if not 0 <= devices <= len(jax.devices()):
        raise UserError(f"--devices is {devices}, but this machine has {len(jax.devices())}.")
    mesh = make_mesh(devices)
    if batch % mesh.devices.size:
        raise UserError(f"--batch is {batch}, which {mesh.devices.size} devices cannot share.")
    sizes = {"regions": (regions, region_dim), "n_regions": (), "boxes": (regions, 4)}
    plan = Plan(1000, 100, vocabulary, {"image": sizes, "text": {"tokens": (), "lengths": ()}})
    system = get_model(model, dim=dim, dtype=dtype, **parsed(model, options)).fit_to(plan)
    optimizer = Optimizer(Schedule(2e-4, plan.steps), system.parts())
    state = replicate(mesh, jax.jit(lambda: init_state(system, optimizer, 0))())
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    items = shard(mesh, random_batch(system, batch, words, regions, vocabulary, lengths))

    step: Any = map_step(device_step(system, optimizer, MappedAxis()), mesh)
    begin = time.perf_counter()
    compiled = step.lower(state, None, items).compile()
    compile_seconds = time.perf_counter() - begin
    flops = matmul_flops(step, state, None, items)
    rate = matmul_rate(dtype, matmul_size)

    def advance() -> Any:
        nonlocal state
        state, report = compiled(state, None, items)
        return report

    seconds = warm_seconds(advance, repeats)
    rate = max(rate, matmul_rate(dtype, matmul_size))
    memory = compiled.memory_analysis()
    return {
        "benchmark": "step",
        "model": model,
        "batch": batch,
        "dim": dim,
        "dtype": dtype,
        "regions": [regions, region_dim],
        "words": words,
        "lengths": lengths,
        "options": options,
        "devices": mesh.devices.size,
        "platform": f"{jax.default_backend()} {jax.devices()[0].device_kind}",
        "parameters": parameters,
        "seconds": seconds,
        "items_per_second": batch / seconds,
        "compile_seconds": compile_seconds,
        "xla_flops": float(compiled.cost_analysis().get("flops", 0.0)),
        "matmul_flops": flops,
        "matmul_rate": rate,
        "share_of_matmul_rate": flops / seconds / rate,
        "memory_bytes": {
            name: getattr(memory, f"{name}_size_in_bytes")
            for name in ("argument", "output", "alias", "temp")
        },
        "load": os.getloadavg()[0],
    }


def random_batch(
    model: Model, batch: int, words: int, regions: int, vocabulary: int, lengths: str = "full"
) -> dict[str, dict[str, np.ndarray]]:
    """Random items of every modality of ``model``, with all of their regions."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(F8K_LENGTHS, batch) if lengths == "f8k" else np.full(batch, words)
    counts = {"lengths": np.minimum(drawn, words), "n_regions": np.full(batch, regions)}

    def draw(name: str, feature: Feature) -> np.ndarray:
        shape = (batch, *(words if extent is None else extent for extent in feature.shape))
        if feature.dtype.startswith("float"):
            return rng.random(shape, np.float32).astype(feature.dtype)
        if name in counts:
            return counts[name].astype(feature.dtype)
        return rng.integers(0, vocabulary, shape).astype(feature.dtype)

    found = {
        modality: {name: draw(name, feature) for name, feature in features.items()}
        for modality, features in model.inputs().items()
    }
    number = np.arange(batch, dtype=np.int32)
    valid = np.ones(batch, bool)
    return {**found, "row": {"index": number, "valid": valid, "group": number, "item": number}}


def parsed(model: str, options: str) -> dict[str, Any]:
    """``"variant=text,steps=3"`` as hyper-parameters of the types that the model's have."""
    known, found = defaults(model), {}
    for option in filter(None, options.split(",")):
        name, _, text = option.partition("=")
        if name not in known:
            raise UserError(unknown_name(f"hyper-parameter of {model}", name, list(known)))
        kind = type(known[name])
        try:
            found[name] = text == "True" if kind is bool else kind(text)
        except ValueError:
            raise UserError(f"--options {name} is {kind.__name__}, not {text!r}.") from None
    return found


def matmul_rate(dtype: str, size: int = 0) -> float:
    """FLOPs a second of a square matrix product of ``dtype`` on the first device."""
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x, y: einsum("ij,jk->ik", x, y, dtype=jnp.dtype(dtype)))
    return 2 * size**3 / warm_seconds(lambda: product(a, a), 5)


def warm_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of ``repeats`` calls after one that is not counted."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
