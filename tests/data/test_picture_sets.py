"""Pictures with captions in files: every layout, and every mistake with its own sentence."""

import json
import re
import warnings

import numpy as np
import pytest
from picture_files import write_picture

from hmgr_jax.data.pictures.captioned import open_pictures
from hmgr_jax.data.pictures.pixels import Augmentation
from hmgr_jax.data.pictures.sets import Settings
from hmgr_jax.errors import UserError

SPLITS = {"train": "train", "dev": "dev", "test": "test"}
SIZES = {"train": 6, "dev": 2, "test": 3}
SETTINGS = Settings(augmentation=Augmentation(size=8, resize=8))


def captions_of(name, number=5):
    return [f"a bird and a tree in {name} number {k}" for k in range(number)]


def names_of(split):
    return [f"{split}_{i}.jpg" for i in range(SIZES[split])]


def write_coco(root, split, names=None):
    names = names_of(split) if names is None else names
    images = [{"id": 100 * i + len(split), "file_name": name} for i, name in enumerate(names)]
    annotations = [
        {"id": 1000 * image["id"] + k, "image_id": image["id"], "caption": caption}
        for k in range(5)
        for image in images
        for caption in [captions_of(image["file_name"])[k]]
    ]
    found = {"images": images, "annotations": annotations}
    (root / f"captions_{split}.json").write_text(json.dumps(found), "utf-8")


@pytest.fixture
def root(tmp_path):
    """Pictures in two subfolders, captions in COCO's format."""
    for split in SPLITS:
        for i, name in enumerate(names_of(split)):
            write_picture(tmp_path / "images" / ("a" if i % 2 else "b") / name, i)
        write_coco(tmp_path, split)
    return tmp_path


def _open(root, **options):
    given = {"captions": "captions_{split}.json", "pictures": "images", "splits": SPLITS}
    return open_pictures(root, **{**given, "settings": SETTINGS, **options})


def _refused(root, sentence, **options):
    with pytest.raises(UserError, match=sentence) as found:
        _open(root, **options)
    assert "\n" not in str(found.value)


def _file(root, name):
    return next(root.glob(f"images/*/{name}"))


def test_coco_captions(root):
    data = _open(root)
    assert {role: len(split.sources["image"]) for role, split in data.splits.items()} == SIZES
    train = data.splits["train"]
    assert train.ids["image"] == names_of("train")
    assert train.ids["text"][7] == "train_1.jpg#2"
    assert train.sources["text"].captions[7] == captions_of("train_1.jpg")[2]
    np.testing.assert_array_equal(train.rows["image"], np.repeat(np.arange(6), 5))
    np.testing.assert_array_equal(train.groups["text"], np.repeat(np.arange(6), 5))
    assert train.numbers["image"].tolist() == [5, 105, 205, 305, 405, 505]
    assert train.numbers["text"][5:7].tolist() == [105000, 105001]
    assert train.sources["image"].gather(np.array([3]))["pixels"].shape == (1, 8, 8, 3)
    assert "bird" in data.vocabulary.words


def test_each_item_is_its_own_picture(root):
    data = _open(root)
    write_picture(root / "images" / "alone.png", 1)
    alone = root / "images" / "a" / "train_1.jpg"
    source = data.splits["train"].sources["image"]
    assert source.pictures.files[1] == alone
    pixels = source.gather(np.arange(6))["pixels"]
    assert len({p.tobytes() for p in pixels}) == 6


def test_karpathy(root):
    images = [
        {
            "filename": name,
            "split": "restval" if name == "train_5.jpg" else {"dev": "val"}.get(split, split),
            "cocoid": i,
            "sentences": [{"raw": caption, "tokens": []} for caption in captions_of(name)],
        }
        for split in SPLITS
        for i, name in enumerate(names_of(split))
    ]
    found = {"dataset": "coco", "images": images}
    (root / "dataset_coco.json").write_text(json.dumps(found), "utf-8")
    splits = SPLITS | {"test": "testall"}
    data = _open(root, captions="dataset_coco.json", splits=splits)
    assert {role: len(split.sources["image"]) for role, split in data.splits.items()} == SIZES
    fewer = _open(root, captions="dataset_coco.json", splits=splits, restval=False)
    assert len(fewer.splits["train"].sources["image"]) == 5
    assert "text" not in data.splits["train"].numbers  # sentids are not COCO's numbers
    _refused(root, r"has the splits train, dev, testall but no", captions="dataset_coco.json")


def write_prepared(root, uneven=False):
    for split in SPLITS:
        names = names_of(split)
        captions = [captions_of(name, 2 + (uneven and i % 2)) for i, name in enumerate(names)]
        lines = [caption for of in captions for caption in of]
        (root / f"{split}_ids.txt").write_text("\n".join(names) + "\n", "utf-8")
        (root / f"{split}_caps.txt").write_text("\n".join(lines) + "\n", "utf-8")
        if uneven:
            owners = [name for name, of in zip(names, captions, strict=True) for _ in of]
            (root / f"{split}_cap_ids.txt").write_text("\n".join(owners) + "\n", "utf-8")


