"""Twelve kinds of solids with random proportions.

Every function gives an upright watertight mesh of a size of about 2 and at most `MOST_FACES` faces.
Proportions of kinds overlap (a slim bowl, a wide goblet), so that no single measure separates them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hmgr_jax.data.generated.solids.primitives import (
    arc,
    ball,
    box,
    cylinder,
    lathe,
    lay_down,
    plate,
    regular,
)
from hmgr_jax.data.shapes3d.mesh import Mesh, join, translate

MOST_FACES = 320
Rng = np.random.Generator


def _segments(rng: Rng) -> int:
    return int(rng.integers(12, 17))


def bottle(rng: Rng) -> Mesh:
    """A body, a shoulder and a neck, closed by a lid."""
    body, neck = rng.uniform(0.35, 0.6), rng.uniform(0.1, 0.2)
    high, shoulder = rng.uniform(0.7, 1.2), rng.uniform(0.15, 0.4)
    long = rng.uniform(0.25, 0.6)
    top = high + shoulder + long
    profile = [(0, 0), (body * 0.9, 0), (body, 0.08), (body, high), (neck, high + shoulder)]
    profile += [(neck, top), (neck * 1.4, top), (neck * 1.4, top + 0.12), (0, top + 0.12)]
    return lathe(profile, _segments(rng))


def bowl(rng: Rng) -> Mesh:
    """A part of a hollow ball on a foot, open above."""
    radius, thick = rng.uniform(0.7, 1.0), rng.uniform(0.06, 0.12)
    depth, foot = rng.uniform(0.45, 0.9), rng.uniform(0.25, 0.45)
    turn = np.linspace(0.35, np.pi / 2, 4)
    outer = [(radius * np.sin(t), depth * (1 - np.cos(t))) for t in turn]
    inner = [((radius - thick) * np.sin(t), thick + depth * (1 - np.cos(t))) for t in turn[::-1]]
    profile = [(0, -0.06), (foot, -0.06), *outer, *inner, (0, thick)]
    return lathe(profile, _segments(rng))


def vase(rng: Rng) -> Mesh:
    """A belly, a waist and a lip, open above."""
    foot, belly = rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.8)
    waist, lip = rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.6)
    at, high = rng.uniform(0.4, 0.8), rng.uniform(1.5, 2.0)
    upper = at + (high - at) * rng.uniform(0.5, 0.7)
    thick = rng.uniform(0.05, 0.09)
    profile = [(0, 0), (foot, 0), (belly, at), (waist, upper), (lip, high)]
    profile += [(lip - thick, high), (waist - thick, upper), (belly - thick, at), (0, thick)]
    return lathe(profile, _segments(rng))


def goblet(rng: Rng) -> Mesh:
    """A cup on a thin stem on a disc."""
    base, stem = rng.uniform(0.35, 0.6), rng.uniform(0.05, 0.12)
    cup, long = rng.uniform(0.4, 0.75), rng.uniform(0.45, 0.9)
    deep, thick = rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.08)
    bottom = 0.08 + long
    profile = [(0, 0), (base, 0), (base, 0.06), (stem, 0.12), (stem, bottom)]
    profile += [(cup * 0.8, bottom + 0.3 * deep), (cup, bottom + deep)]
    profile += [(cup - thick, bottom + deep)]
    profile += [(cup * 0.8 - thick, bottom + 0.3 * deep + thick / 2), (0, bottom + thick)]
    return lathe(profile, _segments(rng))


def ring(rng: Rng) -> Mesh:
    """A bent tube, lying or standing."""
    wide, thick = rng.uniform(0.65, 0.9), rng.uniform(0.12, 0.35)
    flat = rng.uniform(0.6, 1.3)
    turn = 2 * np.pi * np.arange(8) / 8
    profile = [(wide + thick * np.cos(t), flat * thick * np.sin(t)) for t in turn]
    found = lathe(profile, int(rng.integers(14, 20)), ring=True)
    return lay_down(found) if rng.random() < 0.5 else found


def star(rng: Rng) -> Mesh:
    """A plate with pointed rays, standing."""
    rays, inner = int(rng.integers(5, 9)), rng.uniform(0.35, 0.6)
    outline = regular(2 * rays, 1.0, np.pi / 2)
    outline[1::2] *= inner
    return plate(outline, rng.uniform(0.2, 0.5))


def gear(rng: Rng) -> Mesh:
    """A wheel with blunt teeth and a round hole, standing."""
    teeth, tall = int(rng.integers(7, 11)), rng.uniform(0.68, 0.82)
    outline, hole = regular(4 * teeth, 1.0), regular(4 * teeth, rng.uniform(0.15, 0.4))
    outline[2::4] *= tall
    outline[3::4] *= tall
    return plate(outline, rng.uniform(0.2, 0.5), hole)


def cross(rng: Rng) -> Mesh:
    """Two bars of a plate, standing; the upright one may be longer."""
    half, wide = rng.uniform(0.12, 0.28), rng.uniform(0.6, 1.0)
    up, down = rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.3)
    corners = [(wide, -half), (wide, half), (half, half), (half, up), (-half, up), (-half, half)]
    corners += [(-wide, half), (-wide, -half), (-half, -half), (-half, -down), (half, -down)]
    return plate(np.array([*corners, (half, -half)]), rng.uniform(0.2, 0.5))


def _legs(rng: Rng, width: float, depth: float, height: float) -> list[Mesh]:
    thick, round_ones = rng.uniform(0.06, 0.14), rng.random() < 0.5
    parts = []
    for x, z in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        place = (x * (width / 2 - thick), z * (depth / 2 - thick))
        if round_ones:
            leg = translate(cylinder(thick * 0.7, height, 8, thick), (place[0], -height, place[1]))
        else:
            leg = box((thick * 1.6, height, thick * 1.6), (place[0], -height / 2, place[1]))
        parts.append(leg)
    return parts


def table(rng: Rng) -> Mesh:
    """A top on four legs."""
    width, depth = rng.uniform(1.2, 2.0), rng.uniform(0.8, 1.3)
    height, thick = rng.uniform(0.6, 1.1), rng.uniform(0.06, 0.16)
    top = box((width, thick, depth), (0, thick / 2, 0))
    return join([top, *_legs(rng, width, depth, height)])


def chair(rng: Rng) -> Mesh:
    """A seat on four legs with a back of a board or of bars."""
    width, depth = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.1)
    height, back = rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.2)
    thick = rng.uniform(0.08, 0.16)
    parts = [box((width, thick, depth), (0, thick / 2, 0)), *_legs(rng, width, depth, height)]
    z = -depth / 2 + thick / 2
    if rng.random() < 0.5:
        return join([*parts, box((width, back, thick), (0, thick + back / 2, z))])
    for x in np.linspace(-1, 1, int(rng.integers(3, 6))) * (width / 2 - thick / 2):
        parts.append(box((thick * 0.7, back, thick * 0.7), (float(x), thick + back / 2, z)))
    rail = box((width, thick * 1.5, thick), (0, thick + back + thick * 0.75, z))
    return join([*parts, rail])


def tower(rng: Rng) -> Mesh:
    """Blocks and drums upon one another, ever smaller, and a ball or a cone at the top."""
    parts, height, radius = [], 0.0, rng.uniform(0.5, 0.8)
    for _ in range(int(rng.integers(2, 5))):
        tall = rng.uniform(0.25, 0.6)
        if rng.random() < 0.5:
            parts.append(box((2 * radius, tall, 2 * radius), (0, height + tall / 2, 0)))
        else:
            parts.append(translate(cylinder(radius, tall, 10), (0, height, 0)))
        height, radius = height + tall, radius * rng.uniform(0.6, 0.85)
    if rng.random() < 0.5:
        return join([*parts, translate(ball(radius, 10, 6), (0, height + radius, 0))])
    spire = lathe([(0, 0), (radius, 0), (0, rng.uniform(0.4, 0.9))], 10)
    return join([*parts, translate(spire, (0, height, 0))])


def arch(rng: Rng) -> Mesh:
    """A gate: a block with an opening that is round above."""
    inner, thick = rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.45)
    legs, square = rng.uniform(0.3, 1.0), rng.random() < 0.5
    turn = np.linspace(0, np.pi, 13)
    round_line = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    opening = inner * round_line
    around = (inner + thick) * round_line
    if square:
        around = around / np.abs(round_line).max(axis=1, keepdims=True)
    low = np.array([[1.0, -legs], [-1.0, -legs]])
    near, far = low * [[inner, 1]], low * [[inner + thick, 1]]
    opening = np.concatenate([near[:1], opening, near[1:]])
    around = np.concatenate([far[:1], around, far[1:]])
    return arc(around, opening, rng.uniform(0.3, 0.8))


KINDS: dict[str, Callable[[Rng], Mesh]] = {
    "arch": arch,
    "bottle": bottle,
    "bowl": bowl,
    "chair": chair,
    "cross": cross,
    "gear": gear,
    "goblet": goblet,
    "ring": ring,
    "star": star,
    "table": table,
    "tower": tower,
    "vase": vase,
}
"""In the order of their classes."""
