"""Faces as networks read them, points on a surface, and fewer faces of the same form."""

import builtins

import numpy as np
import pytest

from hmgr_jax.data.generated.solids import make_solid
from hmgr_jax.data.generated.solids.primitives import ball, box
from hmgr_jax.data.shapes3d.mesh import (
    Mesh,
    edge_neighbours,
    face_features,
    fill_faces,
    join,
    normalise,
    sample_points,
    transform,
    translate,
)
from hmgr_jax.data.shapes3d.simplify import simplify_mesh
from hmgr_jax.errors import UserError


def test_about_the_middle_of_the_box_within_the_unit_ball():
    found = normalise(translate(box((2, 4, 4)), (10, -3, 7)))
    np.testing.assert_allclose(found.vertices.max(0), np.array([1, 2, 2]) / 3)
    np.testing.assert_allclose(found.vertices.min(0), -np.array([1, 2, 2]) / 3)
    stray = found._replace(vertices=np.concatenate([found.vertices, [[50.0, 0, 0]]]))
    np.testing.assert_allclose(normalise(stray).vertices[:-1], found.vertices)
    point = Mesh(np.ones((3, 3)), np.array([[0, 1, 2]], np.int32))
    assert not normalise(point).vertices.any()


def test_features_of_a_face():
    mesh = Mesh(np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [4, 0, 0.0]]),
                np.array([[0, 1, 2], [0, 1, 3]], np.int32))  # fmt: skip
    found = face_features(mesh)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :3], [2 / 3, 2 / 3, 0], rtol=1e-6)
    assert found[0, 3:12].tolist() == [0, 0, 0, 2, 0, 0, 0, 2, 0]
    assert found[0, 12:].tolist() == [0, 0, 1]
    assert not found[1, 12:].any()  # without area


def _slow_neighbours(faces):
    """Across each edge, where exactly two faces share it."""
    found = []
    for i, face in enumerate(faces):
        row = []
        for k in range(3):
            edge = {face[k], face[(k + 1) % 3]}
            across = [j for j, other in enumerate(faces) if j != i and edge <= set(other)]
            row.append(across[0] if across else i)
        found.append(row)
    return found


@pytest.mark.parametrize("index", range(12))
def test_neighbours_of_solids(index):
    faces = make_solid(1, "train", index).mesh.faces
    wanted = _slow_neighbours(faces.tolist())
    np.testing.assert_array_equal(edge_neighbours(faces), wanted)


def test_neighbours_at_a_border_and_at_an_edge_of_three():
    assert edge_neighbours(np.array([[0, 1, 2]])).tolist() == [[0, 0, 0]]
    fan = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    found = edge_neighbours(fan)
    assert sorted(found[:, 0].tolist()) == [0, 1, 2]  # each takes the next, none itself
    assert (found[:, 0] != np.arange(3)).all()
    assert (found[:, 1:] == np.arange(3)[:, None]).all()


def test_filling_repeats_faces_with_their_neighbours():
    features, neighbours = np.arange(6.0).reshape(3, 2), np.arange(9).reshape(3, 3)
    many, whose = fill_faces(features, neighbours, 40, np.random.default_rng(0))
    np.testing.assert_array_equal(many[:3], features)
    np.testing.assert_array_equal(many[:, 0] / 2, whose[:, 0] / 3)
    assert set(many[3:, 0]) == {0.0, 2.0, 4.0}
    with pytest.raises(ValueError, match="3 faces do not fit"):
        fill_faces(features, neighbours, 2, np.random.default_rng(0))


def test_points_lie_on_the_surface_by_area():
    mesh = join([box((1, 1, 1)), translate(box((2, 2, 2)), (10, 0, 0))])
    points = sample_points(mesh, 20_000, np.random.default_rng(0))
    assert points.dtype == np.float32
    large = points[:, 0] > 5
    assert large.mean() == pytest.approx(0.8, abs=0.01)
    depth = np.abs(np.where(large[:, None], (points - [[10, 0, 0]]) / 2, points)).max(1)
    np.testing.assert_allclose(depth, 0.5, atol=1e-6)
    side = points[~large][np.isclose(points[~large][:, 2], 0.5)]
    counts = np.histogram2d(side[:, 0], side[:, 1], 3)[0]
    assert counts.min() > 0.7 * counts.mean()
    with pytest.raises(UserError, match="no face with an area"):
        sample_points(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 3, np.random.default_rng(0))


def test_simplified_keeps_the_form():
    sphere = ball(1.0, 80, 60)
    found = simplify_mesh(sphere, 1024)
    assert 900 < len(found.faces) <= 1024
    distances = np.linalg.norm(found.vertices, axis=1)
    assert distances.min() > 0.95
    assert distances.max() < 1.05
    assert (edge_neighbours(found.faces) != np.arange(len(found.faces))[:, None]).all()


def test_small_meshes_are_only_cleaned():
    solid = make_solid(0, "train", 3).mesh
    soup = Mesh(solid.corners.reshape(-1, 3), np.arange(3 * len(solid.faces)).reshape(-1, 3))
    assert (edge_neighbours(soup.faces) == np.arange(len(soup.faces))[:, None]).all()
    found = simplify_mesh(soup, 1024)
    assert len(found.faces) == len(solid.faces)
    assert len(found.vertices) == len(np.unique(solid.vertices.round(6), axis=0))
    flat = Mesh(np.r_[solid.vertices, [[9.0, 9, 9]]], np.r_[solid.faces, [[0, 0, 1]]])
    assert len(simplify_mesh(flat, 1024).faces) == len(solid.faces)


def test_thousands_of_loose_pieces():
    rng = np.random.default_rng(0)
    pieces = [
        transform(translate(box((1, 1, 1)), rng.normal(0, 20, 3)), np.eye(3)) for _ in range(900)
    ]
    mesh = join(pieces)
    found = simplify_mesh(mesh, 256)
    assert 0 < len(found.faces) <= 256
    np.testing.assert_allclose(
        np.ptp(found.vertices, axis=0), np.ptp(mesh.vertices, axis=0), rtol=0.5
    )


def test_without_the_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "fast_simplification":
            raise ImportError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"fast_simplification.*hmgr-jax\[shapes\]"):
        simplify_mesh(box((1, 1, 1)), 5)
