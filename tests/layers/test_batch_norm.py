"""Batch norm over devices and valid rows, and ResNet blocks, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from layer_cases import normal

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.layers.batch_norm import STATS, BatchNorm, ValidRows
from hmgr_jax.layers.resnet import Conv, ResNet
from hmgr_jax.models.base import LocalAxis

SHAPE = (8, 3, 2, 5)
VALID = np.arange(8) < 6


@pytest.fixture(scope="module")
def variables():
    params = {"scale": normal(5), "bias": normal(5, seed=1)}
    return {"params": params, STATS: {"mean": normal(5, seed=2), "variance": jnp.full(5, 2.0)}}


def apply(variables, x, valid, axis):
    out, changed = BatchNorm().apply(variables, x, ValidRows(valid, axis), mutable=[STATS])
    return out, changed[STATS]


def expected(variables, x):
    """(output, running mean, running variance) of the valid rows, in float64."""
    own = np.asarray(x, np.float64)[VALID]
    mean, variance = own.mean((0, 1, 2)), own.var((0, 1, 2))
    count = own.size // 5
    p, stats = variables["params"], variables[STATS]
    out = (own - mean) / np.sqrt(variance + 1e-5) * np.asarray(p["scale"]) + np.asarray(p["bias"])
    kept = 0.9 * np.asarray(stats["variance"]) + 0.1 * variance * count / (count - 1)
    return out, 0.9 * np.asarray(stats["mean"]) + 0.1 * mean, kept


@pytest.mark.parametrize("devices", [1, 4])
def test_training_normalises_by_the_valid_rows_of_all_devices(variables, devices):
    """Rows that only fill the batch reach neither outputs nor statistics, on any device."""
    x = (3.0 + normal(*SHAPE, seed=4)).at[6:].set(1e4)
    valid = jnp.asarray(VALID)
    if devices == 1:
        out, stats = apply(variables, x, valid, LocalAxis())
    else:
        mapped = jax.shard_map(
            lambda v, x, valid: apply(v, x, valid, MappedAxis()),
            mesh=make_mesh(devices),
            in_specs=(P(), P(DATA), P(DATA)),
            out_specs=(P(DATA), P()),
            check_vma=False,
        )
        out, stats = jax.jit(mapped)(variables, x, valid)
    y, mean, variance = expected(variables, x)
    np.testing.assert_allclose(np.asarray(out)[VALID], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(stats["variance"], variance, rtol=1e-5)


def test_inference_uses_the_running_statistics(variables):
    x = normal(*SHAPE)
    p, stats = (jax.tree.map(np.asarray, variables[k]) for k in ("params", STATS))
    y = (np.asarray(x) - stats["mean"]) / np.sqrt(stats["variance"] + 1e-5) * p["scale"] + p["bias"]
    found = BatchNorm().apply(variables, x, None)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_plain_formula(variables):
    x, weight = normal(*SHAPE, seed=4), normal(*SHAPE, seed=5)

    def plain(p, x):
        mean, variance = jnp.mean(x, (0, 1, 2), keepdims=True), jnp.var(x, (0, 1, 2), keepdims=True)
        scale, bias = (p[k].reshape(1, 1, 1, 5) for k in ("scale", "bias"))
        return jnp.sum(weight * ((x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias))

    def ours(p, x):
        given = {**variables, "params": p}
        return jnp.sum(weight * apply(given, x, jnp.ones(8, bool), LocalAxis())[0])

    found, theirs = (jax.grad(f, argnums=(0, 1))(variables["params"], x) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, theirs)


def test_a_convolution_is_padded_as_in_pytorch():
    """A strided one looks at the first row and column too, which SAME padding would not."""
    x = normal(1, 4, 4, 2)
    conv = Conv(3, 3, 2)
    kernel = normal(3, 3, 2, 3, seed=1)
    found = np.asarray(conv.apply({"params": {"kernel": kernel}}, x))
    padded = np.pad(np.asarray(x)[0], ((1, 1), (1, 1), (0, 0)))
    for i, j in np.ndindex(2, 2):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        np.testing.assert_allclose(
            found[0, i, j],
            np.einsum("hwc,hwco->o", window, np.asarray(kernel)),
            rtol=1e-4,
            atol=1e-5,
        )


def test_feature_maps_have_the_stated_sizes():
    for kind, small, side in (("resnet50", False, 2), ("resnet18", True, 4)):
        net = ResNet(kind, 8, small)
        x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        found = jax.eval_shape(
            lambda x, net=net: net.init_with_output(jax.random.key(0), x, None), x
        )
        channels = 8 * 8 * (4 if kind == "resnet50" else 1)
        assert found[0].shape == (1, side, side, channels)
