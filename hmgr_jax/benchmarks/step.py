"""Time, FLOPs and memory of one training step; needs jax, flax, optax and numpy alone."""

from __future__ import annotations

import os
import statistics
from typing import Any

import jax

from hmgr_jax.benchmarks.program import Program, matmul_rate, platform, xla_counts
from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError


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

    Captions are padded to ``words`` words. With ``--lengths full`` all words are used; with ``f8k``
    the lengths are those of Flickr8k (mean 14). ``options`` sets further hyper-parameters:
    ``variant=text,steps=3``.

    Returns:
        a row for JSON: ``seconds`` of a step (median), ``compile_seconds`` (with tracing; a compile
        cache shortens them), ``xla_flops`` of one device (XLA counts a loop once),
        ``matmul_flops`` (our count of matrix products; a loop counts once per iteration),
        ``share_of_matmul_rate`` (``matmul_flops`` per second over the rate of a plain matrix
        product of the same type, measured before and after, with ``matmul_size`` rows and columns
        or a size that suits the platform), ``memory_bytes`` of one device's program.

    Raises:
        UserError: an unknown system or an invalid size, or too few devices on this machine.
    """
    sizes = (regions, region_dim, words, lengths, vocabulary, options)
    workload = Workload(model, batch, dim, dtype, *sizes)
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {repeats}.")
    if not 0 <= devices <= len(jax.devices()):
        raise UserError(
            f"--devices is {devices}, but this machine has {len(jax.devices())}: lower it."
        )
    mesh = make_mesh(devices)
    if batch % mesh.devices.size:
        raise UserError(f"--batch is {batch}, which {mesh.devices.size} devices cannot share.")
    program = Program(workload, mesh)
    compiled, compile_seconds = program.compiled()
    flops = program.flops()
    rate = matmul_rate(dtype, matmul_size)
    seconds = statistics.median(program.times(compiled, repeats))
    rate = max(rate, matmul_rate(dtype, matmul_size))
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
        "platform": platform(),
        "parameters": program.parameters(),
        "seconds": seconds,
        "items_per_second": batch / seconds,
        "compile_seconds": compile_seconds,
        "matmul_flops": flops,
        "matmul_rate": rate,
        "share_of_matmul_rate": flops / seconds / rate,
        **xla_counts(compiled),
        "load": os.getloadavg()[0],
    }
