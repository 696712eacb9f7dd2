"""Time and memory of PCME's matching: the loss of a batch and the probabilities of all pairs."""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax import bench
from hmgr_jax.benchmarks.memory import forget_peak, peak_memory_bytes
from hmgr_jax.benchmarks.program import median_time, platform, program_bytes
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.layers.linear import einsum
from hmgr_jax.losses.soft_contrastive import Match, soft_contrastive
from hmgr_jax.models.base import Variables
from hmgr_jax.models.pcme import PCME
from hmgr_jax.shapes import Array, Float
from hmgr_jax.training.flops import matmul_flops

NOISE, SIGMA = 0.3, 0.6
"""Of generated codes: distance of a caption's mean from its image's, and of a sample from its mean.
With scale and shift 15 a pair then matches with p about 1e-8 or 0.9."""
SUBSET = 16
"""Images, and captions of them, that are also scored by the direct form."""


def run(
    batch: int = 128,
    dim: int = 1024,
    samples: int = 7,
    images: int = 1000,
    captions: int = 5000,
    repeats: int = 2,
) -> dict[str, Any]:
    """Time the loss of ``batch`` pairs and the scores of ``images`` x ``captions``, on samples.

    The loss is the soft contrastive loss with its gradients; its three matrix products alone are
    timed too (float32). Scores are ``matching_prob`` of generated codes, in tiles and blocks as in
    an evaluation.

    Returns:
        a row for JSON. ``loss``: seconds of the loss and of its products (median of ten warm
        calls), FLOPs of the products and bytes of the compiled loss. ``scoring``: seconds (median
        of the warm repeats, or of the only call), the peak memory of this process since the codes
        were generated, and the largest difference of a few scores from the direct form in float64.

    Raises:
        UserError: a size is too small.
    """
    if min(batch, samples, images, captions, repeats) < 1 or dim < 2:
        raise UserError("Every size must be at least 1 (and --dim 2): raise the one that is not.")
    return {
        "benchmark": "match",
        "batch": batch,
        "dim": dim,
        "samples": samples,
        "images": images,
        "captions": captions,
        "devices": jax.local_device_count(),
        "platform": platform(),
        "loss": _loss(batch, samples, dim),
        "scoring": _scoring(PCME(dim=dim, samples_eval=samples), images, captions, repeats),
        "load": os.getloadavg()[0],
    }


# --- the loss -----------------------------------------------------------------------------------


def _loss(batch: int, samples: int, dim: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal((batch, samples, dim), np.float32)) for _ in "ab")
    given = (a, b, jnp.float32(15.0), jnp.float32(15.0))
    step = jax.jit(jax.value_and_grad(_of_samples, argnums=(0, 1, 2, 3)))
    compiled = step.lower(*given).compile()
    rows = [x.reshape(batch * samples, dim) for x in (a, b)]
    seconds = median_time(lambda: compiled(*given), 10)[0]
    pairs = jnp.ones((len(rows[0]), len(rows[1])), jnp.float32)
    plain = median_time(lambda: _products(*rows, pairs), 10)[0]
    return {
        "seconds": seconds,
        "products_seconds": plain,
        "times_the_products": seconds / plain,
        "matmul_flops": matmul_flops(step, *given),
        "products_flops": matmul_flops(_products, *rows, pairs),
        "memory_bytes": program_bytes(compiled),
    }


def _of_samples(a: Array, b: Array, scale: Array, shift: Array) -> Float[Array, ""]:
    """The loss of a batch in which row i matches row i."""
    same = jnp.eye(len(a), dtype=bool)
    near, far = soft_contrastive(Match(scale, shift), a, b, same, jnp.ones_like(same))
    return 2.0 * (near + far)


@jax.jit
def _products(a: Array, b: Array, pairs: Array) -> tuple[Array, Array, Array]:
    """All inner products and the gradients of both sides: the least that such a loss computes."""
    return (
        einsum("id,jd->ij", a, b),
        einsum("ij,jd->id", pairs, b),
        einsum("ij,id->jd", pairs, a),
    )


# --- the scores ---------------------------------------------------------------------------------


def _scoring(model: PCME, images: int, captions: int, repeats: int) -> dict[str, Any]:
    forget_peak()
    image_codes, caption_codes = _codes(images, captions, model.samples_eval, model.dim)
    match = {"scale": jnp.float32(model.init_scale), "shift": jnp.float32(model.init_shift)}
    variables = Variables({"match": match}, None, None, None)
    evaluator = Evaluator(model, make_mesh())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        scores = evaluator.scores(variables, "image", image_codes, "text", caption_codes)
        times.append(time.perf_counter() - begin)
    peak = peak_memory_bytes()
    seconds = statistics.median(times[1:] or times)
    rows = np.linspace(0, images - 1, min(SUBSET, images)).astype(int)
    columns = np.minimum(-(-rows * captions // images), captions - 1)
    found = model.logit_scale * model.init_scale * model.dim**0.5 * scores[np.ix_(rows, columns)]
    direct = _directly(model, image_codes["samples"][rows], caption_codes["samples"][columns])
    return {
        "seconds": seconds,
        "first_seconds": times[0],
        "pairs_per_second": images * captions / seconds,
        "flops": 2 * images * captions * model.samples_eval**2 * model.dim,
        "peak_memory_bytes": peak,
        "largest_probability": float(np.exp(direct).max()),
        "off_probability": float(np.abs(np.exp(found) - np.exp(direct)).max()),
        "off_log_probability": float(np.abs(found - direct).max()),
    }


def _codes(images: int, captions: int, samples: int, dim: int) -> list[dict[str, np.ndarray]]:
    """Codes of both sides as from `PCME.encode`; caption j is of image j * images // captions."""
    rng = np.random.default_rng(0)
    of_images = _unit(rng.standard_normal((images, dim), np.float32))
    off = _unit(rng.standard_normal((captions, dim), np.float32))
    of_captions = _unit(of_images[np.arange(captions) * images // captions] + NOISE * off)
    sigma, found = np.float32(SIGMA / dim**0.5), []
    for mu in (of_images, of_captions):
        drawn = rng.standard_normal((len(mu), samples, dim), np.float32)
        drawn *= sigma
        drawn += mu[:, None]
        found.append({"mu": mu, "log_sigma": np.full_like(mu, np.log(sigma)), "samples": drawn})
    return found


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _directly(model: PCME, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Logarithms of p [A, B] from the differences of all pairs of samples, in float64."""
    found = np.empty((len(a), len(b)))
    for i, k in np.ndindex(*found.shape):
        off = a[i][:, None].astype(np.float64) - b[k][None]
        distance = np.sqrt((off**2).sum(-1) + 1e-6)
        z = model.logit_scale * (model.init_shift - model.init_scale * distance)
        found[i, k] = np.logaddexp.reduce(-np.logaddexp(0, -z), axis=None) - np.log(z.size)
    return found


if __name__ == "__main__":
    sys.exit(bench.main_of(run))
