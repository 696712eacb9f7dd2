"""Vectors of a folder's pictures: encoded once, refreshed, broken ones left out."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.errors import UserError
from hmgr_jax.search import folder as folders
from hmgr_jax.search.folder import vectors_of


class Reader:
    """A system whose vector of a picture is its mean colour; it counts what it encodes."""

    variables = None

    def __init__(self):
        self.encoded = []
        self.evaluator = SimpleNamespace(vectors=lambda variables, modality, codes: codes)

    def encode(self, modality, files):
        assert modality == "image"
        found = [np.asarray(load_picture(file), np.float32).mean((0, 1)) for file in files]
        self.encoded += [file.name for file in files]
        return np.stack(found)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that reads the folder, with its own cache; and the folder."""
    monkeypatch.setattr(folders, "model_key", lambda reader: "key")
    pictures = tmp_path / "pictures"
    for number, name in enumerate(("a.jpg", "b.PNG", "sub/c.webp", "sub/d.gif")):
        _draw(pictures / name, number)
    for hidden in ("._a.jpg", ".git/e.png"):
        _draw(pictures / hidden, 9)
    (pictures / "notes.txt").write_text("no picture")

    def read(reader):
        return vectors_of(pictures, reader, tmp_path / "cache")

    return read, pictures


def _draw(file, colour):
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = file.suffix[1:].replace("jpg", "jpeg")
    Image.new("RGB", (8, 8), (colour * 20, 0, 0)).save(file, format=kind)


def test_pictures_are_encoded_once(place):
    read, _ = place
    reader = Reader()
    first = read(reader)
    assert first.names == ["a.jpg", "b.PNG", "sub/c.webp", "sub/d.gif"]
    assert (first.encoded, first.gone, first.broken) == (4, 0, [])
    np.testing.assert_allclose(first.vectors[:, 0], [0, 20, 40, 60], atol=3)
    again = Reader()
    second = read(again)
    assert not again.encoded
    assert second.names == first.names
    np.testing.assert_array_equal(second.vectors, first.vectors)


def test_what_changed_is_encoded_again_and_what_is_gone_is_dropped(place):
    read, pictures = place
    read(Reader())
    _draw(pictures / "a.jpg", 5)
    os.utime(pictures / "a.jpg", ns=(1, 1))
    _draw(pictures / "new.jpg", 6)
    (pictures / "b.PNG").unlink()
    reader = Reader()
    found = read(reader)
    assert sorted(reader.encoded) == ["a.jpg", "new.jpg"]
    assert found.names == ["a.jpg", "new.jpg", "sub/c.webp", "sub/d.gif"]
    assert (found.encoded, found.gone) == (2, 1)
    np.testing.assert_allclose(found.vectors[:2, 0], [100, 120], atol=3)
    (pictures / "new.jpg").unlink()
    assert read(Reader()).gone == 1
    assert read(Reader()).gone == 0


def test_broken_pictures_are_left_out_and_not_tried_again(place):
    read, pictures = place
    (pictures / "broken.jpg").write_bytes(b"no picture")
    found = read(Reader())
    assert found.broken == ["broken.jpg"]
    assert len(found.names) == len(found.vectors) == 4
    again = Reader()
    assert read(again).broken == ["broken.jpg"]
    assert not again.encoded


def test_a_killed_run_goes_on(place, monkeypatch):
    read, _ = place
    monkeypatch.setattr(folders, "AT_ONCE", 1)
    reader = Reader()
    encode = reader.encode

    def killed(modality, files):
        if len(reader.encoded) == 2:
            raise KeyboardInterrupt
        return encode(modality, files)

    reader.encode = killed
    with pytest.raises(KeyboardInterrupt):
        read(reader)
    other = Reader()
    assert len(read(other).names) == 4
    assert len(other.encoded) == 2


def test_a_damaged_cache_is_made_again(place, tmp_path):
    read, _ = place
    first = read(Reader())
    (file,) = (tmp_path / "cache").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-30])
    np.testing.assert_array_equal(read(Reader()).vectors, first.vectors)


def test_a_link_to_a_folder_above_is_no_endless_loop(place):
    read, pictures = place
    (pictures / "sub" / "up").symlink_to(pictures)
    assert len(read(Reader()).names) == 4


def test_a_link_to_nothing_is_a_broken_picture(place):
    read, pictures = place
    (pictures / "gone.jpg").symlink_to(pictures / "nowhere.jpg")
    assert read(Reader()).broken == ["gone.jpg"]


def test_a_folder_without_pictures_is_refused(place):
    read, pictures = place
    shutil.rmtree(pictures)
    (pictures / "x").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no readable picture \(none\)"):
        read(Reader())
    (pictures / "x" / "y.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"\(1 that cannot be read: x/y.png\)"):
        read(Reader())
