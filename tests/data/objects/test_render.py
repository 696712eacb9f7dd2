"""Pictures of meshes and clouds: what is seen, from where, and by two ways of looking."""

import numpy as np
import pytest

from hmgr_jax.data.generated.solids import CLASSES, make_solid
from hmgr_jax.data.generated.solids.primitives import ball, box
from hmgr_jax.data.shapes3d.mesh import join, normalise, sample_points, translate
from hmgr_jax.data.shapes3d.render import (
    BACKGROUND,
    NOTHING,
    camera_at,
    cameras_around,
    project,
    rasteriser,
    ray_caster,
    rays,
    render,
    render_points,
    spread_views,
)

SIZE = 64


def test_a_ball_is_a_disc_in_the_middle():
    picture = render(ball(1, 48, 48), [camera_at(0.7)], SIZE)[0]
    seen = picture < BACKGROUND - 2
    y, x = np.nonzero(seen)
    assert x.mean() == pytest.approx(31.5, abs=0.3)
    assert y.mean() == pytest.approx(31.5, abs=0.3)
    assert 0.8 * SIZE < np.ptp(x) + 1 <= 7 / 8 * SIZE  # the middle that evaluation sees
    assert seen.sum() == pytest.approx(np.pi / 4 * (np.ptp(x) + 1) ** 2, rel=0.03)


def test_up_is_up_and_cameras_go_around():
    mesh = join([box((0.2, 1.6, 0.2)), translate(box((0.2, 0.2, 0.2)), (0.8, 0, 0))])
    front = render(mesh, [camera_at(np.pi / 2, 0.0), camera_at(-np.pi / 2, 0.0)], SIZE) < 250
    assert front[0, :, :10].sum() == 0
    assert front[0][:, SIZE // 2 + 10 :].any()  # along -z the x axis points to the right
    assert not front[1][:, SIZE // 2 + 10 :].any()
    assert front[1][:, : SIZE // 2 - 10].any()
    tip = render(translate(box((0.2, 0.2, 0.2)), (0, 0.8, 0)), [camera_at(1.0)], SIZE)[0] < 250
    assert np.nonzero(tip)[0].mean() < SIZE / 3


def test_the_nearer_face_is_seen():
    mesh = join([box((1, 1, 0.1)), translate(box((0.5, 0.5, 0.1)), (0, 0, 0.5))])
    seen = rasteriser(mesh)(camera_at(np.pi / 2, 0.0), SIZE)
    assert seen[SIZE // 2, SIZE // 2] >= 12  # the small plate in front
    behind = rasteriser(mesh)(camera_at(-np.pi / 2, 0.0), SIZE)
    assert 0 <= behind[SIZE // 2, SIZE // 2] < 12
    assert seen[0, 0] == NOTHING


@pytest.mark.parametrize("index", range(len(CLASSES)))
def test_rasteriser_and_rays_see_the_same(index):
    pytest.importorskip("embreex")
    mesh = normalise(make_solid(5, "train", index).mesh)
    for camera in cameras_around(3):
        one, other = rasteriser(mesh)(camera, 96), ray_caster(mesh)(camera, 96)
        assert (one == other).mean() > 0.998
        assert ((one == NOTHING) == (other == NOTHING)).mean() > 0.999


def test_rays_go_where_projections_say():
    camera = camera_at(0.4, 0.3)
    ends = camera.eye[None] + 2.0 * rays(camera, 8).astype(np.float64)
    places = project(ends, camera, 8)[:, :2]
    wanted = np.stack(np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5), axis=2).reshape(-1, 2)
    np.testing.assert_allclose(places, wanted, atol=1e-5)


def test_views_that_are_far_apart():
    assert spread_views(12, 4).tolist() == [0, 3, 6, 9]
    assert spread_views(180, 2).tolist() == [0, 90]
    assert spread_views(5, 3).tolist() == [0, 1, 3]
    assert spread_views(1, 2).tolist() == [0, 0]


def test_clouds_look_like_their_meshes():
    mesh = normalise(make_solid(0, "train", 9).mesh)
    points = sample_points(mesh, 6000, np.random.default_rng(0))
    camera = camera_at(0.4)
    dots = render_points(points, camera, SIZE) < 250
    surface = render(mesh, [camera], SIZE)[0] < 250
    assert (dots == surface).mean() > 0.95
    assert render_points(points[:0], camera, SIZE).min() == BACKGROUND
