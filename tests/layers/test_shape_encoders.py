"""EdgeConv and MeshNet against their plain forms; padding and order change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import normal

from hmgr_jax.layers.batch_norm import STATS, BatchNorm, ValidRows
from hmgr_jax.layers.edges import ends, gathered, nearest
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import largest
from hmgr_jax.layers.meshnet import SIGMA, FaceKernelCorrelation, Faces, MeshNet
from hmgr_jax.layers.point_clouds import DGCNN, SLOPE, EdgeConv, PointNet
from hmgr_jax.models.base import LocalAxis

B, N, C, D, K = 3, 24, 5, 6, 4


def varied(module, *arguments):
    """Variables of a module with norms that differ by channel, some of them falling."""
    made = module.init(jax.random.key(0), *arguments, None)
    leaves, structure = jax.tree.flatten(made)
    moved = [
        x + (jnp.abs(normal(*x.shape, seed=k)) if x.ndim == 1 else 0.0 * x)
        for k, x in enumerate(leaves)
    ]
    made = jax.tree.unflatten(structure, moved)
    return made


def rows(valid=None):
    return ValidRows(jnp.ones(B, bool) if valid is None else jnp.asarray(valid), LocalAxis())


def concatenated(variables, x, rows):
    """EdgeConv as the paper has it: a vector an edge, then the map, the norm, the maximum."""
    index = nearest(x, K)
    near = gathered(x, index)
    own = jnp.broadcast_to(x[:, :, None], near.shape)
    edges = jnp.concatenate([near - own, own], axis=-1)
    y = einsum("bnkc,cd->bnkd", edges, variables["params"]["kernel"])
    norm = {name: variables[name]["edges"]["norm"] for name in ("params", STATS)}
    y, changed = BatchNorm().apply(norm, y, rows, mutable=[STATS])
    return jnp.max(jax.nn.leaky_relu(y, SLOPE), axis=2), changed[STATS]


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_the_split_edge_convolution_is_the_concatenated_one(training):
    x, weights = normal(B, N, C, seed=1), normal(B, N, D, seed=2)
    x = x.at[:, 3].set(x[:, 4])  # clouds are sampled with replacement
    module, of_batch = EdgeConv(D, K), rows([True, True, False]) if training else None
    variables = varied(module, x)
    scale = variables["params"]["edges"]["norm"]["scale"]
    variables["params"]["edges"]["norm"]["scale"] = scale.at[::2].multiply(-1.0)

    def split(params, x):
        y, changed = module.apply({**variables, "params": params}, x, of_batch, mutable=[STATS])
        return jnp.sum(weights * y), (y, changed[STATS]["edges"]["norm"])

    def plain(params, x):
        y, stats = concatenated({**variables, "params": params}, x, of_batch)
        return jnp.sum(weights * y), (y, stats)

    found, expected = (
        jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(variables["params"], x)
        for f in (split, plain)
    )

    def merged(of_all):
        """Adds the gradients of two equal points: either may have that of the maximum."""
        value, (of_params, of_points) = of_all
        both = of_points[:, 3:4] + of_points[:, 4:5]
        return value, of_params, both, of_points[:, :3], of_points[:, 5:]

    pairs = zip(jax.tree.leaves(merged(found)), jax.tree.leaves(merged(expected)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0][1][0], expected[0][1][0], rtol=0, atol=1e-5)


def test_neighbours_are_the_nearest():
    x = normal(B, N, C)
    far = np.linalg.norm(np.asarray(x)[:, :, None] - np.asarray(x)[:, None], axis=-1)
    found = np.asarray(nearest(x, K))
    np.testing.assert_array_equal(found[..., 0], np.broadcast_to(np.arange(N), (B, N)))
    np.testing.assert_array_equal(np.sort(found), np.sort(np.argsort(far)[..., :K]))


def test_the_gradient_of_equal_maxima_goes_to_one_of_them():
    x = jnp.zeros((1, 4, 2)).at[0, 2:, 0].set(1.0)
    gradient = jax.grad(lambda x: largest(x).sum())(x)
    np.testing.assert_array_equal(gradient[0], [[0, 1], [0, 0], [1, 0], [0, 0]])
    index = jnp.asarray([[[3, 2]] * 4])
    gradient = jax.grad(lambda x: ends(x, index)[0].sum())(x)
    np.testing.assert_array_equal(gradient[0], [[0, 0], [0, 0], [0, 0], [4, 4]])


def meshes(seed=0, faces=N):
    rng = np.random.default_rng(seed)
    centers, corners, normals = (
        jnp.asarray(rng.standard_normal((B, faces, size)), jnp.float32) for size in (3, 9, 3)
    )
    normals = normals / jnp.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals.at[:, 5].set(0.0)  # a face without area
    neighbours = jnp.asarray(rng.integers(0, faces, (B, faces, 3)), jnp.int32)
    return Faces(centers, corners, normals, neighbours)


def test_kernel_correlation_follows_its_definition():
    faces, module = meshes(), FaceKernelCorrelation(D)
    variables = module.init(jax.random.key(0), faces, None)
    found = module.apply(variables, faces, None) * np.sqrt(1 + 1e-5)
    polar, around = (np.asarray(variables["params"][n], np.float64) for n in ("polar", "around"))
    x, y = np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around)
    kernels = np.stack([x, y, np.cos(polar)], axis=-1)
    normals = np.asarray(faces.normals, np.float64)
    four = [normals] + [
        np.take_along_axis(normals, np.asarray(faces.neighbours)[..., k, None], axis=1)
        for k in range(3)
    ]
    far = (np.stack(four, 2)[:, :, :, None, None] - kernels) ** 2
    expected = np.exp(-far.sum(-1) / (2 * SIGMA**2)).sum(axis=(2, 4)) / 16
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_faces_does_not_matter(training):
    faces, module = meshes(), MeshNet(D, width=8)
    variables = varied(module, faces)
    order = np.random.default_rng(1).permutation(N)
    place = np.argsort(order)
    other = Faces(*(x[:, order] for x in faces[:3]), jnp.asarray(place)[faces.neighbours[:, order]])
    of_batch = rows() if training else None
    found, expected = (
        module.apply(variables, x, of_batch, mutable=[STATS]) for x in (faces, other)
    )
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dgcnn", "pointnet", "meshnet"])
def test_rows_that_are_not_valid_change_nothing(kind):
    faces = meshes()
    given = {"meshnet": faces}.get(kind, faces.centers)
    modules = {"dgcnn": DGCNN(D, 4, K), "pointnet": PointNet(D, 4), "meshnet": MeshNet(D, 8)}
    module = modules[kind]
    variables = varied(module, given)

    def run(last):
        items = jax.tree.map(lambda x: x.at[-1].set(last * x[-1]), given)
        out, changed = module.apply(variables, items, rows([True, True, False]), mutable=[STATS])
        return out[:2], changed

    clean, dirty = (run(last) for last in (1, 0))
    for ours, theirs in zip(jax.tree.leaves(dirty), jax.tree.leaves(clean), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
