"""TSV files of bottom-up attention: three sets of columns, gzip, any order, refusals."""

import gzip
import json

import numpy as np
import pytest
from preparing import boxes, captions_of, check, check_ragged, karpathy, prepare, text, tsv_line

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.bottom_up import Line, decode

NUMBERS = [3, 0, 4, 2, 5, 1]


def write(path, numbers=NUMBERS, change=None, **options):
    lines = [tsv_line(n, **options) for n in numbers]
    if change:
        change(lines)
    path.write_text("".join(lines))
    return path


@pytest.fixture
def captions(tmp_path):
    return karpathy(tmp_path / "dataset_flickr8k.json")


def _check(out, *, train=(0, 1, 2)):
    names = [f"pic_{n}.jpg" for n in train]
    check(out, "train", list(train), names, [captions_of(n) for n in train])
    check(out, "dev", [3], ["pic_3.jpg"], [captions_of(3)])
    check(out, "test", [4], ["pic_4.jpg"], [captions_of(4)])


def _command(source, captions, out, *more):
    return ("bottom-up", "--source", *source, "--captions", captions, "--out", out, *more)


def test_lines_in_any_order_are_joined_by_id(tmp_path, captions):
    source = write(tmp_path / "a.tsv")
    assert prepare(*_command([source], captions, tmp_path / "out")) == 0
    _check(tmp_path / "out")
    # Image 1 has two captions, the others one.
    assert (tmp_path / "out/train_cap_ids.txt").read_text().split() == [
        "pic_0.jpg", "pic_1.jpg", "pic_1.jpg", "pic_2.jpg",
    ]  # fmt: skip
    assert not (tmp_path / "out/dev_cap_ids.txt").exists()


@pytest.mark.parametrize("objects", ["after", "lxmert"])
def test_objects_and_attributes(tmp_path, captions, objects):
    source = write(tmp_path / "a.tsv", objects=objects)
    assert prepare(*_command([source], captions, tmp_path / "out")) == 0
    _check(tmp_path / "out")
    labels = np.load(tmp_path / "out/train_labels.npy")
    np.testing.assert_array_equal(labels, [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]])
    assert labels.dtype == np.int16
    assert (np.load(tmp_path / "out/train_attribute_scores.npy") == 0.25).all()


def test_several_files_gzipped_with_a_line_of_names_and_a_repeated_line(tmp_path, captions):
    first, second = tmp_path / "a.tsv.0", tmp_path / "b.tsv.gz"
    names = "image_id\timage_w\timage_h\tnum_boxes\tboxes\tfeatures\n"
    first.write_text(names + tsv_line(0) + tsv_line(4))
    rest = [tsv_line(n) for n in (1, 2, 3, 4)]
    second.write_bytes(gzip.compress("".join(rest).encode()))
    assert prepare(*_command([first, second], captions, tmp_path / "out")) == 0
    _check(tmp_path / "out")


def test_ids_may_be_file_names_and_restval_may_train(tmp_path, captions):
    lines = [tsv_line(n, f"pic_{n}") for n in NUMBERS]
    (tmp_path / "a.tsv").write_text("".join(lines))
    command = _command([tmp_path / "a.tsv"], captions, tmp_path / "out", "--restval")
    assert prepare(*command) == 0
    _check(tmp_path / "out", train=(0, 1, 2, 5))


def _of_many_sizes(path):
    path.write_text("".join(tsv_line(n, regions=2 + n, objects="after") for n in NUMBERS))
    return path


def test_images_of_different_numbers_of_boxes(tmp_path, captions):
    source, out = _of_many_sizes(tmp_path / "a.tsv"), tmp_path / "out"
    assert prepare(*_command([source], captions, out)) == 0
    most = 6  # of image 4 (of test): all splits are as wide; image 5 is of restval
    for split, numbers in (("train", [0, 1, 2]), ("dev", [3]), ("test", [4])):
        check_ragged(out, split, numbers, [2 + n for n in numbers], most)
        assert np.load(out / f"{split}_labels.npy")[0].tolist() == [
            *range(numbers[0], 2 * numbers[0] + 2), *[-1] * (most - 2 - numbers[0])
        ]  # fmt: skip
    described = json.loads((out / "manifest.json").read_text())["splits"]
    assert described["train"]["regions_per_image"] == [2, 4]
    assert described["dev"]["regions_per_image"] == [5, 5]
    assert described["dev"]["regions"] == most
    assert prepare("--verify", out) == 0


@pytest.mark.parametrize(("cut", "counts"), [(3, [2, 3, 3]), (9, [2, 3, 4]), (2, None)])
def test_the_most_boxes_that_are_kept(tmp_path, captions, cut, counts):
    source, out = _of_many_sizes(tmp_path / "a.tsv"), tmp_path / "out"
    assert prepare(*_command([source], captions, out, "--regions", str(cut))) == 0
    if counts is None:  # all images have so many, which needs no file
        assert not (out / "train_counts.npy").exists()
        assert np.load(out / "train_ims.npy").shape == (3, 2, 6)
    else:
        check_ragged(out, "train", [0, 1, 2], counts, min(cut, 6))


