"""SCAN folders: both ways of storing images, ids, boxes, splits and the vocabulary."""

import shutil

import numpy as np
import pytest
from scan_folders import REGIONS, captions_of, features_of, write_folder, write_split

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError


def _check_split(split, images, count=5):
    """Every row joins a caption to the image that it names."""
    features = features_of(images)
    assert len(split.sources["image"]) == images
    assert len(split.sources["text"]) == len(split) == images * count
    np.testing.assert_array_equal(split.groups["image"], np.arange(images))
    everything = split.sources["image"].gather(np.arange(images))
    np.testing.assert_array_equal(everything["regions"], features)
    np.testing.assert_array_equal(everything["n_regions"], np.full(images, REGIONS))
    for row in range(len(split)):
        image, text = split.rows["image"][row], split.rows["text"][row]
        assert split.sources["text"].captions[text] == captions_of(image, count)[row % count]
        assert split.groups["text"][text] == split.groups["image"][image]
        assert split.ids["text"][text] == f"{split.ids['image'][image]}#{row % count}"


def test_both_layouts_and_ids(tmp_path):
    data = open_scan(write_folder(tmp_path))
    for name, images in {"train": 6, "dev": 3, "test": 4}.items():
        _check_split(data.splits[name], images)
        assert list(data.splits[name].ids["image"]) == [str(100 + i) for i in range(images)]
    assert data.name == tmp_path.name


def test_other_captions_of_the_same_pictures(tmp_path):
    write_folder(tmp_path)
    for split in ("train", "dev", "test"):
        text = (tmp_path / f"{split}_caps.txt").read_text()
        (tmp_path / f"{split}_caps_zh.txt").write_text(text.replace("image", "Bild"))
    found = open_scan(tmp_path, captions="{split}_caps_zh.txt")
    plain = open_scan(tmp_path)
    for name, split in found.splits.items():
        own = plain.splits[name].sources["text"].captions
        assert list(split.sources["text"].captions) == [
            text.replace("image", "Bild") for text in own
        ]
    assert found.fingerprint != plain.fingerprint
    with pytest.raises(UserError, match=r"lacks train_caps_de\.txt, dev_caps_de\.txt"):
        open_scan(tmp_path, captions="{split}_caps_de.txt")


def test_feat_files_in_float32_without_ids(tmp_path):
    write_split(tmp_path, "train", 6, ids=False, kind="feat", dtype=np.float32)
    write_split(tmp_path, "dev", 3, ids=False)
    data = open_scan(tmp_path, splits={"train": "train", "dev": "dev"})
    _check_split(data.splits["train"], 6)
    assert (
        data.splits["train"].sources["image"].gather(np.array([0]))["regions"].dtype == np.float32
    )
    assert list(data.splits["dev"].ids["image"]) == ["0", "1", "2"]


def test_without_ids_identical_neighbouring_rows_are_one_image(tmp_path):
    write_split(tmp_path, "train", 6, repeated=True, ids=False)
    only_train = {"train": "train"}
    with pytest.warns(RuntimeWarning, match="holds 6 different rows of 30: identical"):
        found = open_scan(tmp_path, splits=only_train)
    for data in (found, open_scan(tmp_path, splits=only_train, captions_per_image=5)):
        _check_split(data.splits["train"], 6)
        assert list(data.splits["train"].ids["image"]) == ["0", "5", "10", "15", "20", "25"]
    data = open_scan(tmp_path, splits=only_train, captions_per_image=1)
    assert len(data.splits["train"].sources["image"]) == 30


def test_without_ids_different_rows_have_one_caption_each(tmp_path):
    write_split(tmp_path, "train", 30, ids=False, count=1)
    features = features_of(30)
    features[1] = features[0]  # two images of a set may be equal
    np.save(tmp_path / "train_ims.npy", features)
    vocabulary = Vocabulary((*MARKS, "image"))
    split = open_scan(tmp_path, splits={"train": "train"}, vocabulary=vocabulary).splits["train"]
    assert len(split.sources["image"]) == 30