@pytest.mark.parametrize("uneven", [False, True])
def test_prepared_folders(root, uneven):
    write_prepared(root, uneven)
    train = _open(root, captions="").splits["train"]
    counts = [2 + (uneven and i % 2) for i in range(6)]
    np.testing.assert_array_equal(np.bincount(train.rows["image"]), counts)
    assert train.sources["text"].captions[2] == captions_of("train_1.jpg")[0]
    last = train.sources["text"].captions[4]
    assert last == (captions_of("train_1.jpg")[2] if uneven else captions_of("train_2.jpg")[0])


def test_prepared_files_that_do_not_fit(root):
    write_prepared(root)
    with (root / "dev_caps.txt").open("a", encoding="utf-8") as file:
        file.write("one more\n")
    _refused(root, r"dev_caps\.txt has 5 captions for the 2 pictures .* cut short", captions="")
    write_prepared(root, uneven=True)
    path = root / "dev_cap_ids.txt"
    path.write_text("\n".join(reversed(path.read_text("utf-8").split())), "utf-8")
    _refused(root, r"dev_cap_ids\.txt does not name the pictures", captions="")
    (root / "dev_ids.txt").unlink()
    _refused(root, r"There is no .*dev_ids\.txt: give data\.captions", captions="")


def test_fewer_captions(root):
    train = _open(root, captions_per_image=2).splits["train"]
    assert len(train) == 12
    assert len(train.numbers["text"]) == 12
    _refused(root, "captions-per-image asks for 6", captions_per_image=6)


def test_no_such_picture(root):
    _file(root, "dev_1.jpg").unlink()
    sentence = r"captions_dev\.json, image 1 names dev_1\.jpg, but there is no such picture \(1 of"
    _refused(root, sentence)
    _refused(root, "is not a folder: give data.pictures", pictures="photos")


def test_a_file_that_is_no_picture(root):
    _file(root, "test_2.jpg").write_text("<html>not found</html>")
    _refused(root, r"test_2\.jpg is not a readable picture .*data\.corrupt=skip")


def test_a_picture_cut_short_is_refused_when_it_is_read(root):
    """Its head is whole, so nobody knows before."""
    path = _file(root, "train_3.jpg")
    path.write_bytes(path.read_bytes()[:-20])
    data = _open(root)
    with pytest.raises(UserError, match=r"train_3\.jpg is not a readable picture"):
        data.splits["train"].sources["image"].gather(np.arange(6))


def test_skipped_pictures_are_counted_and_leave_with_their_captions(root):
    path = _file(root, "train_3.jpg")
    path.write_bytes(path.read_bytes()[:-20])  # cut short
    _file(root, "train_1.jpg").write_bytes(b"")
    _file(root, "train_4.jpg").unlink()
    whole = Settings(augmentation=SETTINGS.augmentation, corrupt="skip")
    with pytest.warns(RuntimeWarning, match="3 of 6 pictures of train .*: train_1.jpg, train_3"):
        data = _open(root, settings=whole)
    train = data.splits["train"]
    assert train.ids["image"] == ["train_0.jpg", "train_2.jpg", "train_5.jpg"]
    assert len(train) == 15
    assert train.sources["text"].captions[5] == captions_of("train_2.jpg")[0]
    assert train.numbers["image"].tolist() == [5, 205, 505]
    train.sources["image"].gather(np.arange(3))


def test_nothing_is_skipped_where_all_can_be_read(root):
    whole = Settings(augmentation=SETTINGS.augmentation, corrupt="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _open(root, settings=whole).fingerprint == _open(root).fingerprint


def test_a_split_without_any_picture_left(root):
    for name in names_of("dev"):
        _file(root, name).unlink()
    _refused(
        root,
        "None of the 2 pictures of dev can be read",
        settings=Settings(augmentation=SETTINGS.augmentation, corrupt="skip"),
    )


def test_splits_that_overlap(root):
    write_coco(root, "dev", [*names_of("dev"), "train_2.jpg"])
    sentence = r"captions_dev\.json, image 2 puts train_2\.jpg into dev, but .* puts it into train"
    _refused(root, sentence)


def test_one_file_without_splits(root):
    _refused(root, "does not name the split", captions="captions_train.json")


def test_the_fingerprint_knows_lists_and_sizes_of_pictures(root):
    first = _open(root).fingerprint
    assert _open(root).fingerprint == first
    write_picture(_file(root, "train_0.jpg"), 77, 50, 50)
    second = _open(root).fingerprint
    assert second != first
    path = root / "captions_dev.json"
    path.write_text(re.sub("bird", "crow", path.read_text("utf-8")), "utf-8")
    assert _open(root).fingerprint != second


def test_real_pictures(real_data):
    data = open_pictures(
        real_data / "f8k_images",
        splits=SPLITS,
        captions="captions_{split}.json",
        pictures="images",
        settings=Settings(augmentation=Augmentation(size=32, resize=36)),
    )
    assert [len(split.sources["image"]) for split in data.splits.values()] == [762, 113, 125]
    assert [len(split) for split in data.splits.values()] == [3810, 565, 625]
    pixels = data.splits["dev"].sources["image"].gather(np.arange(0, 113, 4))["pixels"]
    assert abs(float(pixels.mean())) < 0.5  # photographs are about as bright as ImageNet's
    assert 0.7 < float(pixels.std()) < 1.5
