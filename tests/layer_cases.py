"""Parameters, masks and softmax for the tests of layers."""

import jax
import jax.numpy as jnp
import numpy as np


def random_params(module, *arguments, seed=0, **options):
    """Normal parameters of a module's shapes: no initialiser is compiled, and none is zero."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, **options)["params"])
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(0.5 * rng.standard_normal(s.shape), s.dtype), shapes)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def mask_of(lengths, size):
    return jnp.asarray(np.arange(size)[None] < np.asarray(lengths)[:, None])


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def as64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def linear(params, x):
    """``x W + b`` in numpy."""
    return x @ params["kernel"] + params.get("bias", 0.0)
