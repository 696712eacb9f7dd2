"""A small HMGR with given inputs, and parameters none of which is zero."""

import jax
import jax.numpy as jnp
import numpy as np
from layer_cases import unit

from hmgr_jax.layers import bank as banks
from hmgr_jax.models import get_model
from hmgr_jax.models.base import Variables
from hmgr_jax.models.hmgr import Memory

B, R, F, L, D, S = 16, 6, 12, 8, 16, 8
WORDS = 20
OTHERS = 1000
"""The group of the first stored pair."""
SIZES = {
    "dim": D,
    "word_dim": 8,
    "slots": S,
    "visual_read": 0.3,
    "read_top": 3,
    "graph_layers": 1,
    "vocabulary_size": WORDS,
    "regions": R,
    "region_dim": F,
    "sum_warmup_steps": 3,
    "memory_warmup_steps": 5,
}


def hmgr(name="hmgr", **overrides):
    return get_model(name, **(SIZES | overrides))


def variables_of(model, base=None, seed=0):
    """Normal parameters (those of ``base`` where it has them), and a full bank that is read."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    known = {} if base is None else dict(jax.tree.leaves_with_path(base.params))

    def fill(path, s):
        drawn = jnp.asarray(0.5 * rng.standard_normal(s.shape), s.dtype)
        kept = known.get(path)
        return kept if kept is not None and kept.shape == s.shape else drawn

    params = jax.tree.map_with_path(fill, shapes.params)
    return Variables(params, None, None if model.memory == "none" else memory_of(model), None)


def memory_of(model, seed=4):
    """A full bank of random pairs, of pictures that no batch has, awake."""
    rng, shape = np.random.default_rng(seed), (model.slots, model.dim)
    pairs = {
        m: jnp.asarray(unit(rng.standard_normal(shape)), jnp.float32) for m in ("image", "text")
    }
    pairs = dict(zip(model.modalities, pairs.values(), strict=True))
    empty = banks.empty_bank(model.modalities, *shape)
    groups, valid = OTHERS + np.arange(model.slots), np.ones(model.slots, bool)
    bank = jax.jit(banks.write)(empty, pairs, groups, valid, jnp.int32(0))
    return Memory(bank, jnp.asarray(True))


def images():
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 0.5, (B, R, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (B, R, 2))], axis=-1)
    return {
        "regions": jnp.asarray(rng.standard_normal((B, R, F)), jnp.float16),
        "n_regions": jnp.asarray(rng.integers(2, R + 1, B), jnp.int32),
        "boxes": jnp.asarray(boxes, jnp.float32),
    }


def captions():
    rng = np.random.default_rng(2)
    lengths = rng.integers(3, L + 1, B)
    tokens = np.where(np.arange(L) < lengths[:, None], rng.integers(4, WORDS, (B, L)), 0)
    return {"tokens": jnp.asarray(tokens, jnp.int32), "lengths": jnp.asarray(lengths, jnp.int32)}


ITEMS = {"image": images(), "text": captions()}


def codes():
    """Unit vectors of pairs that are alike but not the same."""
    rng = np.random.default_rng(3)
    image = rng.standard_normal((B, D))
    text = image + 1.5 * rng.standard_normal((B, D))
    return {m: jnp.asarray(unit(x), jnp.float32) for m, x in (("image", image), ("text", text))}


def row(valid=B):
    """Rows whose images are all different."""
    index = jnp.arange(B)
    return {"index": index, "valid": index < valid, "group": index, "item": index}
