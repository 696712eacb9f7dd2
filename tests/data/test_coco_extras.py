"""Objects of images and numbers of captions, from COCO's own files."""

import json

import numpy as np
import pytest
from picture_files import write_picture
from test_picture_sets import SETTINGS, SIZES, SPLITS, captions_of, names_of, write_coco

from hmgr_jax.data.pictures.captioned import open_pictures
from hmgr_jax.data.pictures.coco_extras import with_numbers, with_objects
from hmgr_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    for split in SPLITS:
        for i, name in enumerate(names_of(split)):
            write_picture(tmp_path / name, i)
        write_coco(tmp_path, split)
    return tmp_path


@pytest.fixture
def data(root):
    return open_pictures(root, captions="captions_{split}.json", splits=SPLITS, settings=SETTINGS)


def write_objects(root, pairs, name="instances.json"):
    found = {
        "annotations": [
            {"image_id": image, "category_id": kind, "segmentation": [[1.5, 2.5]], "bbox": [0] * 4}
            for image, kind in pairs
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / name).write_text(json.dumps(found), "utf-8")
    return root / name


def test_objects(root, data):
    """Dev's images are numbered 3, 103; test's 4, 104, 204."""
    path = write_objects(root, [(3, 1), (3, 90), (3, 1), (204, 18), (999, 2)])
    splits = with_objects(data, path).splits
    dev = splits["dev"].labels["image"]
    assert dev.shape == (2, 90)
    assert np.flatnonzero(dev[0]).tolist() == [0, 89]
    assert not dev[1].any()
    test = splits["test"].labels
    assert np.flatnonzero(test["image"][2]).tolist() == [17]
    assert not test["text"][:10].any()
    np.testing.assert_array_equal(test["text"][10:], np.repeat(test["image"][2:], 5, axis=0))
    assert not splits["train"].labels
    assert splits["test"].about["labels"] is test


def test_rejects_bad_objects(root, data):
    with pytest.raises(UserError, match="lists none of the 2 images of dev"):
        with_objects(data, write_objects(root, [(999, 2)]))
    with pytest.raises(UserError, match="category_id 91 of image 3"):
        with_objects(data, write_objects(root, [(3, 91)]))
    with pytest.raises(UserError, match="holds no list 'annotations' with image_id"):
        with_objects(data, root / "captions_dev.json")
    with pytest.raises(UserError, match="cannot be read"):
        with_objects(data, root / "none.json")


def write_karpathy(root, change=str):
    images = [
        {
            "filename": name,
            "split": {"dev": "val"}.get(split, split),
            "cocoid": 100 * i + len(split),
            "sentences": [{"raw": change(caption)} for caption in captions_of(name)],
        }
        for split in SPLITS
        for i, name in enumerate(names_of(split))
    ]
    (root / "karpathy.json").write_text(json.dumps({"images": images}), "utf-8")
    return open_pictures(root, captions="karpathy.json", splits=SPLITS, settings=SETTINGS)


def test_numbers_of_captions_by_their_text(root, data):
    write_coco(root, "both", [*names_of("dev"), *names_of("test")])
    path = root / "captions_both.json"
    found = json.loads(path.read_text("utf-8"))
    numbers = [3, 103, 4, 104, 204]
    renamed = {image["id"]: n for image, n in zip(found["images"], numbers, strict=True)}
    for image in found["images"]:
        image["id"] = renamed[image["id"]]
    for k, annotation in enumerate(found["annotations"]):
        annotation["image_id"] = renamed[annotation["image_id"]]
        annotation["id"] = 7000 + k
    path.write_text(json.dumps(found), "utf-8")
    splits = with_numbers(write_karpathy(root), path).splits
    known = {(a["image_id"], a["caption"]): a["id"] for a in found["annotations"]}
    for role, first in (("dev", 0), ("test", 2)):
        of = splits[role]
        captions = of.sources["text"].captions
        wanted = [known[numbers[first + j // 5], captions[j]] for j in range(5 * SIZES[role])]
        assert of.numbers["text"].tolist() == wanted
    with pytest.raises(UserError, match=r"has no caption .* of image 3, which is dev_0\.jpg#0"):
        with_numbers(write_karpathy(root, str.upper), path)
