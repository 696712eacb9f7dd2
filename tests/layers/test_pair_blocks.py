"""Scores of all pairs and of given pairs in blocks equal the score of everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.layers.pair_blocks import WORDS, score_all_pairs, score_given_pairs

IMAGES, REGIONS, CAPTIONS, LONGEST = 5, 4, 9, WORDS[1] + 6
NODE_CODES = ("nodes", "mask")
WIDTHS = (WORDS[0] - 3, WORDS[0], WORDS[0] + 4, LONGEST)


def codes(count, nodes, lengths, width):
    """Nodes [n, N, 3] with noise at padding, their mask, and a global vector [n, width]."""
    rng = np.random.default_rng(count)
    return {
        "nodes": jnp.asarray(rng.standard_normal((count, nodes, 3)), jnp.float32),
        "mask": jnp.arange(nodes)[None] < jnp.asarray(lengths)[:, None],
        "vector": jnp.asarray(rng.standard_normal((count, width)), jnp.float32),
    }


def sides(width):
    lengths = np.array([2, LONGEST, 3, 5, WORDS[0], WORDS[0] + 1, 1, WORDS[1], 4])
    texts = codes(CAPTIONS, LONGEST, lengths, width)
    return codes(IMAGES, REGIONS, [4, 1, 2, 4, 3], width), texts


def score(images, texts):
    """Products of mean nodes, and of global vectors."""
    means = [
        jnp.sum(jnp.where(side["mask"][:, :, None], side["nodes"], 0.0), axis=1)
        / jnp.sum(side["mask"], axis=1, dtype=jnp.float32)[:, None]
        for side in (images, texts)
    ]
    return means[0] @ means[1].T + images["vector"] @ texts["vector"].T


@pytest.mark.parametrize("width", WIDTHS)
def test_only_codes_named_as_node_codes_are_cut_to_short_captions(width):
    """Whatever the width of a global vector is: also that of a block's words, or more."""
    images, texts = sides(width)
    found = jax.jit(lambda a, b: score_all_pairs(score, a, b, NODE_CODES))(images, texts)
    np.testing.assert_allclose(found, score(images, texts), rtol=1e-5, atol=1e-5)


def test_short_captions_are_scored_with_fewer_words():
    images, texts = sides(8)
    lengths = set()

    def record(a, b):
        lengths.add((b["nodes"].shape[1], b["mask"].shape[1], b["vector"].shape[1]))
        return score(a, b)

    score_all_pairs(record, images, texts, NODE_CODES)
    assert lengths == {(size, size, 8) for size in (*WORDS, LONGEST)}


def test_given_pairs_score_as_in_the_matrix():
    images, texts = sides(8)
    i, j = np.array([0, 4, 2, 2]), np.array([8, 1, 2, 0])
    pairs = [jax.tree.map(lambda x, k=k: x[k], side) for side, k in ((images, i), (texts, j))]
    found = score_given_pairs(score, *pairs)
    np.testing.assert_allclose(found, score(images, texts)[i, j], rtol=1e-5, atol=1e-5)
