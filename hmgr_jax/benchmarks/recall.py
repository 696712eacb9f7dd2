"""Time and memory of a full evaluation: all scores, ranks in both directions, all recalls."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.benchmarks.memory import peak_memory_bytes
from hmgr_jax.evaluation.all_pairs import score_matrix
from hmgr_jax.metrics.protocols import get_protocol


def run(images: int = 5000, captions: int = 25000, dim: int = 1024, repeats: int = 3) -> dict:
    """Evaluate generated codes ``repeats`` times; the default size is that of COCO 5K.

    Caption j is a noisy copy of image ``j * images // captions``, so the recalls are not trivial.

    Returns:
        a row for JSON: seconds (median of the repeats; the first one compiles), FLOPs of the
        matrix, peak memory of this process in bytes since its start, and the metrics.
    """
    codes, groups = _codes(images, captions, dim)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        scores = score_matrix(_dot, *codes)
        scored = time.perf_counter()
        metrics = get_protocol("plain").evaluate(scores, *groups)
        times.append((scored - begin, time.perf_counter() - scored))
        del scores  # before the next repeat allocates its own
    score_seconds, rank_seconds = np.median(times, axis=0)
    return {
        "benchmark": "recall",
        "images": images,
        "captions": captions,
        "dim": dim,
        "devices": jax.local_device_count(),
        "platform": jax.default_backend(),
        "score_seconds": float(score_seconds),
        "rank_seconds": float(rank_seconds),
        "seconds": float(np.median(np.sum(times, axis=1))),
        "first_seconds": float(sum(times[0])),
        "flops": 2 * images * captions * dim,
        "peak_memory_bytes": peak_memory_bytes(),
        "metrics": metrics,
    }


def _dot(images: jax.Array, captions: jax.Array) -> jax.Array:
    return jnp.matmul(images, captions.T, precision=jax.lax.Precision.HIGHEST)


def _codes(images: int, captions: int, dim: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Unit-norm codes of both sides, float32 [images or captions, dim], and their groups."""
    rng = np.random.default_rng(0)
    groups = np.arange(images), np.arange(captions) * images // captions
    image_codes = rng.standard_normal((images, dim), np.float32)
    caption_codes = rng.standard_normal((captions, dim), np.float32)
    caption_codes *= 8
    caption_codes += image_codes[groups[1]]
    for codes in (image_codes, caption_codes):
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return (image_codes, caption_codes), groups
