"""Pixels of pictures: what evaluation sees, and what (seed, step, row) make of them in training."""

import pickle

import numpy as np
import pytest
from picture_files import picture, write_picture
from PIL import Image

from hmgr_jax.data.draws import Draws
from hmgr_jax.data.generated.worlds.captions import make_family
from hmgr_jax.data.generated.worlds.render import SceneDrawings, render
from hmgr_jax.data.pictures.pixels import (
    MEAN,
    STD,
    TRIES,
    Augmentation,
    PictureFiles,
    PixelSource,
    crop_box,
    erased_box,
)
from hmgr_jax.data.pipeline import batches, eval_batches
from hmgr_jax.data.split import Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

SMALL = {"size": 16, "resize": 20}


@pytest.fixture
def files(tmp_path):
    return [write_picture(tmp_path / f"{i}.png", i, 40 + i, 30) for i in range(6)]


@pytest.fixture
def split(files):
    number = np.arange(6, dtype=np.int32)
    words = CaptionSource([["word"]] * 6, Vocabulary((*MARKS, "word")))
    return Split(
        name="train",
        sources={"image": PixelSource(PictureFiles(files), Augmentation(**SMALL)), "text": words},
        groups={"image": number, "text": number},
        rows={"image": number, "text": number},
        ids={"image": [], "text": []},
    )


def test_evaluation_sees_the_normalised_middle():
    flat = Image.fromarray(np.full((40, 60, 3), (255, 0, 51), np.uint8))
    found = Augmentation(size=8, resize=10).plain(flat)
    assert found.dtype == np.float32
    assert found.shape == (8, 8, 3)
    wanted = (np.array([1.0, 0.0, 0.2]) - MEAN) / STD
    np.testing.assert_allclose(found, np.broadcast_to(wanted, (8, 8, 3)), atol=1e-6)


