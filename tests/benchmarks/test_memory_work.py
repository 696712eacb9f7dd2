"""HMGR's memory over devices: what is divided, and what every device does for itself."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from hmgr_jax.distributed.parallel import DATA, MappedAxis, make_mesh
from hmgr_jax.layers.memory import GroupedMemory, MemoryAccess, write
from hmgr_jax.training.flops import matmul_flops

pytestmark = pytest.mark.slow

B, D, S, K = 128, 1024, 128, 256
"""HMGR at its defaults: batch, features, slots, features of a key."""
GROUPS, HOPS, MODALITIES = 8, 2, 2


def _memory(**options):
    access = MemoryAccess(features=D, slots=S, modalities=("image", "text"))
    slots = jax.ShapeDtypeStruct((S, D), jnp.float32)
    params = jax.eval_shape(lambda s: access.init(jax.random.key(0), s, method="touch"), slots)
    return GroupedMemory(access, params["params"], groups=GROUPS, **options)


def _flops(devices, **options):
    """Of one device, when the batch is read and written once, without gradients."""
    memory = _memory(**options)

    def visit(params, slots, codes):
        own = dataclasses.replace(memory, params=params)
        valid = jnp.ones(len(codes), bool)
        pairs = {"image": codes, "text": codes}
        return own.read_then_write(slots, pairs, valid, MappedAxis())

    specs = (P(), P(), P(DATA))
    mesh = make_mesh(devices)
    mapped = jax.shard_map(visit, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, S, D), (B, D))]
    return matmul_flops(mapped, memory.params, *shapes)


def _of_closed_form():
    """FLOPs of the closed-form writes of a whole batch."""
    rows = B // GROUPS
    shapes = ((S, D), (rows, S), (MODALITIES, rows, S), (MODALITIES, rows, D))
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def closed_form(slots, keep, weights, contents):
        return write(slots, keep, tuple(weights), tuple(contents))

    return GROUPS * matmul_flops(closed_form, *arguments)


# The keys of the slots do not depend on the rows either: every visit makes them anew.
KEYS = GROUPS * MODALITIES * 2 * S * D * K


@pytest.fixture(scope="module")
def work():
    return {
        (devices, part): _flops(devices, writes=part == "both")
        for devices in (1, 8)
        for part in ("read", "both")
    }


def test_reading_is_divided_but_for_the_keys_of_the_slots(work):
    one, eight = work[1, "read"], work[8, "read"]
    a_row = HOPS * 2 * (D * K + K * S + S * D + 2 * (2 * D * D))  # query, where, what, two gates
    assert one == B * MODALITIES * a_row + KEYS
    assert eight - KEYS == (one - KEYS) / 8
    print(f"read: {one:,} on one device, {eight:,} on each of 8, keys {KEYS:,}")


def test_writing_is_divided_but_for_the_closed_form(work):
    one, eight = (work[n, "both"] - work[n, "read"] for n in (1, 8))
    closed = _of_closed_form()
    assert closed == 2 * MODALITIES * B * S * D
    assert eight - closed == (one - closed) / 8
    print(f"write: {one:,} on one device, {eight:,} on each of 8, closed form {closed:,}")
