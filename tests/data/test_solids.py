"""Generated solids: watertight, all of a kind different, a function of seed, split and index."""

import numpy as np
import pytest

from hmgr_jax.data.generated.solids import CLASSES, make_solid
from hmgr_jax.data.generated.solids.kinds import MOST_FACES
from hmgr_jax.data.generated.solids.primitives import (
    ball,
    box,
    cylinder,
    lathe,
    lay_down,
    plate,
    regular,
)
from hmgr_jax.data.shapes3d.mesh import is_watertight, join, volume

MANY = 20


@pytest.fixture(scope="module")
def solids():
    return [make_solid(3, "train", index) for index in range(MANY * len(CLASSES))]


@pytest.mark.parametrize(
    ("mesh", "wanted"),
    [
        (box((1, 2, 3), (5, 5, 5)), 6),
        (cylinder(2, 3, 256), 12 * np.pi),
        (lay_down(cylinder(2, 3, 256)), 12 * np.pi),
        (cylinder(2, 3, 256, top=1), np.pi * (4 + 2 + 1)),
        (ball(1, 128, 128), 4 / 3 * np.pi),
        (plate(regular(256, 1), 2), 2 * np.pi),
        (plate(regular(256, 1), 2, regular(256, 0.5)), 1.5 * np.pi),
        (lathe([(3, 0), (4, 1), (3, 2), (2, 1)], 256, ring=True), 2 * 2 * np.pi * 3),
    ],
)
def test_pieces_are_closed_look_outwards_and_have_their_volume(mesh, wanted):
    assert is_watertight(mesh)
    assert volume(mesh) == pytest.approx(wanted, rel=2e-3)


def test_a_hole_in_the_surface_is_seen():
    mesh = box((1, 1, 1))
    assert not is_watertight(mesh._replace(faces=mesh.faces[1:]))
    assert not is_watertight(mesh._replace(faces=np.r_[mesh.faces[1:], mesh.faces[:1, ::-1]]))
    assert is_watertight(join([mesh, mesh]))


def test_solids_are_closed_and_small(solids):
    assert len(CLASSES) >= 10
    for solid in solids:
        assert is_watertight(solid.mesh), solid.name
        assert volume(solid.mesh) > 0, solid.name
        assert len(solid.mesh.faces) <= MOST_FACES
        assert 0.5 < np.ptp(solid.mesh.vertices, axis=0).max() < 6
        assert solid.name.startswith(CLASSES[solid.kind])


def test_solids_of_a_kind_differ_in_their_proportions(solids):
    """Height over width spreads within every kind, and kinds overlap in it."""
    sizes = np.array([np.ptp(solid.mesh.vertices, axis=0) for solid in solids])
    ratio = sizes[:, 1] / np.hypot(sizes[:, 0], sizes[:, 2])
    kinds = np.array([solid.kind for solid in solids])
    ranges = [(ratio[kinds == k].min(), ratio[kinds == k].max()) for k in range(len(CLASSES))]
    assert all(high / low > 1.25 for low, high in ranges)
    apart = sum(a[1] < b[0] or b[1] < a[0] for a in ranges for b in ranges) / len(ranges) ** 2
    assert apart < 0.35


def test_a_function_of_seed_split_and_index():
    first = make_solid(0, "train", 5)
    again = make_solid(0, "train", 5)
    np.testing.assert_array_equal(first.mesh.vertices, again.mesh.vertices)
    np.testing.assert_array_equal(first.mesh.faces, again.mesh.faces)
    for other in (make_solid(1, "train", 5), make_solid(0, "test", 5), make_solid(0, "train", 17)):
        assert other.kind == first.kind
        assert other.mesh.vertices.shape != first.mesh.vertices.shape or not np.allclose(
            other.mesh.vertices, first.mesh.vertices
        )
