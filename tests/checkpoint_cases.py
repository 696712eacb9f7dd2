"""States to save and harm to do, for the tests of checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

META = {"config": {"model": "hmgr", "sizes": [1, 2]}, "words": ["<pad>", "ä"], "lr": 0.1}


@struct.dataclass
class Memory:
    slots: jax.Array
    active: jax.Array


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt: optax.OptState
    memory: Memory | None
    key: jax.Array


def optimizer():
    labels = {"dense": "train", "frozen": "keep"}
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform({"train": optax.adam(1e-3), "keep": optax.set_to_zero()}, labels),
    )


def make_state(seed=0, width=3):
    key = jax.random.key(seed)
    params = {
        "dense": {"w": jax.random.normal(key, (64, width)), "b": jnp.ones(3, jnp.bfloat16)},
        "frozen": {"w/x": jnp.arange(4, dtype=jnp.int8)},
    }
    memory = Memory(jax.random.uniform(key, (2, 5)), jnp.asarray(True))
    return State(jnp.int32(seed), params, optimizer().init(params), memory, key)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def abstract(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def fill(checkpoints, metrics):
    """Save step 1, 2, ... with these metrics; the state of step n is that of seed n."""
    for step, metric in enumerate(metrics, start=1):
        checkpoints.save(step, make_state(step), META | {"at": step}, metric)
    checkpoints.wait()


def largest_file(folder):
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])
