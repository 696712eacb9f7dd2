"""Which file a name stands for, and files that are damaged."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.pictures.files import PictureFolder, pictures_below
from hmgr_jax.errors import UserError


def test_a_png_whose_chunks_are_damaged(tmp_path):
    """Pillow raises a SyntaxError there."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    head, first, second, *rest = (tmp_path / "a.png").read_bytes().split(b"IDAT")
    damaged = b"IDAT".join([head, first, second]) + b"\x01\x02\x03\x04" + b"IDAT".join(rest)
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(UserError, match=r"a\.png is not a readable picture"):
        load_picture(tmp_path / "a.png")


def test_a_name_stands_for_one_file(tmp_path):
    for name in ("dogs/1.jpg", "cats/2.jpg", "deep/cats/3.jpg", "4.jpg", "a/5.jpg", "b/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = PictureFolder(tmp_path)

    def found(name):
        file = folder.find(name)
        return file and file.relative_to(tmp_path).as_posix()

    assert found("cats/1.jpg") is None  # not the one of dogs
    assert found("cats/2.jpg") == "cats/2.jpg"
    assert found("cats/3.jpg") == "deep/cats/3.jpg"
    assert found("val2014/4.jpg") == "4.jpg"
    assert found("1.jpg") == found("1") == found("dogs/1") == "dogs/1.jpg"
    assert found("6.jpg") is None
    with pytest.raises(UserError, match=r"5\.jpg may be .*a/5\.jpg or .*b/5\.jpg: name pictures"):
        folder.find("5.jpg")


def test_a_name_of_the_folder_itself_comes_first(tmp_path):
    for name in ("1.jpg", "a/1.jpg", "2.jpg", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = PictureFolder(tmp_path, "--images")
    assert folder.find("1") == tmp_path / "1.jpg"
    with pytest.raises(UserError, match=r"2 may be .*2\.jpg or .*2\.png: .* or give --images one"):
        folder.find("2")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_the_same_in_both_forms_of_unicode(tmp_path, form):
    file = tmp_path / unicodedata.normalize(form, "été/café.jpg")
    file.parent.mkdir()
    file.touch()
    for other in ("NFC", "NFD"):
        for name in ("été/café.jpg", "café.jpg", "café"):
            assert PictureFolder(tmp_path).find(unicodedata.normalize(other, name)) == file


def test_every_folder_is_read_once_and_endings_have_no_case(tmp_path):
    """Real folders come before links to them, whatever their names."""
    kinds = ("webp", "bmp", "tif", "TIFF", "gif", "Jpg", "jfif", "png", "jpeg", "avif")
    names = [f"zoo/{number}.{kind}" for number, kind in enumerate(kinds)]
    others = [".hidden.jpg", "._a.jpg", ".git/b.jpg", "c.txt", "d.eps", "e.svg"]
    for name in [*names, *others]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f.jpg").touch()
    (tmp_path / "in/album").symlink_to(tmp_path / "in/zoo")  # read already
    (tmp_path / "in/zoo/up").symlink_to(tmp_path / "in")  # a loop
    (tmp_path / "in/beyond").symlink_to(tmp_path / "out")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere")
    found = [
        path.relative_to(tmp_path / "in").as_posix() for path in pictures_below(tmp_path / "in")
    ]
    assert found == sorted(["beyond/f.jpg", "gone.jpg", *names])


def test_pictures_that_are_not_read_are_named(tmp_path):
    for name in ("a.HEIC", "b.heif", "c.jpg"):
        (tmp_path / name).touch()
    with pytest.warns(RuntimeWarning, match=r"2 of 3 pictures in .* HEIC, .*: a\.HEIC, b\.heif;"):
        assert pictures_below(tmp_path) == [tmp_path / "c.jpg"]


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch):
    for name in ("a", "b", "c", "d", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name in "abcd":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told = r"4 folder\(s\) cannot be read, .*: \S*/a \(Permission denied\), .*/c \(.*\), \.\.\.$"
    with pytest.warns(RuntimeWarning, match=told):
        assert pictures_below(tmp_path) == [tmp_path / "open" / "1.jpg"]
