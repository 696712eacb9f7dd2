"""Towers of CLIP and SigLIP: which words and patches count, precision, checkpointing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import normal, random_params, softmax

from hmgr_jax.layers.clip_text import TextSizes, TextTower
from hmgr_jax.layers.transformer import Encoder, Sizes, attend
from hmgr_jax.layers.vit import PictureSizes, ViT

SIZES = Sizes(8, layers=2, heads=2, intermediate=12)
CLIP = TextSizes(SIZES, 20, positions=6, projection=5, end=11)
SIGLIP = dataclasses.replace(CLIP, projection=8, causal=False, end=None)
IDS = jnp.asarray([[1, 7, 8, 11, 0, 0], [1, 19, 11, 9, 11, 0]])


@pytest.fixture(scope="module")
def params():
    return random_params(TextTower(CLIP), IDS)


def vectors(sizes, params, ids):
    return np.asarray(jax.jit(TextTower(sizes).apply)({"params": params}, ids)[1])


def test_attention_is_that_of_the_paper():
    q, k, v = (normal(1, n, 8, seed=n) for n in (3, 4, 5))
    v = v[:, :4]
    mask = jnp.asarray([[True, False, True, True]])[:, None, None]
    found = attend(q, k, v, heads=2, mask=mask)[0]
    for part in np.split(np.arange(8), 2):
        logits = np.asarray(q)[0][:, part] @ np.asarray(k)[0][:, part].T / 2
        weights = softmax(np.where(np.asarray(mask)[0, 0], logits, -np.inf))
        seen = weights @ np.asarray(v)[0][:, part]
        np.testing.assert_allclose(found[:, part], seen, rtol=0, atol=1e-5)


def test_a_text_ends_at_the_first_end_mark(params):
    """What follows does not count, whatever it is; what comes before does."""
    plain = vectors(CLIP, params, IDS)
    after = IDS.at[0, 4:].set(17).at[1, 3:].set(3)
    np.testing.assert_allclose(vectors(CLIP, params, after), plain, rtol=0, atol=1e-6)
    before = vectors(CLIP, params, IDS.at[:, 1].set(6))
    assert (np.abs(before - plain).max(axis=1) > 1e-3).all()


def test_a_text_ends_at_its_largest_id_in_old_files(params):
    old = dataclasses.replace(CLIP, end=None)
    found = vectors(old, params, IDS)
    np.testing.assert_array_equal(found[0], vectors(CLIP, params, IDS)[0])
    cut = IDS.at[1, 2:].set(4)  # 19 is the end of the second text
    np.testing.assert_allclose(vectors(old, params, cut)[1], found[1], rtol=0, atol=1e-6)


def test_the_padding_of_siglip_counts():
    own = random_params(TextTower(SIGLIP), IDS)
    plain = vectors(SIGLIP, own, IDS)
    for place in (0, 4, 5):
        moved = vectors(SIGLIP, own, IDS.at[:, place].set(13))
        assert (np.abs(moved - plain).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("projection", [5, None])
def test_every_patch_counts_and_edges_are_cut(projection):
    tower = ViT(PictureSizes(SIZES, image=9, patch=4, projection=projection))
    x = normal(2, 9, 9, 3)
    own = random_params(tower, x)
    see = jax.jit(tower.apply)
    seen = see({"params": own}, x)
    assert seen.hidden.shape == (2, 4 + (projection is not None), 8)
    assert seen.patches.shape == (2, 4, 8)
    assert seen.vector.shape == (2, projection or 8)
    for row, column in ((0, 0), (0, 7), (5, 1), (7, 7)):
        moved = see({"params": own}, x.at[0, row, column].add(3.0))
        change = np.abs(moved.patches - seen.patches)[0].max(axis=1)
        assert change.argmax() == 2 * (row // 4) + column // 4
        assert np.abs(moved.vector - seen.vector)[0].max() > 1e-4
        np.testing.assert_array_equal(moved.vector[1], seen.vector[1])
    edge = see({"params": own}, x.at[:, 8].set(9.0).at[:, :, 8].set(9.0))
    np.testing.assert_array_equal(edge.vector, seen.vector)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_checkpointing_changes_no_gradient(checkpoint):
    x, encoder = normal(2, 3, 8), Encoder(SIZES)
    own = random_params(encoder, x)

    def gradient(module):
        loss = jax.jit(jax.grad(lambda p: jnp.sum(module.apply({"params": p}, x) ** 2)))
        return jax.tree.leaves(loss(own))

    other = Encoder(SIZES, checkpoint=checkpoint)
    for a, b in zip(gradient(encoder), gradient(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jaxpr = str(jax.make_jaxpr(lambda p: other.apply({"params": p}, x))(own))
    assert ("remat" in jaxpr or "checkpoint" in jaxpr) == checkpoint


def test_bfloat16_is_near(params):
    exact = vectors(CLIP, params, IDS)
    near = jax.jit(TextTower(CLIP, jnp.bfloat16).apply)({"params": params}, IDS)[1]
    assert near.dtype == jnp.float32
    assert 1e-5 < np.abs(near - exact).max() / np.abs(exact).max() < 0.05


def test_sizes_that_do_not_fit_raise(params):
    with pytest.raises(ValueError, match="a text of 7 tokens for 6 positions"):
        vectors(CLIP, params, jnp.zeros((1, 7), jnp.int32))
    tower = ViT(PictureSizes(SIZES, image=8, patch=4))
    with pytest.raises(ValueError, match="for a tower of 8 pixels"):
        jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3))))
