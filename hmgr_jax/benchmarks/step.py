"""Time, FLOPs and memory of one training step; needs jax, flax, optax and numpy alone."""

from __future__ import annotations

import os
import statistics
from typing import Any

import jax

from hmgr_jax.benchmarks.program import Program, matmul_rate, xla_counts
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
    sizes = (regions, region_dim, words, lengths, vocabulary, options)
    workload = Workload(model, batch, dim, dtype, *sizes)
    if repeats < 1:
        raise UserError(f"--repeats is {repeats}, but a time needs at least one step.")
    if not 0 <= devices <= len(jax.devices()):
        raise UserError(f"--devices is {devices}, but this machine has {len(jax.devices())}.")
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
        "platform": f"{jax.default_backend()} {jax.devices()[0].device_kind}",
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
