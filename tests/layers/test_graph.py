"""Graph reasoning against loops over nodes, and the geometry of boxes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import as64, linear, mask_of, normal, random_params, softmax

from hmgr_jax.layers.graph import (
    BoxAffinity,
    GraphReasoning,
    TimeAffinity,
    box_geometry,
    full_support,
    window_support,
)

N, D = 5, 4
LENGTHS = (5, 3, 1)
MASK = mask_of(LENGTHS, N)
X = normal(3, N, D)


def layer_norm(params, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def reasoned(params, x, support, extra=None, gated=False, differences=False):
    """One layer, node by node, in float64."""
    p, x = as64((params, x))
    out = x.copy()
    for b in range(len(x)):
        theta, phi, sent = (linear(p[name], x[b]) for name in ("theta", "phi", "message"))
        for i in range(N):
            neighbours = [j for j in range(N) if support[b, i, j]]
            if not neighbours:
                continue  # a padded node: whatever it becomes, nobody looks at it
            a = np.array([theta[i] @ phi[j] for j in neighbours]) / np.sqrt(D)
            if extra is not None:
                a = a + np.asarray(extra)[b, i, neighbours]
            own = sent[i] if differences else 0
            y = sum(w * (sent[j] - own) for w, j in zip(softmax(a), neighbours, strict=True))
            if gated:
                y = y * np.tanh(linear(p["gate"], x[b, i]))
            out[b, i] += layer_norm(p["norm"], linear(p["out"], y))
    return out


def valid(x):
    """The rows of valid nodes."""
    return np.asarray(x)[np.asarray(MASK)]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("window", [0, 1])
def test_a_layer_equals_its_equations(window, gated):
    support = window_support(MASK, window) if window else full_support(MASK)
    module = GraphReasoning(D, gated=gated)
    params = random_params(module, X, support)
    found = module.apply({"params": params}, X, support)
    expected = reasoned(params, X, np.asarray(support), gated=gated)
    np.testing.assert_allclose(valid(found), valid(expected), rtol=0, atol=1e-5)


def test_a_new_layer_is_the_identity():
    module = GraphReasoning(D, boxes=True)
    boxes = jnp.tile(jnp.asarray([0.1, 0.2, 0.5, 0.9]), (3, N, 1))
    given = (X, full_support(MASK), boxes)
    params = jax.jit(module.init)(jax.random.key(0), *given)
    np.testing.assert_array_equal(module.apply(params, *given), X)
    gain = jax.jit(GraphReasoning(D, gain=0.1).init)(jax.random.key(0), *given[:2])
    np.testing.assert_allclose(gain["params"]["norm"]["scale"], 0.1)


def test_padding_changes_no_node():
    module = GraphReasoning(D)
    params = random_params(module, X, full_support(MASK))

    def run(x, mask):
        return np.asarray(module.apply({"params": params}, x, full_support(mask)))

    found = run(X, MASK)
    garbage = run(jnp.where(MASK[:, :, None], X, 1e4), MASK)
    np.testing.assert_array_equal(valid(garbage), valid(found))
    # The three nodes of the second item alone.
    alone = run(X[1:2, :3], jnp.ones((1, 3), bool))
    np.testing.assert_allclose(alone[0], found[1, :3], rtol=0, atol=1e-6)


def test_supports_by_hand():
    near = np.asarray(window_support(MASK, 1))
    np.testing.assert_array_equal(near[0], np.abs(np.subtract.outer(range(N), range(N))) <= 1)
    np.testing.assert_array_equal(near[1, :3, :3], [[1, 1, 0], [1, 1, 1], [0, 1, 1]])
    assert not near[1, 3:].any()
    assert not near[1, :, 3:].any()
    full = np.asarray(full_support(MASK))
    assert full[1, :3, :3].all()
    assert full.sum() == 25 + 9 + 1


def test_geometry_of_two_boxes_by_hand():
    boxes = jnp.asarray([[[0.0, 0.0, 0.4, 0.2], [0.2, 0.1, 0.4, 0.5]]])
    found = np.asarray(box_geometry(boxes))[0]
    # Centres (0.2, 0.1) and (0.3, 0.3); sizes 0.4 x 0.2 and 0.2 x 0.4; they share 0.2 x 0.1.
    distance = np.hypot(0.1, 0.2)
    there = [distance / 2**0.5, 0.1 / distance, 0.2 / distance, -np.log(2), np.log(2)]
    iou = 0.02 / (0.08 + 0.08 - 0.02)
    np.testing.assert_allclose(found[0, 1], [*there, iou], rtol=0, atol=1e-6)
    back = [there[0], *np.negative(there[1:])]
    np.testing.assert_allclose(found[1, 0], [*back, iou], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0, 0], [0, 0, 0, 0, 0, 1], rtol=0, atol=1e-5)


def test_disjoint_boxes_have_no_overlap():
    boxes = jnp.asarray([[[0.0, 0.0, 0.2, 0.2], [0.6, 0.6, 0.9, 0.9]]])
    assert not np.asarray(box_geometry(boxes))[0, [0, 1], [1, 0], 5].any()


def test_geometry_of_empty_boxes_is_finite_and_clamped():
    boxes = jnp.asarray([[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])
    found = np.asarray(box_geometry(boxes))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0, 0, 1, 3:5], [4.0, 4.0])


def test_box_affinity_starts_at_zero():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.5, (3, N, 2))
    boxes = jnp.asarray(np.concatenate([corner, corner + 0.3], -1), jnp.float32)
    affinity = BoxAffinity()
    params = jax.jit(affinity.init)(jax.random.key(0), boxes)
    assert not np.asarray(affinity.apply(params, boxes)).any()

    module, support = GraphReasoning(D, boxes=True), full_support(MASK)
    params = random_params(module, X, support, boxes)
    found = module.apply({"params": params}, X, support, boxes)
    extra = affinity.apply({"params": params["box_affinity"]}, boxes)
    assert np.abs(extra).max() > 0.1
    expected = reasoned(params, X, np.asarray(support), extra)
    np.testing.assert_allclose(valid(found), valid(expected), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="needs boxes"):
        module.apply({"params": params}, X, support)


def test_time_affinity_is_signed_and_messages_are_differences():
    """At the start later frames weigh more."""
    time = jnp.asarray([[0.0, 0.25, 0.5, 0.75, 1.0]] * 3)
    affinity = TimeAffinity()
    params = jax.jit(affinity.init)(jax.random.key(0), time)
    ahead = np.arange(5)[None, :] - np.arange(5)[:, None]
    np.testing.assert_allclose(affinity.apply(params, time)[0], ahead, atol=1e-6)

    module, support = GraphReasoning(D), full_support(MASK)
    params = random_params(module, X, support, None, time)
    found = module.apply({"params": params}, X, support, None, time)
    extra = affinity.apply({"params": params["time_affinity"]}, time)
    assert np.abs(extra + jnp.swapaxes(extra, 1, 2)).max() > 0.1  # what was learnt need not be odd
    expected = reasoned(params, X, np.asarray(support), extra, differences=True)
    np.testing.assert_allclose(valid(found), valid(expected), rtol=0, atol=1e-5)