def test_the_middle_is_cut_where_it_should_be():
    """Without scaling the crop is a slice: rows 4..11, columns 6..13 of 16 x 20."""
    pixels = picture(1, width=20, height=16)
    found = Augmentation(size=8, resize=16).plain(Image.fromarray(pixels))
    back = found * 255 * np.array(STD) + 255 * np.array(MEAN)
    np.testing.assert_allclose(back, pixels[4:12, 6:14], atol=1e-3)


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 60), (41, 41)])
def test_the_shorter_side_is_scaled(width, height):
    """A wide or tall picture keeps its shape: a circle's width and height stay alike."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2 + 0.5) ** 2 + (y - height / 2 + 0.5) ** 2 < 12**2
    drawn = Image.fromarray(np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, 2))
    found = Augmentation(size=20, resize=24).plain(drawn)[..., 0] > 0
    assert abs(int(found.any(0).sum()) - int(found.any(1).sum())) <= 1


def test_boxes_lie_inside_and_cover_what_they_should():
    rng = np.random.default_rng(0)
    shares, shapes, erased = [], [], []
    for _ in range(2000):
        left, top, right, bottom = crop_box(100, 80, rng.random((TRIES, 4)))
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        shares.append((right - left) * (bottom - top) / 8000)
        shapes.append((right - left) / (bottom - top))
        box = erased_box(64, 64, rng.random((TRIES, 4)))
        assert box is not None
        left, top, right, bottom = box
        assert 0 <= left < right <= 64
        assert 0 <= top < bottom <= 64
        erased.append((right - left) * (bottom - top) / 4096)
    assert 0.07 < min(shares) < 0.12
    assert max(shares) > 0.9
    assert 0.7 < min(shapes) < 0.8
    assert 1.25 < max(shapes) < 1.4
    assert 0.015 < min(erased) < 0.03
    assert 0.3 < max(erased) < 0.35


def test_a_picture_too_long_for_any_crop_gives_its_middle():
    assert crop_box(900, 30, np.ones((TRIES, 4)) * 0.999) == (430, 0, 470, 30)
    assert crop_box(30, 900, np.ones((TRIES, 4)) * 0.999) == (0, 430, 30, 470)


def test_switches_change_only_what_they_name(files):
    image = PictureFiles(files).load(0)

    def drawn(**options):
        options = {"flip": 0.0, "erase": 0.0} | options
        return Augmentation(**SMALL, **options).drawn(image, np.random.default_rng(5))

    plain = drawn()
    np.testing.assert_array_equal(drawn(flip=1.0), plain[:, ::-1])
    erased = drawn(erase=1.0)
    gone = (erased != plain).any(-1)
    assert 0.01 < gone.mean() < 0.4
    assert (erased[gone] == 0).all()
    rows, columns = gone.any(1), gone.any(0)
    np.testing.assert_array_equal(gone, rows[:, None] & columns)  # one rectangle
    centred = drawn(train="centre")
    np.testing.assert_array_equal(centred, Augmentation(**SMALL).plain(image))
    assert (plain != centred).any()


def test_probabilities_are_kept():
    augmentation = Augmentation(size=8, resize=8, train="centre", flip=0.5, erase=0.2)
    image = Image.fromarray(picture(3, 8, 8))
    plain = augmentation.plain(image)
    flipped = erased = 0
    for k in range(1000):
        found = augmentation.drawn(image, np.random.default_rng(k))
        erased += bool((found == 0).all(-1).any())
        same = (found == plain).all(-1).mean()
        flipped += bool((found == plain[:, ::-1]).all(-1).mean() > same)
    assert 440 < flipped < 560
    assert 160 < erased < 240


def _pixels(split, **options):
    options = {"batch_size": 4, "seed": 3, "steps": 6} | options
    return [(b["row"], b["image"]["pixels"]) for b in batches(split, **options)]


def test_a_resumed_run_sees_the_same_pixels(split):
    whole = _pixels(split)
    for (_, a), (_, b) in zip(whole[3:], _pixels(split, start=3), strict=True):
        np.testing.assert_array_equal(a, b)
    for (_, a), (_, b) in zip(whole, _pixels(split, seed=4), strict=True):
        assert (a != b).any()


def test_other_processes_and_padding_see_the_same_pixels(split):
    """Six rows over four processes: the batch is padded to eight."""
    whole = _pixels(split, batch_size=6)
    parts = [_pixels(split, batch_size=6, process=(k, 4), pad_to=8) for k in range(4)]
    for step, (row, pixels) in enumerate(whole):
        together = np.concatenate([part[step][1] for part in parts])
        valid = np.concatenate([part[step][0]["valid"] for part in parts])
        index = np.concatenate([part[step][0]["index"] for part in parts])
        np.testing.assert_array_equal(together[valid], pixels)
        np.testing.assert_array_equal(index[valid], row["index"])


def test_a_picture_looks_different_every_time(split):
    """The same item at other steps, and in other rows of one step."""
    source = split.sources["image"]
    items = np.zeros(3, np.int64)
    first = source.draw(items, Draws(3, 0, np.arange(3)))["pixels"]
    second = source.draw(items, Draws(3, 1, np.arange(3)))["pixels"]
    assert (first[0] != first[1]).any()
    assert (first[0] != second[0]).any()
    np.testing.assert_array_equal(
        source.draw(items[:1], Draws(3, 0, np.array([1])))["pixels"][0], first[1]
    )


@pytest.mark.slow
def test_worker_processes_make_the_same_batches(split):
    here = _pixels(split, steps=4)
    there = _pixels(split, steps=4, workers=2)
    for (row, a), (other, b) in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(row["item"], other["item"])


@pytest.mark.slow
def test_a_worker_names_the_picture_that_it_cannot_read(split, files):
    files[2].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2\.png is not a readable picture"):
        _pixels(split, batch_size=6, steps=1, workers=1)


def test_evaluation_draws_nothing(split):
    source = split.sources["image"]
    found = [items["pixels"] for _, _, items in eval_batches(source, 3)]
    again = source.gather(np.arange(6))["pixels"]
    np.testing.assert_array_equal(np.concatenate(found), again)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode_have_three_colours(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((30, 30), 1000, np.uint16)).save(path)
    else:
        Image.fromarray(picture(0)).convert(mode).save(path)
    assert PictureFiles([path]).load(0).mode == "RGB"


def test_scenes_are_drawn_once_and_travel_undrawn():
    scenes = make_family(0, "train", 0).scenes
    drawings = SceneDrawings(scenes, 24)
    np.testing.assert_array_equal(np.asarray(drawings.load(2)), render(scenes[2], 24))
    copied = pickle.loads(pickle.dumps(drawings))
    np.testing.assert_array_equal(np.asarray(copied.load(2)), np.asarray(drawings.load(2)))
    assert len(pickle.dumps(drawings)) == len(pickle.dumps(SceneDrawings(scenes, 24)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 300}, "but they are 300 and 256"),
        ({"train": "middle"}, "crop, centre, not 'middle'"),
        ({"flip": 1.5}, r"data\.pixels\.flip must be .* got 1\.5"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
    ],
)
def test_bad_settings_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        Augmentation(**options)
