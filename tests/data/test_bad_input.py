"""Every mistake in a folder has its own sentence: what was expected, what was found, where."""

import re

import numpy as np
import pytest
from scan_folders import FEATURES, REGIONS, write_folder, write_split

from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.regions import regions
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.flickr8k import read_flickr8k
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import FoundNonFinite, UserError


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path)


def _refused(root, sentence, error=UserError, **options):
    with pytest.raises(error, match=sentence) as found:
        open_scan(root, **options)
    assert "\n" not in str(found.value)


def _rewrite(path, change):
    lines = path.read_text("utf-8").split("\n")
    change(lines)
    path.write_text("\n".join(lines), "utf-8")


def test_missing_folder(tmp_path):
    with pytest.raises(UserError) as found:
        open_scan(tmp_path / "none")
    for name in ("train_ims.npy", "train_caps.txt", "dev_ims.npy", "test_caps.txt"):
        assert name in str(found.value)
    assert "is not a folder" in str(found.value)


def test_missing_files_are_listed_at_once(root):
    (root / "dev_ims.npy").unlink()
    (root / "test_caps.txt").unlink()
    _refused(root, r"lacks dev_ims\.npy \(or dev_feat\.npy\), test_caps\.txt: put")


def test_captions_are_no_multiple_of_the_images(root):
    _rewrite(root / "train_caps.txt", lambda lines: lines.pop(0))
    _refused(root, r"train_caps\.txt has 29 captions for 6 rows .* cut short")


def test_captions_of_repeated_images_must_be_as_many_as_the_rows(root):
    _rewrite(root / "test_caps.txt", lambda lines: lines.pop(0))
    _refused(root, r"test_caps\.txt has 19 captions but .*once per caption in 20 rows")


def test_captions_per_image_must_agree(root):
    _refused(root, r"has 5 captions for each row .* not the 3", captions_per_image=3)
    _refused(root, "must be at least 1", captions_per_image=0)


def test_captions_per_image_must_agree_with_the_ids(root):
    train = {"train": "test"}
    _refused(root, r"test_ids\.txt:1 has 100 5 times", captions_per_image=4, splits=train)


def test_captions_per_image_must_divide_the_rows(tmp_path):
    write_split(tmp_path, "train", 7, ids=False, count=1)
    _refused(
        tmp_path,
        "has 7 rows, not a multiple of captions_per_image, 2",
        captions_per_image=2,
        splits={"train": "train"},
    )


def test_ids_are_as_many_as_rows(root):
    _rewrite(root / "train_ids.txt", lambda lines: lines.pop(0))
    _refused(root, r"train_ids\.txt has 5 lines but .*train_ims\.npy has 6 rows")


def test_an_id_that_comes_back(root):
    _rewrite(root / "test_ids.txt", lambda lines: lines.__setitem__(12, "100"))
    _refused(root, r"test_ids\.txt:13 repeats 100 of line 1 after other ids")


def test_an_id_that_comes_back_in_train(root):
    _rewrite(root / "train_ids.txt", lambda lines: lines.__setitem__(5, "100"))
    _refused(root, r"train_ids\.txt:6 repeats 100 of line 1")


def test_equal_ids_where_images_are_stored_once(root):
    _rewrite(root / "train_ids.txt", lambda lines: lines.__setitem__(1, "100"))
    _refused(root, r"train_caps\.txt has 30 captions but .* in 6 rows")


def test_an_empty_caption(root):
    _rewrite(root / "dev_caps.txt", lambda lines: lines.__setitem__(6, "  "))
    _refused(root, r"dev_caps\.txt:7 is empty")


def test_captions_that_are_not_utf8(root):
    path = root / "train_caps.txt"
    path.write_bytes(path.read_bytes().replace(b"image 3", b"imag\xe9 3", 1))
    _refused(root, r"train_caps\.txt:16 is not UTF-8 \(byte 5 of the line\)")


def test_an_empty_caption_file(root):
    (root / "train_caps.txt").write_text("")
    _refused(root, "has 0 captions for 6 rows", vocabulary=Vocabulary(MARKS))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nonfinite_features_are_found_at_opening(root, value, dtype):
    features = np.ones((6, REGIONS, FEATURES), dtype)
    features[4, 2, 1] = value
    np.save(root / "train_ims.npy", features)
    _refused(root, r"train_ims\.npy, row 4 .*holds NaN or infinity", FoundNonFinite)


def test_nonfinite_features_of_large_files_are_found_when_read(root, monkeypatch):
    monkeypatch.setattr(regions, "SCAN_BELOW", 0)
    features = np.ones((20, REGIONS, FEATURES), np.float16)
    features[10, 0, 0] = np.nan
    np.save(root / "test_ims.npy", features)
    split = open_scan(root).splits["test"]
    split.sources["image"].gather(np.array([0, 1, 3]))
    with pytest.raises(FoundNonFinite, match=r"test_ims\.npy, row 10 "):
        split.sources["image"].gather(np.array([1, 2]))


