"""Generated worlds as a data set: keys, families, arrays; what captions mean is tested apart."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hmgr_jax.data.generated.worlds import make_family, open_worlds
from hmgr_jax.data.generated.worlds.regions import CROP, describe_regions, detect, make_regions
from hmgr_jax.data.generated.worlds.render import render, render_alone
from hmgr_jax.data.generated.worlds.scene import APART, COLOURS, ROUND, SHAPES
from hmgr_jax.data.text.vocabulary import UNKNOWN, Vocabulary
from hmgr_jax.errors import UserError

KNOWN_THING = ("heart", "blue", 1)
KNOWN_PLACE = (0.8222679950018273, 0.4791918189451637)
KNOWN_CAPTIONS = [
    "the purple circle, which is nearest of all to the purple cross, is low down in the picture",
    "the green triangle is both at the top of the picture and closest of all to the blue heart",
    "the large purple cross can be found on the left side of the picture",
    "the green triangle is near the upper edge of the picture and nearer to the blue heart "
    "than to the violet circle",
    "the little purple circle is both somewhere below the blue heart and right of the purple cross",
]
DIGEST = """
import hashlib
from hmgr_jax.data.generated.worlds import make_family
print(hashlib.sha256(repr(make_family(7, "dev", 3)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def worlds():
    return open_worlds(seed=1, train=80, dev=20, test=40)


@pytest.fixture(scope="module")
def families():
    return [make_family(0, "train", number) for number in range(200)]


@pytest.mark.slow
def test_a_family_is_the_same_in_another_process():
    here = hashlib.sha256(repr(make_family(7, "dev", 3)).encode()).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    there = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_scenes_do_not_depend_on_how_many_are_made(worlds):
    fewer = open_worlds(seed=1, train=12, dev=4, test=4)
    for name, split in fewer.splits.items():
        small, large = split.sources, worlds.splits[name].sources
        items = np.arange(len(small["image"]))
        for key, array in small["image"].gather(items).items():
            np.testing.assert_array_equal(array, large["image"].gather(items)[key], err_msg=key)
        assert large["text"].captions[: 5 * len(items)] == small["text"].captions
    assert fewer.vocabulary == worlds.vocabulary


def test_the_generator_has_not_changed():
    """Where this fails on purpose, raise VERSION: checkpoints name the data they were made with."""
    family = make_family(0, "train", 0)
    first = family.scenes[0].things[0]
    assert [caption.text for caption in family.captions[0]] == KNOWN_CAPTIONS
    assert (SHAPES[first.shape], COLOURS[first.colour], first.size) == KNOWN_THING
    np.testing.assert_allclose((first.x, first.y), KNOWN_PLACE, atol=1e-9)


def test_siblings_share_objects_and_places(families):
    for family in families:
        kinds = [[(t.shape, t.colour, t.size) for t in scene.things] for scene in family.scenes]
        assert all(kind == kinds[0] for kind in kinds)
        places = [scene.places - scene.places.mean(axis=0) for scene in family.scenes]
        seats = [sorted(map(tuple, place.round(9).tolist())) for place in places]
        np.testing.assert_allclose(seats, [seats[0]] * 4, atol=1e-8)
        assert all(np.abs(a - b).max() > 0.05 for a in places for b in places if a is not b)


def test_scenes_have_room_and_distinct_objects(families):
    counts = set()
    for scene in (scene for family in families for scene in family.scenes):
        labels = [thing.label for thing in scene.things]
        assert len(set(labels)) == len(labels)
        counts.add(len(labels))
        gaps = scene.places[:, None] - scene.places
        apart = np.linalg.norm(gaps, axis=2) + np.eye(len(labels))
        assert apart.min() >= APART - 1e-9
        radii = np.array([[thing.radius] for thing in scene.things])
        assert (scene.places - radii).min() >= 0
        assert (scene.places + radii).max() <= 1
        out = np.linalg.norm(scene.places - scene.places.mean(axis=0), axis=1)
        assert out.max() <= ROUND * out.min() + 1e-9
    assert counts == {4, 5, 6}


def test_splits_are_disjoint(worlds):
    seen = {}
    for name, split in worlds.splits.items():
        image = split.sources["image"]
        for row in range(len(image)):
            count = image.arrays["n_regions"][row]
            key = tuple(sorted(image.arrays["boxes"][row, :count].ravel().round(2).tolist()))
            assert seen.setdefault((count, key), name) == name
    shown = {name: _objects(split) for name, split in worlds.splits.items()}
    assert not shown["train"] & shown["test"]
    assert not shown["train"] & shown["dev"]


def _objects(split):
    labels = np.sort(split.sources["image"].arrays["labels"], axis=1)
    return set(map(tuple, labels.tolist()))


def test_seeds_give_other_scenes():
    first, second = make_family(0, "train", 0), make_family(1, "train", 0)
    assert first.scenes[0].things != second.scenes[0].things


def test_split_layout(worlds):
    split = worlds.splits["train"]
    caption = np.arange(400)
    np.testing.assert_array_equal(split.rows["image"], caption // 5)
    np.testing.assert_array_equal(split.rows["text"], caption)
    np.testing.assert_array_equal(split.groups["image"], np.arange(80))
    np.testing.assert_array_equal(split.groups["text"], caption // 5)
    np.testing.assert_array_equal(split.families["image"], np.arange(80) // 4)
    np.testing.assert_array_equal(split.families["text"], caption // 20)
    for arrays in (split.rows, split.groups, split.families):
        assert all(array.dtype == np.int32 for array in arrays.values())
    assert split.ids["image"][3] == "train/000003"
    assert split.ids["text"][17] == "train/000003#2"
    assert len(split) == len(split.sources["text"]) == len(set(split.ids["text"])) == 400


def test_words_are_known_and_captions_fit(worlds):
    assert 80 <= len(worlds.vocabulary) <= 150
    for split in worlds.splits.values():
        text = split.sources["text"]
        assert not (text.gather(np.arange(len(text)))["tokens"] == UNKNOWN).any()
        words = text.lengths - 2
        assert words.min() >= 8
        assert words.max() <= 22


def test_regions_are_whole_and_shuffled(worlds):
    image = worlds.splits["train"].sources["image"]
    items = image.gather(np.array([5, 5, 2]))
    assert items["regions"].shape == (3, 6, 212)
    assert items["regions"].dtype == np.float16
    assert items["boxes"].dtype == np.float32
    assert items["labels"].dtype == np.int16
    assert items["n_regions"].dtype == np.int32
    present = np.arange(6) < image.arrays["n_regions"][:, None]
    assert ((image.arrays["labels"] >= 0) == present).all()
    assert not image.arrays["regions"][~present].any()
    assert not image.arrays["boxes"][~present].any()
    pixels = image.arrays["regions"][present][:, :192]
    assert pixels.min() >= -0.5
    assert pixels.max() <= 0.5
    boxes = image.arrays["boxes"][present]
    np.testing.assert_allclose(image.arrays["regions"][present][:, 192:196], boxes, atol=1e-3)
    centre = (boxes[:, 0] + boxes[:, 2]) / 2
    np.testing.assert_allclose(
        image.arrays["regions"][present][:, 196], np.sin(np.pi * centre), atol=2e-3
    )
    # The order of the objects within a family is another in every sibling.
    first = image.arrays["labels"][:, 0].reshape(-1, 4)
    assert (first != first[:, :1]).mean() > 0.4


def test_a_region_holds_nothing_of_its_neighbours(families):
    for family in families[:20]:
        scene = family.scenes[0]
        moved = dataclasses.replace(scene.things[1], x=scene.things[0].x, y=scene.things[0].y)
        other = dataclasses.replace(scene, things=(scene.things[0], moved, *scene.things[2:]))
        before = describe_regions(scene, detect(scene))
        after = describe_regions(other, detect(other))
        np.testing.assert_array_equal(np.delete(before, 1, axis=0), np.delete(after, 1, axis=0))
        assert np.abs(before[1] - after[1]).max() > 0.01
        np.testing.assert_array_equal(render_alone(scene, 0), render_alone(other, 0))
        assert (render(scene) != render(other)).any()


def test_regions_show_what_the_picture_shows(families):
    for family in families[:10]:
        scene = family.scenes[1]
        windows = detect(scene)
        pixels = describe_regions(scene, windows)[:, : 3 * CROP**2].reshape(-1, CROP, CROP, 3) + 0.5
        for index, window in enumerate(windows):
            picture = Image.fromarray(render_alone(scene, index, pixels=480))
            crop = picture.resize((CROP, CROP), Image.Resampling.BOX, tuple(480 * window))
            difference = np.abs(np.asarray(crop) / 255 - pixels[index])
            assert difference.mean() < 0.03
            assert np.quantile(difference, 0.95) < 0.11


def test_make_regions_keeps_labels_with_their_features(families):
    scene = families[0].scenes[2]
    made = make_regions([scene])
    features = describe_regions(scene, detect(scene)).astype(np.float16)
    for index, thing in enumerate(scene.things):
        row = made.arrays["labels"][0].tolist().index(thing.label)
        np.testing.assert_array_equal(made.arrays["regions"][0, row], features[index])


def test_pictures(families):
    scene = families[0].scenes[0]
    picture = render(scene)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, render(scene))
    alone = [render_alone(scene, k) for k in range(len(scene.things))]
    shared = np.median(np.stack(alone), axis=0)
    assert np.abs(shared - picture).max() > 50
    assert all(np.abs(one - shared).max() > 50 for one in alone)


def test_fingerprint_names_seed_and_sizes(worlds):
    small = [open_worlds(0, 4, 4, 4), open_worlds(1, 4, 4, 4), open_worlds(0, 8, 4, 4)]
    assert len({world.fingerprint for world in small}) == 3
    assert open_worlds(0, 4, 4, 4).fingerprint == small[0].fingerprint
    assert len(worlds.fingerprint) == 64


def test_bad_sizes_are_refused():
    for sizes in ({"train": 6}, {"dev": 0}, {"test": -4}):
        with pytest.raises(UserError, match="multiple of 4"):
            open_worlds(**sizes)
    with pytest.raises(UserError, match="seed"):
        open_worlds(seed=-1)


def test_splits_can_be_made_alone_and_a_foreign_vocabulary_is_refused():
    sizes = {"train": 8, "dev": 8, "test": 8}
    whole, alone = open_worlds(**sizes), open_worlds(**sizes, roles=("test",))
    assert list(alone.splits) == ["test"]
    assert alone.fingerprint == whole.fingerprint
    assert (
        alone.splits["test"].sources["text"].captions
        == whole.splits["test"].sources["text"].captions
    )
    open_worlds(**sizes, known=whole.vocabulary)
    fewer = Vocabulary(whole.vocabulary.words[:-1])
    with pytest.raises(UserError, match="other words than these"):
        open_worlds(**sizes, known=fewer)
