"""Word graphs: matrix, recurrence, dense and sparse products, nearest words."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.layers.vocabulary_graph import ChebyshevLayer, chebyshev, make_graph, nearest

NODES = 12
RNG = np.random.default_rng(0)
EDGES = RNG.integers(0, NODES - 1, (20, 2))  # the last node stays alone


def adjacency(edges=EDGES, count=NODES):
    a = np.zeros((count, count))
    a[edges[:, 0], edges[:, 1]] = a[edges[:, 1], edges[:, 0]] = 1
    np.fill_diagonal(a, 0)
    return a


def test_the_matrix_is_the_laplacian_less_one():
    a = adjacency()
    assert (a.sum(1) == 0).sum() == 1
    root = np.where(a.sum(1) > 0, 1 / np.sqrt(np.maximum(a.sum(1), 1)), 0)
    laplacian = np.eye(NODES) - root[:, None] * a * root[None, :]
    scaled = 2 * laplacian / 2 - np.eye(NODES)  # the largest eigenvalue taken as 2
    found = make_graph(EDGES, NODES, dense=True)["dense"]
    np.testing.assert_allclose(found, scaled, atol=1e-7)
    assert np.abs(np.linalg.eigvalsh(found)).max() <= 1 + 1e-6


def test_repeated_edges_count_once_and_loops_are_dropped():
    more = np.concatenate([EDGES, EDGES[:5, ::-1], EDGES[3:8], [[2, 2]]])
    found = make_graph(more, NODES, dense=True)["dense"]
    np.testing.assert_array_equal(found, make_graph(EDGES, NODES, dense=True)["dense"])


def test_dense_equals_sparse():
    x = jnp.asarray(RNG.standard_normal((NODES, 5), np.float32))
    dense, sparse = (make_graph(EDGES, NODES, dense=d) for d in (True, False))
    assert (np.diff(sparse["receivers"]) >= 0).all()
    both = [chebyshev(g, x, 4) for g in (dense, sparse)]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)


def test_a_graph_without_edges_is_zero():
    x = jnp.ones((3, 2))
    for dense in (True, False):
        found = chebyshev(make_graph(np.zeros((0, 2)), 3, dense=dense), x, 3)
        np.testing.assert_array_equal(found[:, 0, 0], [1, 0, -1])


@pytest.mark.parametrize("terms", [1, 2, 4, 6])
def test_the_recurrence_is_the_cosine_of_multiples(terms):
    """On a diagonal matrix T_k is cos(k arccos x); the fourth term shows a wrong recurrence."""
    values = np.linspace(-1, 1, 9)
    found = chebyshev({"dense": jnp.asarray(np.diag(values), jnp.float32)}, jnp.ones((9, 1)), terms)
    expected = np.cos(np.arange(terms)[:, None] * np.arccos(values)[None, :])
    np.testing.assert_allclose(found[:, :, 0], expected, atol=2e-6)


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_layer_by_hand(inputs):
    graph = make_graph(EDGES, NODES, dense=True)
    x = jnp.asarray(RNG.standard_normal((NODES, 4, inputs), np.float32))
    params = {
        "kernel": jnp.asarray(RNG.standard_normal((3, inputs, 2), np.float32)),
        "bias": jnp.asarray(RNG.standard_normal((NODES, 2), np.float32)),
    }
    found = ChebyshevLayer(2, 3).apply({"params": params}, graph, x)
    matrix, kernel = np.float64(graph["dense"]), np.float64(params["kernel"])
    terms = [np.eye(NODES), matrix, 2 * matrix @ matrix - np.eye(NODES)]
    expected = sum(np.einsum("vw,wbf,fg->vbg", t, x, k) for t, k in zip(terms, kernel, strict=True))
    expected = np.maximum(expected + np.asarray(params["bias"])[:, None], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [4, 7, 64])
def test_nearest_by_hand_in_blocks_of_any_size(rows):
    vectors = RNG.standard_normal((23, 6)).astype(np.float32)
    usable = np.ones(23, bool)
    usable[[0, 5, 6]] = False
    found = np.asarray(nearest(vectors, usable, 4, rows))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = np.where(usable[None, :], unit @ unit.T, -np.inf)
    np.fill_diagonal(cosine, -np.inf)
    expected = np.argsort(-cosine, axis=1)[:, :4]
    np.testing.assert_array_equal(found[usable], expected[usable])
    assert (found[~usable] == -1).all()


def test_missing_neighbours_are_minus_one():
    found = np.asarray(nearest(np.eye(4, dtype=np.float32), np.array([1, 1, 1, 0], bool), 3))
    assert [set(row) for row in found] == [{1, 2, -1}, {0, 2, -1}, {0, 1, -1}, {-1}]


def test_zero_vectors_are_no_neighbours():
    vectors = jnp.asarray([[1.0, 0], [1, 0.1], [0, 0], [0, 0], [1, 0.2]])
    found = np.asarray(nearest(vectors, jnp.ones(5, bool), 2))
    assert set(found[[0, 1, 4]].ravel()) == {0, 1, 4}
    assert (found[2:4] == -1).all()
