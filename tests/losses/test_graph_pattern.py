"""The graph pattern loss against plain loops and CDPAE's formula, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmgr_jax.losses import graph_pattern as pattern
from hmgr_jax.models.base import LocalAxis

ROWS, NODES, SIZE = 5, 3, 4
FAMILIES = pattern.EDGES


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def sides():
    rng = np.random.default_rng(0)
    return [
        pattern.Side(
            jnp.float32(unit(rng.normal(size=(ROWS, NODES, SIZE)))),
            jnp.float32(rng.normal(size=(ROWS, width))),
        )
        for width in (6, 2)
    ]


def found_of(sides, weights=None, valid=None, edges=FAMILIES, **options):
    valid = jnp.ones(ROWS, bool) if valid is None else jnp.asarray(valid)
    index = jnp.arange(ROWS)
    if weights is None:
        weights = pattern.all_others(index, index, valid, valid)
    return pattern.graph_pattern(*sides, weights, valid, LocalAxis(), edges=edges, **options)


def distance(x, y):
    return 1.0 - float(np.dot(x, y))


def target(sides, i, j):
    apart = [distance(*unit(np.asarray(side.inputs, np.float64)[[i, j]])) for side in sides]
    return np.sqrt(max(apart[0] * apart[1], 0.0) + 1e-5)


def plain(sides, partners, rows=range(ROWS)):
    """Means over edges, one by one; ``partners`` are ordered pairs of rows."""
    v, t = (np.asarray(side.nodes, np.float64) for side in sides)
    every = range(v.shape[1])
    upper = [(k, m) for k in every for m in every if k < m]
    off = {
        "pair": [distance(v[i, k], t[i, m]) for i in rows for k in every for m in every],
        "het": [
            abs(distance(v[i, k], t[j, m]) - target(sides, i, j))
            for i, j in partners
            for k in every
            for m in every
        ],
        "homo": [
            abs(distance(x[i, k], x[j, m]) - target(sides, i, j))
            for x in (v, t)
            for i, j in partners
            for k in every
            for m in every
        ],
        "self": [
            max(distance(x[i, k], x[i, m]) - 0.5, 0.0)
            for x in (v, t)
            for i in rows
            for k, m in upper
        ],
    }
    return {name: float(np.mean(values)) for name, values in off.items() if values}


def test_every_family_against_loops(sides):
    others = [(i, j) for i in range(ROWS) for j in range(ROWS) if i != j]
    found = found_of(sides)
    for name, value in plain(sides, others).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name
    assert list(found_of(sides, edges=("het",))) == ["het"]


def test_invalid_rows_do_not_count(sides):
    valid = np.array([True, False, True, True, False])
    rows = np.flatnonzero(valid)
    garbage = [pattern.Side(jnp.where(valid[:, None, None], s.nodes, 1e3), s.inputs) for s in sides]
    found = found_of(garbage, valid=valid)
    wanted = plain(sides, [(i, j) for i in rows for j in rows if i != j], rows)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name


def test_one_view_and_one_partner_are_the_loss_of_cdpae(sides):
    """D(v_i,t_i) + D(v_j,t_j) + λ(het of both ways) + λ(homo of both), mean over i."""
    lone = [pattern.Side(side.nodes[:, :1], side.inputs) for side in sides]
    draws = jnp.float32([0.3, 0.9, 0.1, 0.5, 0.7])
    cycle = [2, 0, 3, 4, 1]
    partner = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    weights = pattern.one_partner(draws, jnp.ones(ROWS, bool), jnp.arange(ROWS))
    found = found_of(lone, weights, edges=("pair", "het", "homo"))
    ours = 2 * found["pair"] + 2 * 0.3 * (found["het"] + found["homo"])
    v, t = (np.asarray(side.nodes[:, 0], np.float64) for side in lone)
    losses = []
    for i, j in partner.items():
        tau = target(lone, i, j)
        off = [
            distance(x, y) - tau
            for x, y in ((v[i], t[j]), (v[j], t[i]), (v[i], v[j]), (t[i], t[j]))
        ]
        losses.append(distance(v[i], t[i]) + distance(v[j], t[j]) + 0.3 * np.abs(off).sum())
    assert float(ours) == pytest.approx(np.mean(losses), rel=1e-5)


def test_partners_are_other_valid_rows():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        valid = rng.random(8) < 0.6
        draws = jnp.float32(rng.random(8))
        weights = np.asarray(pattern.one_partner(draws, jnp.asarray(valid), jnp.arange(8)))
        count = valid.sum()
        assert (np.diag(weights) == 0).all()
        assert (weights == weights.T).all()
        assert (weights[~valid] == 0).all()
        np.testing.assert_array_equal(weights[valid].sum(axis=1), 2.0 if count > 1 else 0.0)


def test_the_order_of_views_does_not_matter(sides):
    order = np.array([2, 0, 1])
    turned = [pattern.Side(side.nodes[:, order], side.inputs) for side in sides]
    for name, value in found_of(sides).items():
        assert float(found_of(turned)[name]) == pytest.approx(float(value), rel=1e-6)


def test_no_gradient_reaches_the_targets(sides):
    def loss(inputs):
        given = [pattern.Side(s.nodes, x) for s, x in zip(sides, inputs, strict=True)]
        return sum(found_of(given).values())

    for gradient in jax.grad(loss)([side.inputs for side in sides]):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_the_gradient_is_finite_for_equal_items(sides):
    same = [pattern.Side(jnp.ones_like(s.nodes) / 2, jnp.ones_like(s.inputs)) for s in sides]

    def loss(nodes):
        given = [pattern.Side(x, s.inputs) for x, s in zip(nodes, same, strict=True)]
        return sum(found_of(given).values())

    for gradient in jax.grad(loss)([side.nodes for side in same]):
        assert np.isfinite(gradient).all()
