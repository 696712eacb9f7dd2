"""The contact sheet of objects: frames by class, the nearest first, the query left out."""

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from hmgr_jax.data.generated.solids.open import Solids, open_solids
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.errors import UserError
from hmgr_jax.reports import object_reports
from hmgr_jax.reports.object_pictures import pictures_of
from hmgr_jax.reports.object_reports import RIGHT, WRONG, draw_object_sheet

COUNT = 24


@pytest.fixture(scope="module")
def split():
    shaping = Shaping(image_size=32, crop=32, points=400, faces=320, views=1)
    solids = Solids(train=12, dev=12, test=COUNT, views=2)
    return open_solids(solids, shaping, ["test"]).splits["test"]


def _drawn(monkeypatch, *arguments, **options):
    """[(name, colour) of every picture] of the only row of a sheet."""
    found = []
    monkeypatch.setattr(object_reports, "draw_grid", lambda path, rows, **_: found.extend(rows))
    draw_object_sheet(*arguments, **options)
    (row,) = found
    return [(shown.above, shown.frame) for shown in row]


@pytest.mark.parametrize("modality", ["image", "point", "mesh"])
def test_every_modality_is_drawn(split, modality):
    pictures = pictures_of(modality, split.sources[modality], np.array([9, 1]), 48)
    side = 32 if modality == "image" else 48
    for picture in pictures:
        assert (picture.shape, picture.dtype) == ((side, side, 3), np.uint8)
        assert 0.03 < (picture < 200).mean() < 0.6  # a dark object on white
        assert (picture[0] > 250).all()
    assert not np.array_equal(*pictures)


def test_neighbours_are_in_order_with_frames_by_class(split, monkeypatch, tmp_path):
    scores = np.zeros((COUNT, COUNT))
    scores[3, [15, 4, 3]] = 3, 2, 1  # another chair, a cross, itself
    seen = _drawn(monkeypatch, tmp_path / "a.png", split, ("image", "mesh"), scores, [3], columns=3)
    assert [name for name, _ in seen] == [
        "chair_000003", "chair_000015", "cross_000004", "chair_000003",
    ]  # fmt: skip
    assert [colour for _, colour in seen[1:]] == [RIGHT, WRONG, RIGHT]
    seen = _drawn(monkeypatch, tmp_path / "a.png", split, ("mesh", "mesh"), scores, [3], columns=2)
    assert [name for name, _ in seen[1:]] == ["chair_000015", "cross_000004"]
    scores[3, 3] = 9
    seen = _drawn(monkeypatch, tmp_path / "a.png", split, ("mesh", "mesh"), scores, [3], columns=99)
    assert len(seen) == COUNT
    assert "chair_000003" not in [name for name, _ in seen[1:]]


def test_the_sheet_has_frames_in_both_colours(split, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "sheet.png"
    draw_object_sheet(path, split, ("point", "mesh"), rng.random((COUNT, COUNT)), [0, 5], columns=4)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    assert pixels.shape[1] > pixels.shape[0]
    for colour in (RIGHT, WRONG):
        wanted = np.array(matplotlib.colors.to_rgb(colour)) * 255
        near = np.abs(pixels - wanted.reshape(1, 1, 3)).max(axis=2) < 6
        assert (near.sum() > 100) == (colour == WRONG or near.any())


def test_rejects_bad_items_and_scores(split, tmp_path):
    good, path = np.zeros((COUNT, COUNT)), tmp_path / "no.png"
    with pytest.raises(UserError, match="no text with labels to draw: choose from image, point"):
        draw_object_sheet(path, split, ("image", "text"), good, [0])
    with pytest.raises(UserError, match=r"Scores must have shape \[24, 24\], got \[23, 24\]"):
        draw_object_sheet(path, split, ("image", "mesh"), good[1:], [0])
    with pytest.raises(UserError, match="NaN"):
        draw_object_sheet(path, split, ("image", "mesh"), good + np.nan, [0])
    assert not path.exists()
