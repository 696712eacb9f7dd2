"""Random numbers depend on (seed, step, purpose, global row), not on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from layer_cases import mask_of

from hmgr_jax.distributed.parallel import DATA, make_mesh
from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout, keep_mask

ROWS = jnp.arange(16)
ONES = jnp.ones((16, 3, 5))


def keys(rows=ROWS, seed=0, step=0):
    return Keys.at(jnp.int32(seed), jnp.int32(step), rows)


def dropped(rows=ROWS, purpose="words", **at):
    return np.asarray(dropout(ONES[: len(rows)], 0.5, keys(rows, **at), purpose))


def test_numbers_of_a_row_do_not_depend_on_other_rows():
    everything = dropped()
    np.testing.assert_array_equal(dropped(ROWS[6:9]), everything[6:9])
    np.testing.assert_array_equal(dropped(ROWS[::-1]), everything[::-1])


@pytest.mark.parametrize("devices", [1, 8])
def test_numbers_do_not_depend_on_the_number_of_devices(devices):
    def on_device(x, rows):
        return dropout(x, 0.5, keys(rows), "words")

    mapped = jax.shard_map(
        on_device,
        mesh=make_mesh(devices),
        in_specs=(P(DATA), P(DATA)),
        out_specs=P(DATA),
        check_vma=False,
    )
    np.testing.assert_array_equal(jax.jit(mapped)(ONES, ROWS), dropped())


def test_seed_step_purpose_and_row_each_change_the_numbers():
    plain = dropped()
    others = (dropped(seed=1), dropped(step=1), dropped(purpose="regions"), dropped(ROWS + 16))
    for other in others:
        assert 0.3 < (plain != other).mean() < 0.7
    assert len({row.tobytes() for row in plain}) == 16


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.75])
def test_dropout_drops_the_given_share(rate):
    kept = np.asarray(keep_mask(keys(jnp.arange(100)), (1001,), rate))
    assert kept.shape == (100, 1001)
    # Five standard deviations of the mean of 100 100 draws; each column by itself, more loosely.
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / kept.size)
    assert np.abs(kept.mean(0) - (1 - rate)).max() < 0.3


def test_kept_entries_are_scaled_up():
    found = dropout(ONES, 0.75, keys(), "words")
    np.testing.assert_array_equal(np.unique(found), [0.0, 4.0])


def test_dropout_is_off_at_evaluation_and_at_rate_0():
    mask = mask_of(range(16), 16)
    for found in (dropout(ONES, 0.5, None, "words"), dropout(ONES, 0.0, keys(), "words")):
        assert found is ONES
    for found in (drop_nodes(mask, 0.5, None, "words"), drop_nodes(mask, 0.0, keys(), "words")):
        assert found is mask


def test_drop_nodes_leaves_one_node_per_item():
    lengths = np.arange(400) % 5
    mask = np.arange(4)[None] < lengths[:, None]
    left = np.asarray(drop_nodes(jnp.asarray(mask), 0.9, keys(jnp.arange(400)), "regions"))
    assert not (left & ~mask).any()
    np.testing.assert_array_equal(left.any(1), lengths > 0)
    assert left.sum() < 0.5 * mask.sum()
    # Where the draw leaves none, the first valid node stays.
    none = drop_nodes(mask_of([2], 4)[:, ::-1], 65535 / 65536, keys(ROWS[:1]), "regions")
    np.testing.assert_array_equal(none, [[False, False, True, False]])