def test_nonfinite_features_stop_the_pipeline(root, monkeypatch):
    monkeypatch.setattr(regions, "SCAN_BELOW", 0)
    features = np.full((6, REGIONS, FEATURES), np.nan, np.float16)
    np.save(root / "train_ims.npy", features)
    stream = batches(open_scan(root).splits["train"], batch_size=8, seed=0, steps=3)
    with pytest.raises(FoundNonFinite):
        next(iter(stream))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((6, 15), np.float16), r"shape \(6, 15\) where \[rows, regions, features\]"),
        (np.zeros((6, 3, 0), np.float16), r"shape \(6, 3, 0\)"),
        (np.zeros((6, 3, 5), np.int32), "holds int32 where floating-point numbers"),
        (np.asfortranarray(np.zeros((6, 3, 5), np.float32)), "Fortran order"),
    ],
)
def test_features_of_another_kind(root, array, sentence):
    np.save(root / "train_ims.npy", array)
    _refused(root, sentence)


def test_truncated_features(root):
    path = root / "test_ims.npy"
    path.write_bytes(path.read_bytes()[:-1])
    _refused(root, rf"{re.escape(str(path))} is truncated")


def test_splits_of_different_feature_sizes(root):
    np.save(root / "dev_ims.npy", np.zeros((15, REGIONS, FEATURES + 1), np.float16))
    _refused(root, r"train_ims\.npy has 5 features per region but .*dev_ims\.npy has 6")


def test_no_frequent_word(root):
    (root / "train_caps.txt").write_text("\n".join(f"word{i}" for i in range(30)))
    _refused(root, "no word occurs 4 times", splits={"train": "train"})


def _boxes(rows, value=(0.0, 0.0, 1.0, 1.0)):
    return np.tile(np.float32(value), (rows, REGIONS, 1))


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        (_boxes(5), r"shape \(5, 3, 4\) .* shape \(6, 3, 4\)"),
        (_boxes(6)[..., :3], r"shape \(6, 3, 3\)"),
        (_boxes(6, (0, 0, 50, 40)), "holds in row 0 boxes from 0 to 50"),
        (_boxes(6, (0.5, 0, 0.2, 1)), "holds in row 0 boxes"),
        (_boxes(6, (np.nan, 0, 0.2, 1)), "holds in row 0 boxes from nan"),
    ],
)
def test_boxes_of_another_kind(root, boxes, sentence):
    np.save(root / "train_boxes.npy", boxes)
    _refused(root, rf"train_boxes\.npy.*{sentence}", splits={"train": "train"})


def test_boxes_of_some_splits_only(root):
    np.save(root / "train_boxes.npy", _boxes(6))
    _refused(root, r"train_boxes\.npy has no counterpart for the dev split")


def test_pixel_boxes_need_sizes(root):
    np.save(root / "train_ims_bbx.npy", _boxes(6, (0, 0, 50, 40)))
    train = {"train": "train"}
    _refused(root, r"train_ims_size\.npy is missing", splits=train)
    np.save(root / "train_ims_size.npy", np.zeros((6, 2), np.int32))
    _refused(root, "an image size that is not positive", splits=train)
    np.save(root / "train_ims_size.npy", np.array([{"image_w": 1}] * 6), allow_pickle=True)
    _refused(root, "pickled objects", splits=train)


def test_flickr8k_text(tmp_path):
    tokens, images = tmp_path / "tokens.txt", tmp_path / "images.txt"
    tokens.write_text("b.jpg#1\tsecond b .\nb.jpg#0\tfirst b .\na.jpg#0\tan a\nc.jpg#0\ta c\n")
    images.write_text("b.jpg\na.jpg\n")
    assert read_flickr8k(tokens, images) == {
        "b.jpg": ["first b .", "second b ."],
        "a.jpg": ["an a"],
    }
    images.write_text("b.jpg\nd.jpg\n")
    with pytest.raises(UserError, match=r"no caption of d\.jpg"):
        read_flickr8k(tokens, images)
    images.write_text("b.jpg\nb.jpg\n")
    with pytest.raises(UserError, match=r"images\.txt:2 lists b\.jpg again"):
        read_flickr8k(tokens, images)
    images.write_text("b.jpg\n")
    tokens.write_text("b.jpg#0\tfine .\nb.jpg a caption\n")
    with pytest.raises(UserError, match=r'tokens\.txt:2 is not "name#number'):
        read_flickr8k(tokens, images)
    with pytest.raises(UserError, match="cannot be read"):
        read_flickr8k(tokens, tmp_path / "none.txt")


def test_flickr8k_text_as_published(real_data):
    folder = real_data / "f8k_text"
    found = read_flickr8k(folder / "Flickr8k.token.txt", folder / "Flickr_8k.trainImages.txt")
    assert len(found) == 6000
    assert {len(captions) for captions in found.values()} == {5}
