"""All pairs in tiles: the same scores for any tile, any number of devices and any bucketing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.all_pairs import Bucket, score_matrix


def dot(a, b):
    return a @ b.T


def unit(n, *shape, seed=0):
    """Codes [n, *shape] of unit norm over the last axis."""
    codes = np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)
    return codes / np.linalg.norm(codes, axis=-1, keepdims=True)


def best_word(regions, words):
    """Mean over the true words of the best region: depends on the pair and on the padding mask."""
    s = jnp.einsum("ard,bld->abrl", regions["r"], words["w"]).max(2)
    real = (jnp.arange(words["w"].shape[1])[None] < words["n"][:, None])[None]
    return jnp.where(real, s, 0).sum(-1) / words["n"][None].astype(jnp.float32)


@pytest.fixture(scope="module")
def fragments():
    """Region codes of 17 images, word codes of 23 captions of 1..6 words, and their scores."""
    rng = np.random.default_rng(3)
    images = {"r": unit(17, 4, 8)}
    captions = {"w": unit(23, 6, 8, seed=1), "n": rng.integers(1, 7, 23).astype(np.int32)}
    scores = np.empty((17, 23))
    for i in range(17):
        for j, n in enumerate(captions["n"]):
            scores[i, j] = (images["r"][i] @ captions["w"][j, :n].T).max(0).mean()
    return images, captions, scores


@pytest.mark.parametrize("tile", [1, 7, 64, 1000])
def test_any_tile_size_gives_the_same_scores(tile):
    a, b = unit(65, 16), unit(130, 16, seed=1)
    found = score_matrix(dot, a, b, tile=(tile, tile))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, a @ b.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_a", [1, 3, 17, 64])
@pytest.mark.parametrize("n_b", [1, 3, 17, 64])
def test_uneven_sizes(n_a, n_b):
    a, b = unit(n_a, 16), unit(n_b, 16, seed=1)
    found = score_matrix(dot, a, b, tile=(5, 2))
    np.testing.assert_allclose(found, a @ b.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_devices", [1, 3, 8])
def test_devices_share_the_work(n_devices):
    a, b = unit(33, 16), unit(70, 16, seed=1)
    devices = jax.local_devices()[-n_devices:]
    used, shapes = set(), set()

    def traced(x, y):
        shapes.add((len(x), len(y)))
        jax.debug.callback(lambda device: used.add(int(device)), jax.lax.axis_index("columns"))
        return dot(x, y)

    found = score_matrix(traced, a, b, tile=(16, 8), devices=devices)
    jax.effects_barrier()
    np.testing.assert_allclose(found, a @ b.T, rtol=0, atol=1e-6)
    assert used == set(range(n_devices))
    (shape,) = shapes  # one program, whatever the number of tiles and devices
    assert shape[0] == 11  # 33 rows in three equal tiles of at most 16
    assert shape[1] <= 8


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_pytree_codes(fragments, tile):
    images, captions, expected = fragments
    found = score_matrix(best_word, images, captions, tile=(tile, tile))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_buckets_of_other_shapes_fill_the_same_matrix(fragments):
    images, captions, expected = fragments
    short = np.flatnonzero(captions["n"] <= 3)
    long = np.flatnonzero(captions["n"] > 3)[::-1]
    buckets = [
        Bucket(short, {"w": captions["w"][short][:, :3], "n": captions["n"][short]}),
        Bucket(long, {"w": captions["w"][long], "n": captions["n"][long]}),
    ]
    scattered = [Bucket(np.arange(17)[::-1], {"r": images["r"][::-1]})]
    for rows in (images, scattered):
        found = score_matrix(best_word, rows, buckets, tile=(4, 2))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_new_weights_need_no_new_program():
    traces = []

    def bilinear(weights, a, b):
        traces.append(1)
        return a @ weights @ b.T

    a, b = unit(9, 4), unit(20, 4, seed=1)
    for scale in (1.0, 2.0):
        weights = scale * np.eye(4, dtype=np.float32)
        found = score_matrix(Partial(bilinear, weights), a, b, tile=(4, 1))
        np.testing.assert_allclose(found, scale * a @ b.T, rtol=0, atol=2e-6)
    assert len(traces) == 1


def test_progress_counts_every_tile_and_may_stop_the_work():
    a, b = unit(10, 4), unit(10, 4, seed=1)
    seen = []
    score_matrix(
        dot, a, b, tile=(5, 4), devices=jax.devices()[:1], progress=lambda *x: seen.append(x)
    )
    assert seen == [(i, 6) for i in range(1, 7)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_matrix(dot, a, b, tile=(5, 4), progress=stop)


def test_low_precision_scores_become_float32():
    a, b = unit(6, 8), unit(7, 8, seed=1)
    found = score_matrix(lambda x, y: dot(x, y).astype(jnp.bfloat16), a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, a @ b.T, atol=1e-2)


def test_codes_that_do_not_fit_are_refused():
    a = unit(4, 8)
    with pytest.raises(UserError, match="same number of items"):
        score_matrix(best_word, {"r": a}, {"w": a, "n": np.ones(3, np.int32)})
    with pytest.raises(UserError, match="every item once"):
        score_matrix(dot, a, [Bucket(np.array([0, 1, 1, 3]), a)])
    with pytest.raises(UserError, match="found 3 items"):
        score_matrix(dot, a, [Bucket(np.arange(3), a)])
    with pytest.raises(ValueError, match=r"must return \(4, 1\)"):
        score_matrix(lambda x, y: dot(x, y)[:, 0], a, a)
