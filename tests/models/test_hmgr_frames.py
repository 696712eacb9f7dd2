"""Sampling of frames and their times: known answers, clip by clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import hmgr
from layer_cases import normal

from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.frames import WAVES, even_frames, random_frames, sample_frames, time_waves
from hmgr_jax.models.hmgr import read_frames

T = 12


def keys(rows, step=0):
    return Keys.at(jnp.int32(0), jnp.int32(step), jnp.asarray(rows))


def numbered(rows):
    """Frame t of clip b holds 100 b + t."""
    x = 100 * np.arange(rows)[:, None, None] + np.arange(T)[None, :, None]
    return jnp.asarray(x, jnp.float32)


def test_even_frames_by_hand():
    found = even_frames(jnp.asarray([9, 10, 7, 5]), 5)
    # Of 10: 0, 2.25, 4.5, 6.75, 9, and the half goes to the even one; of 7: 0, 1.5, 3, 4.5, 6.
    expected = [[0, 2, 4, 6, 8], [0, 2, 4, 7, 9], [0, 2, 3, 4, 6], [0, 1, 2, 3, 4]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(even_frames(jnp.asarray([7]), 1), [[0]])


@pytest.mark.parametrize("count", [2, 8, 20, 64])
def test_even_frames_equal_rounded_linspace(count):
    lengths = np.arange(1, 400)
    found = np.asarray(even_frames(jnp.asarray(lengths), count))
    expected = np.round([np.linspace(0, n - 1, count) for n in lengths]).astype(int)
    # numpy's float64 may miss an exact half, and then takes the other neighbour.
    exact = np.arange(count) * (lengths[:, None] - 1) / (count - 1)
    halves = np.abs(exact % 1 - 0.5) < 1e-9
    assert (found == expected)[~halves].all()
    assert (np.abs(found - exact) <= 0.5 + 1e-9).all()
    assert (found[halves] % 2 == 0).all()


def test_random_frames_take_one_from_every_segment():
    lengths = jnp.asarray([12, 5, 7] * 40)
    found = np.asarray(random_frames(lengths, 5, keys(np.arange(120))))
    edges = np.arange(6)[None, :] * np.asarray(lengths)[:, None] // 5
    assert (found >= edges[:, :-1]).all()
    assert (found < edges[:, 1:]).all()
    assert len({tuple(row) for row in found[::3]}) > 20
    assert (found[1::3] == np.arange(5)).all()  # a stretch is one frame
    # The last stretch of 12 is 9, 10, 11: all of them occur.
    assert set(found[::3, -1]) == {9, 10, 11}
    other = random_frames(lengths, 5, keys(np.arange(120), step=1))
    assert (np.asarray(other) != found).any()


@pytest.mark.parametrize("sampling", ["uniform", "random"])
def test_long_clips_are_sampled_and_short_clips_kept(sampling):
    lengths = jnp.asarray([12, 5, 3])
    x, mask, time = sample_frames(numbered(3), lengths, 5, sampling, keys([0, 1, 2]))
    assert x.shape == (3, 5, 1)
    np.testing.assert_array_equal(mask, [[1] * 5, [1] * 5, [1, 1, 1, 0, 0]])
    place = np.asarray(x)[:, :, 0] - 100 * np.arange(3)[:, None]
    np.testing.assert_array_equal(place[1], np.arange(5))
    np.testing.assert_array_equal(place[2, :3], np.arange(3))
    assert (np.diff(place[0]) > 0).all()
    last = np.asarray([11, 4, 2])[:, None]
    np.testing.assert_allclose(np.where(mask, time, 0), np.where(mask, place / last, 0), atol=1e-6)


def test_evaluation_samples_frames_evenly():
    lengths = jnp.asarray([12, 9])
    one, two = (sample_frames(numbered(2), lengths, 5, s, None)[0] for s in ("random", "uniform"))
    np.testing.assert_array_equal(one, two)


def test_a_count_of_zero_keeps_all_frames():
    x, mask, time = sample_frames(numbered(2), jnp.asarray([12, 1]), 0, "random", keys([0, 1]))
    np.testing.assert_array_equal(x, numbered(2))
    np.testing.assert_array_equal(mask.sum(axis=1), [12, 1])
    np.testing.assert_allclose(time[0], np.arange(12) / 11, atol=1e-6)
    assert np.isfinite(time).all()


def test_random_frames_do_not_depend_on_the_number_of_devices():
    lengths, rows = jnp.full((16,), 12), jnp.arange(16)

    def chosen(lengths, rows):
        return random_frames(lengths, 5, Keys.at(jnp.int32(3), jnp.int32(7), rows))

    whole = jax.jit(chosen)(lengths, rows)
    spec = jax.sharding.PartitionSpec("data")
    parts = jax.shard_map(
        chosen, mesh=make_mesh(8), in_specs=(spec, spec), out_specs=spec, check_vma=False
    )
    np.testing.assert_array_equal(jax.jit(parts)(lengths, rows), whole)
    np.testing.assert_array_equal(chosen(lengths[3:5], rows[3:5]), whole[3:5])


def test_time_waves_by_hand():
    found = np.asarray(time_waves(jnp.asarray([[0.0, 0.5, 1.0]])))
    assert found.shape == (1, 3, 2 * WAVES)
    np.testing.assert_allclose(found[0, 0], [0] * WAVES + [1] * WAVES, atol=1e-6)
    np.testing.assert_allclose(found[0, 1], [1, 0, -1, 0, 0, -1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, 2], [0] * WAVES + [-1, 1, -1, 1], atol=1e-6)


def test_reading_scales_features_and_adds_times():
    items = {"frames": normal(2, T, 3).astype(jnp.float16), "n_frames": jnp.asarray([12, 4])}

    def read(drawn=None, **options):
        return read_frames(hmgr(visual="video", **options), items, drawn)

    x, mask, time = read(region_scale="l2", frames=5, frame_positions=True)
    assert x.shape == (2, 5, 3 + 2 * WAVES)
    np.testing.assert_allclose(np.linalg.norm(x[:, :, :3], axis=-1)[np.asarray(mask)], 1, atol=1e-3)
    np.testing.assert_allclose(x[1, :4, 3:], time_waves(jnp.arange(4.0)[None] / 3)[0], atol=1e-5)
    np.testing.assert_allclose(time[1, :4], np.arange(4) / 3, atol=1e-6)
    plain, _, _ = read(region_scale="l2", frames=5)
    np.testing.assert_array_equal(plain, x[:, :, :3])
    _, dropped, _ = read(keys([0, 1]), region_dropout=0.9)
    assert dropped.sum() < 16
    assert np.asarray(dropped).any(axis=1).all()
