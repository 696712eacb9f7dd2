"""Semantic graph layers of ReSG: neighbours, padding and the kinds of edges between words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import random_params

from hmgr_jax.data.text.text_graph import RELATIONS as NAMES
from hmgr_jax.layers.graph import full_support
from hmgr_jax.models.resg import (
    KINDS,
    RELATIONS,
    SemanticGraph,
    dependency_kinds,
    dependency_support,
    distance_kinds,
)

B, N, D = 2, 6, 8
MASK = jnp.arange(N)[None, :] < jnp.array([[6], [4]])


def drawn(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def run(x=None, mask=MASK, kinds=None, **options):
    layer = SemanticGraph(D, 4, **options)
    numbers = drawn((B, N, N, 6), 1) if kinds is None else None
    given = {"numbers": numbers, "kinds": kinds}
    x = drawn((B, N, D)) if x is None else x
    params = random_params(layer, x, full_support(mask), **given)
    return layer.apply({"params": params}, x, full_support(mask), **given)


def test_all_neighbours_equal_the_dense_graph():
    dense, few = run(), run(neighbours=N)
    for a, b in zip(dense, few, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("neighbours", [4, 5])
def test_neighbours_up_to_the_number_of_nodes_equal_the_dense_graph(neighbours):
    """The second item has four nodes; with five neighbours padding would be chosen too."""
    dense, few = run(), run(neighbours=neighbours)
    for a, b in zip(dense, few, strict=True):
        np.testing.assert_array_equal(a[1, :4], b[1, :4])
    assert not np.allclose(dense[0][0], few[0][0])


def test_neighbours_are_the_strongest():
    _, dense = run()
    _, weights = run(neighbours=2)
    kept = np.asarray(weights) > 0
    assert (kept.sum(axis=-1)[np.asarray(MASK)] == 2).all()
    for i in range(N):
        assert set(np.flatnonzero(kept[0, i])) == set(np.argsort(-dense[0, i])[:2].tolist())


@pytest.mark.parametrize("options", [{}, {"neighbours": 2}])
def test_padding_reaches_no_node(options):
    clean, weights = run(**options)
    dirty, others = run(jnp.where(MASK[:, :, None], drawn((B, N, D)), 70.0), **options)
    np.testing.assert_array_equal(weights, others)
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(clean[1, :4], dirty[1, :4])


def test_a_new_layer_is_the_identity():
    x = drawn((B, N, D))
    layer = SemanticGraph(D, 4)
    given = {"numbers": drawn((B, N, N, 6), 1)}
    params = layer.init(jax.random.key(0), x, full_support(MASK), **given)
    np.testing.assert_array_equal(layer.apply(params, x, full_support(MASK), **given)[0], x)


def test_graph_without_numbers_or_kinds_raises():
    with pytest.raises(ValueError, match="needs numbers or kinds"):
        SemanticGraph(D, 4).init(jax.random.key(0), drawn((B, N, D)), full_support(MASK))


def test_kinds_distinguish_edges():
    same, _ = run(kinds=jnp.zeros((B, N, N), jnp.int32))
    other, _ = run(kinds=jnp.zeros((B, N, N), jnp.int32).at[0, 0, 1].set(5))
    assert not np.allclose(same[0, 0], other[0, 0])
    np.testing.assert_array_equal(same[0, 1:], other[0, 1:])


# --- edges of words -----------------------------------------------------------------------------

HEADS = jnp.asarray([[0, 2, 0, 2, 4, 5]])  # 1 <- 2 -> 3, 2 -> 0; 4 and 5 alone
WORDS = jnp.asarray([[True] * 5 + [False]])


def test_dependency_edges_go_both_ways():
    support = np.asarray(dependency_support(HEADS, WORDS))[0]
    pairs = {(int(i), int(j)) for i, j in np.argwhere(support)}
    loops = {(i, i) for i in range(5)}
    assert pairs == loops | {(1, 2), (2, 1), (3, 2), (2, 3), (2, 0), (0, 2)}


def test_kinds_follow_relation_and_direction():
    relations = jnp.asarray([[0, 5, 1, 24, 0, 99]])
    kinds = np.asarray(dependency_kinds(HEADS, relations))[0]
    assert kinds[1, 2] == 2 + 2 * 5
    assert kinds[2, 1] == 3 + 2 * 5
    assert kinds[2, 0] == 2 + 2 * 1
    assert kinds[3, 2] == 2 + 2 * 24
    assert kinds[1, 3] == 1
    assert (np.diag(kinds) == 0).all()
    assert kinds.max() < KINDS


def test_distance_kinds_are_clipped():
    kinds = np.asarray(distance_kinds(12))
    assert kinds[3, 5] == 10
    assert kinds[5, 3] == 6
    assert (kinds.min(), kinds.max()) == (0, 16)
    assert kinds[0, 11] == 16


def test_every_relation_has_a_kind():
    assert len(NAMES) <= RELATIONS
    assert len(set(NAMES)) == len(NAMES)
