"""Captions in COCO's own format, a file a split or one for all; and files of captions a split."""

import json

import numpy as np
import pytest
from preparing import boxes, check, prepare, tsv_line, values

NUMBERS = {"train": [0, 1, 2], "dev": [3], "test": [4]}


def coco(path, numbers, change=None):
    """A COCO file of images ``{1000 + 7 n: pic_n.jpg}``, a caption each, of the first two."""
    images = [{"id": 1000 + 7 * n, "file_name": f"pic_{n}.jpg", "width": 4} for n in numbers]
    captions = [(n, f"a picture {n} .") for n in (*numbers, numbers[0])]
    found = {
        "info": {},
        "images": images,
        "annotations": [
            {"id": i, "image_id": 1000 + 7 * n, "caption": f" {text}\n"}
            for i, (n, text) in enumerate(captions)
        ],
    }
    if change:
        change(found)
    path.write_text(json.dumps(found))
    return path


def _texts(numbers):
    return [[f"a picture {n} ."] * (2 if n == numbers[0] else 1) for n in numbers]


@pytest.fixture
def features(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    for n in range(5):
        np.savez(root / f"{1000 + 7 * n:012d}.npz", features=values(n), boxes=boxes())
    return root


@pytest.fixture
def files(tmp_path):
    return [f"{split}={coco(tmp_path / f'captions_{split}.json', of)}" for split, of in
            NUMBERS.items()]  # fmt: skip


def _command(features, files, out, *more):
    return ("folder", "--features", features, "--captions", *files, "--out", out, *more)


def _check(out):
    for split, numbers in NUMBERS.items():
        check(out, split, numbers, [f"pic_{n}.jpg" for n in numbers], _texts(numbers))


def test_a_file_a_split(tmp_path, features, files):
    assert prepare(*_command(features, files, tmp_path / "out")) == 0
    _check(tmp_path / "out")


def test_the_flag_may_be_repeated_and_bottom_up_takes_it_too(tmp_path, files):
    source = tmp_path / "a.tsv"
    source.write_text("".join(tsv_line(n) for n in range(5)))
    captions = [part for file in files for part in ("--captions", file)]
    command = ("bottom-up", "--source", source, *captions, "--out", tmp_path / "out")
    assert prepare(*command) == 0
    _check(tmp_path / "out")


def test_one_file_is_split_by_shares(tmp_path, features):
    path = coco(tmp_path / "all.json", range(5))
    shares = ("--dev", "0.2", "--test", "0.2")
    assert prepare(*_command(features, [path], tmp_path / "out", *shares)) == 0
    found = [(tmp_path / f"out/{name}_ids.txt").read_text().split() for name in NUMBERS]
    assert [len(ids) for ids in found] == [3, 1, 1]


def test_tables_may_be_a_file_a_split_too(tmp_path, features):
    files = []
    for split, numbers in NUMBERS.items():
        path = tmp_path / f"{split}.csv"
        path.write_text(
            "image,caption\n" + "".join(f"{1000 + 7 * n:012d},c {n}\n" for n in numbers)
        )
        files.append(f"{split}={path}")
    assert prepare(*_command(features, files, tmp_path / "out")) == 0
    names = [f"{1000 + 7 * n:012d}" for n in NUMBERS["train"]]
    check(tmp_path / "out", "train", NUMBERS["train"], names, [[f"c {n}"] for n in range(3)])


def _unknown(found):
    found["annotations"][2]["image_id"] = 77


def _empty(found):
    found["annotations"][1]["caption"] = " \n"


def _same_annotation(found):
    found["annotations"][3]["id"] = 0


def _same_image(found):
    found["images"][2]["id"] = 1000


def _same_name(found):
    found["images"][2]["file_name"] = "pic_1.jpg"


def _no_captions(found):
    found["annotations"] = [a for a in found["annotations"] if a["image_id"] != 1007]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_unknown, ("annotation 2 is of image 77, which is not among the 3 images",)),
        (_empty, ("annotation 1 has ' \\n' for a caption",)),
        (_same_annotation, ("annotation 3 repeats the id 0 of", "annotation 0: remove one")),
        (_same_image, ("image 2 repeats the id 1000 of", "image 0: remove one")),
        (_same_name, ("image 2 lists pic_1.jpg again", "image 1: each must")),
        (_no_captions, ("image 1 (pic_1.jpg) has no annotation",)),
        (lambda found: found["images"][1].pop("file_name"), ("image 1 (counted from 0) lacks 'f",)),
        (lambda found: found["annotations"][1].pop("image_id"), ("annotation 1", "'image_id'")),
        (lambda found: found["images"].clear(), ("holds no list 'images'",)),
    ],
)
def test_rejects_malformed_files(tmp_path, features, refused, change, parts):
    path = coco(tmp_path / "captions_train.json", NUMBERS["train"], change)
    line = refused(parts, *_command(features, [f"train={path}"], tmp_path / "out"))
    assert "captions_train.json" in line
    assert not (tmp_path / "out").exists()


def test_rejects_an_image_in_two_files_and_a_split_given_twice(tmp_path, features, files, refused):
    again = f"dev={coco(tmp_path / 'again.json', [2])}"
    refused(
        ("again.json, image 0 lists pic_2.jpg again", "captions_train.json, image 2"),
        *_command(features, [*files, again], tmp_path / "out"),
    )
    table = tmp_path / "c.csv"
    table.write_text("image,caption,split\npic_0.jpg,a,test\n")
    refused(
        ("c.csv:2 has pic_0.jpg in the split test where --captions says train",),
        *_command(features, [f"train={table}"], tmp_path / "out"),
    )
    lonely = f"train={coco(tmp_path / 'lonely.json', [9])}"
    refused("no features of", *_command(features, [lonely], tmp_path / "out"))


def test_the_captions_of_flickr8k(real_data, tmp_path):
    """COCO's files of the real pictures give the rows that SCAN's files give."""
    raw = real_data / "flickr8k"
    if not raw.is_dir():
        pytest.skip(f"no flickr8k in {real_data}")
    command = ("folder", "--features", raw / "dev_ims.npy", "--out", tmp_path / "coco")
    assert prepare(*command, "--captions", f"dev={raw / 'captions_dev.json'}") == 0
    scan = ("scan", "--source", raw, "--splits", "dev", "--out", tmp_path / "scan")
    assert prepare(*scan) == 0
    for name in ("dev_ims.npy", "dev_caps.txt"):
        both = [(tmp_path / folder / name).read_bytes() for folder in ("coco", "scan")]
        assert both[0] == both[1], name
    ids = [(tmp_path / folder / "dev_ids.txt").read_text() for folder in ("coco", "scan")]
    assert ids[0].replace(".jpg\n", "\n") == ids[1]