def test_a_prepared_folder_of_many_sizes_is_carried_through(tmp_path, captions):
    source = _of_many_sizes(tmp_path / "a.tsv")
    assert prepare(*_command([source], captions, tmp_path / "out")) == 0
    assert prepare("scan", "--source", tmp_path / "out", "--out", tmp_path / "again") == 0
    both = [(tmp_path / name / "manifest.json").read_bytes() for name in ("out", "again")]
    assert both[0] == both[1]


def _cut(lines):
    lines[2] = lines[2][:-33] + "\n"


def _no_base64(lines):
    lines[1] = lines[1].replace("\t4\t", "\t4\t!", 1)


def _same_id(lines):
    lines[3] = tsv_line(5, 1000)


def _few_columns(lines):
    lines[1] = lines[1].replace("\t", " ", 1)


def _no_width(lines):
    lines[0] = lines[0].replace("\t40\t", "\tforty\t")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_cut, ("a.tsv:3 holds", "bytes of features for 4 boxes", "cut short")),
        (_no_base64, ("a.tsv:2 holds boxes that is not base64",)),
        (_same_id, ("a.tsv:4 is image 1000 again", "a.tsv:2")),
        (_few_columns, ("a.tsv:2 has 5 columns where 6",)),
        (_no_width, ("a.tsv:1 has 'forty' as image_w",)),
        (lambda lines: lines.pop(5), ("no features of '1007'", "image 1", "by cocoid")),
    ],
)
def test_rejects_malformed_files(tmp_path, captions, refused, change, parts):
    source = write(tmp_path / "a.tsv", change=change)
    refused(parts, *_command([source], captions, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_lines_of_images_that_nobody_asked_for_do_not_matter(tmp_path, captions):
    other = tsv_line(0, 7)
    lines = [other[:-33] + "\n", *map(tsv_line, NUMBERS), "a\tb\n", other, tsv_line(1, 7), "\r\n"]
    (tmp_path / "a.tsv").write_text("".join(lines))
    assert prepare(*_command([tmp_path / "a.tsv"], captions, tmp_path / "out")) == 0
    _check(tmp_path / "out")


@pytest.mark.parametrize("stored", ["<f2", "<f4", "<f8"])
def test_the_type_of_the_features_follows_from_their_values(stored):
    features = np.maximum(np.random.default_rng(0).normal(size=(6, 32)), 0).astype(stored)
    cells = tsv_line(0, regions=6).split("\t")
    boxed = [*cells[:4], text(boxes(6, 40, 20).astype("<f8")), text(features)]
    line = Line("a.tsv:1", [cell.encode() for cell in boxed], 0, 0)
    for found in (decode(line), decode(line, 32)):
        np.testing.assert_array_equal(found["ims"], features)
        np.testing.assert_allclose(found["boxes"], boxes(6), atol=1e-6)
    with pytest.raises(UserError, match="which are not 31 numbers a box of 2, 4, 8 bytes"):
        decode(line, 31)


def test_labels_that_do_not_fit(tmp_path, captions, refused):
    lines = [tsv_line(n + (40000 if n == 2 else 0), objects="after") for n in NUMBERS]
    (tmp_path / "a.tsv").write_text("".join(x.replace("281014", "1014", 1) for x in lines))
    command = _command([tmp_path / "a.tsv"], captions, tmp_path / "out")
    refused(("a.tsv:4 holds labels of 40002 where -1 to 32767 was expected",), *command)


def test_lines_of_two_extractions(tmp_path, captions, refused):
    lines = [tsv_line(n, objects=None if n == 1 else "after") for n in NUMBERS]
    (tmp_path / "a.tsv").write_text("".join(lines))
    command = _command([tmp_path / "a.tsv"], captions, tmp_path / "out")
    refused(("a.tsv:6 holds no labels where others do", "one extraction"), *command)


def test_boxes_outside_the_picture(tmp_path, captions, refused):
    source = tmp_path / "a.tsv"
    source.write_text("".join(tsv_line(n).replace("\t40\t", "\t10\t") for n in NUMBERS))
    refused(("a.tsv:", "boxes from 0 to 4"), *_command([source], captions, tmp_path / "out"))


def test_files_that_are_no_tsv(tmp_path, captions, refused):
    out = tmp_path / "out"
    archive, cut = tmp_path / "a.zip", tmp_path / "cut.tsv.gz"
    archive.write_bytes(b"PK\x03\x04 and so on")
    refused("a.zip is a zip archive: unpack it", *_command([archive], captions, out))
    cut.write_bytes(gzip.compress("".join(tsv_line(n) for n in NUMBERS).encode())[:-40])
    refused(("cut.tsv.gz ends or breaks", "not copied whole"), *_command([cut], captions, out))
    (tmp_path / "empty.tsv").write_text("")
    refused("holds no images", *_command([tmp_path / "empty.tsv"], captions, out))
    refused("none.tsv is no file", *_command([tmp_path / "none.tsv"], captions, out))