def test_rejects_ids_that_number_the_rows_of_repeated_images(tmp_path):
    write_split(tmp_path, "train", 6, repeated=True, ids=False)
    (tmp_path / "train_ids.txt").write_text("".join(f"{i}\n" for i in range(30)))
    with pytest.raises(UserError, match=r"train_ids.txt gives rows 0 and 1 .* the ids 0 and 1"):
        open_scan(tmp_path, splits={"train": "train"})


def test_images_may_have_different_numbers_of_captions(tmp_path):
    write_split(tmp_path, "train", 3, repeated=True, count=2)
    (tmp_path / "train_ids.txt").write_text("a\na\na\nb\nc\nc\n")
    data = open_scan(tmp_path, splits={"train": "train"}, vocabulary=Vocabulary(MARKS))
    split = data.splits["train"]
    np.testing.assert_array_equal(split.rows["image"], [0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(split.sources["image"].rows, [0, 3, 4])
    assert list(split.ids["text"]) == ["a#0", "a#1", "a#2", "b#0", "c#0", "c#1"]


def test_vocabulary_is_of_train_and_dev_only(tmp_path):
    write_folder(tmp_path)
    for name, word in (("dev", "devword"), ("test", "testword")):
        path = tmp_path / f"{name}_caps.txt"
        path.write_text(path.read_text("utf-8").replace("shows", word), "utf-8")
    words = open_scan(tmp_path).vocabulary.words
    assert words[:4] == MARKS
    assert "devword" in words
    assert "shows" in words
    assert "testword" not in words
    assert "4" in words
    assert "6" not in words


def test_further_captions_count_towards_the_vocabulary_once(tmp_path):
    write_folder(tmp_path)
    rare = captions_of(0)[:3]
    (tmp_path / "train_caps.txt").write_text(
        "\n".join(["a zebra ."] * 3 + [c for i in range(9) for c in rare]) + "\n"
    )
    more = {str(image): ["a zebra .", "an okapi"] for image in range(4)}
    known = open_scan(tmp_path, vocabulary_captions=more).vocabulary
    assert "okapi" in known
    assert "zebra" not in known


def test_further_captions_of_held_out_images_do_not_count(tmp_path):
    write_folder(tmp_path)
    more = {"100": ["a quagga"] * 4, "200": ["an okapi"] * 4}  # 100 is an image of dev and test
    known = open_scan(tmp_path, vocabulary_captions=more).vocabulary
    assert "okapi" in known
    assert "quagga" not in known
    (tmp_path / "test_ids.txt").unlink()
    with pytest.raises(UserError, match=r"test_ids\.txt is missing, so captions of test images"):
        open_scan(tmp_path, vocabulary_captions=more, captions_per_image=5)


def test_evaluation_alone_with_the_test_file_of_another_name(tmp_path):
    vocabulary = open_scan(write_folder(tmp_path)).vocabulary
    for path in list(tmp_path.iterdir()):
        kind = path.name.partition("_")[2]
        if path.name.startswith("test"):
            path.rename(tmp_path / f"testall_{kind}")
        else:
            path.unlink()
    data = open_scan(tmp_path, vocabulary=vocabulary, splits={"test": "testall"})
    assert list(data.splits) == ["test"]
    _check_split(data.splits["test"], 4)
    with pytest.raises(UserError, match="no vocabulary can be built"):
        open_scan(tmp_path, splits={"test": "testall"})


def test_test_split_by_name(tmp_path):
    write_folder(tmp_path)
    write_split(tmp_path, "testall", 2, repeated=True)
    assert (
        len(open_scan(tmp_path, splits={"train": "train", "test": "testall"}).splits["test"]) == 10
    )


def test_long_captions_keep_their_end(tmp_path):
    split = open_scan(write_folder(tmp_path), max_words=4).splits["train"]
    found = split.sources["text"].gather(np.array([4]))
    assert found["lengths"].tolist() == [6]
    assert found["tokens"][0, -1] == 2
    assert split.sources["text"].lengths.max() == 6


def test_captions_are_padded_to_the_length_asked_for(tmp_path):
    split = open_scan(write_folder(tmp_path)).splits["train"]
    found = split.sources["text"].gather(np.array([4, 0]), 16)
    assert found["tokens"].shape == (2, 16)
    assert found["tokens"].dtype == found["lengths"].dtype == np.int32
    assert found["lengths"].tolist() == [11, 7]
    assert (found["tokens"][1] > 0).sum() == 7
    with pytest.raises(ValueError, match="does not fit"):
        split.sources["text"].gather(np.array([4]), 10)


def test_boxes_in_0_to_1(tmp_path):
    write_folder(tmp_path)
    boxes = np.sort(np.random.default_rng(0).random((6, REGIONS, 2, 2)), axis=2).reshape(6, -1, 4)
    np.save(tmp_path / "train_boxes.npy", boxes.astype(np.float32))
    split = open_scan(tmp_path, splits={"train": "train"}).splits["train"]
    for _ in range(2):  # a second visit gives the same: nothing is changed in place
        found = split.sources["image"].gather(np.array([5, 2]))["boxes"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, boxes[[5, 2]].astype(np.float32))


def test_boxes_in_pixels_of_repeated_images(tmp_path):
    write_split(tmp_path, "train", 2, repeated=True)
    pixels = np.tile(np.float32([50, 20, 100, 80]), (10, REGIONS, 1))
    sizes = np.repeat(np.array([[100, 80], [200, 160]]), 5, axis=0)
    np.save(tmp_path / "train_ims_bbx.npy", pixels)
    np.save(tmp_path / "train_ims_size.npy", sizes)
    vocabulary = Vocabulary(MARKS)
    split = open_scan(tmp_path, splits={"train": "train"}, vocabulary=vocabulary).splits["train"]
    found = split.sources["image"].gather(np.arange(2))["boxes"]
    np.testing.assert_allclose(found[0], np.tile([0.5, 0.25, 1.0, 1.0], (REGIONS, 1)))
    np.testing.assert_allclose(found[1], np.tile([0.25, 0.125, 0.5, 0.5], (REGIONS, 1)))


def test_fingerprint_follows_the_files(tmp_path):
    root = tmp_path / "a"
    root.mkdir()
    write_folder(root)
    first = open_scan(root).fingerprint
    shutil.copytree(root, tmp_path / "b")
    assert open_scan(tmp_path / "b").fingerprint == first
    path = root / "dev_caps.txt"
    path.write_text(path.read_text().replace("image 2", "image 1"))
    assert open_scan(root).fingerprint != first


def test_fingerprint_of_large_files_samples_both_ends(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(bytes(1 << 20))
    first = fingerprint([path])
    for position in (0, (1 << 20) - 1):
        content = bytearray(1 << 20)
        content[position] = 1
        path.write_bytes(content)
        assert fingerprint([path]) != first
    (tmp_path / "manifest.json").write_text("{}")
    manifest = fingerprint([path], tmp_path)
    path.write_bytes(b"other")
    assert fingerprint([path], tmp_path) == manifest


def test_real_flickr8k(real_data):
    data = open_scan(real_data / "flickr8k")
    sizes = {name: len(split.sources["image"]) for name, split in data.splits.items()}
    assert sizes == {"train": 6000, "dev": 1000, "test": 1000}
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 30000,
        "dev": 5000,
        "test": 5000,
    }
    test = data.splits["test"]
    assert test.ids["image"][0] == "3385593926_d3e9c21170"
    items = test.sources["image"].gather(np.array([0, 999]))
    stored = np.load(real_data / "flickr8k" / "test_ims.npy", mmap_mode="r")
    np.testing.assert_array_equal(items["regions"], stored[[0, 999]])
    assert items["regions"].min() < 0  # centred features
    assert items["boxes"].shape == (2, 36, 4)
