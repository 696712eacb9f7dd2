"""Which file a name stands for, and files that are damaged."""

import numpy as np
import pytest
from PIL import Image

from hmgr_jax.data.pictures.files import PictureFolder, load_picture
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
