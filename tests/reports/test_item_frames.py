"""Frames of clips and views of 3D objects, as a server plays them."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from hmgr_jax.data.generated.worlds.clips import make_clips
from hmgr_jax.data.generated.worlds.frames import render_frames
from hmgr_jax.data.split import ArraySource
from hmgr_jax.reports.object_pictures import VIEWS, views_of
from hmgr_jax.search.index import Item
from hmgr_jax.search.report import frames_of_item


def test_a_generated_clip_plays_its_own_frames():
    config = ConfigDict({"data": {"source": "clips", "clips": {"seed": 3}}})
    item = Item("test/000006#1", "a caption", "", "test/000006")
    found = frames_of_item(SimpleNamespace(config=config), "test", "text", item)
    np.testing.assert_array_equal(found, render_frames(make_clips(3, "test", 8)[6], 160))
    assert len({frame.tobytes() for frame in found}) > 1


def test_items_of_other_sources_have_no_frames():
    config = ConfigDict({"data": {"source": "worlds"}})
    item = Item("a.jpg", "", "a.jpg", "a.jpg")
    assert frames_of_item(SimpleNamespace(config=config), "", "image", item) is None


@pytest.mark.parametrize("modality", ["point", "mesh"])
def test_an_object_turns(modality):
    corners = np.random.default_rng(0).standard_normal((1, 4, 9)).astype(np.float32)
    faces = np.concatenate([np.zeros((1, 4, 3), np.float32), corners], axis=2)
    items = {"points": corners.reshape(1, 12, 3), "faces": faces}
    found = views_of(modality, ArraySource(items), 0, 32)
    assert found.shape == (VIEWS, 32, 32, 3)
    assert len({view.tobytes() for view in found}) > VIEWS // 2
