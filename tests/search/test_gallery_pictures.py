"""Galleries of the pictures of a folder: broken ones are left out, and features are no pixels."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from hmgr_jax.errors import UserError
from hmgr_jax.search import gallery


def _retriever():
    """A system of pixels."""
    inputs = {"image": {"pixels": None}}
    model = SimpleNamespace(modalities=("image", "text"), inputs=lambda: inputs)
    return SimpleNamespace(model=model, picture_source=list, workdir=Path("runs/mine"))


def test_broken_pictures_are_left_out_named_and_counted(tmp_path):
    for name in ("a.jpg", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((64, 64), 50).save(tmp_path / name)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.warns(RuntimeWarning, match=r"3 of 5 pictures .*: cut.jpg, empty.png, gone.jpg"):
        found = gallery.of_pictures(_retriever(), tmp_path)
    assert [item.id for item in found.items] == ["a.jpg", "sub/b.png"]
    assert found.source == [tmp_path / "a.jpg", tmp_path / "sub/b.png"]
    for name in ("a.jpg", "sub/b.png"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="None of the 3 pictures of"):
        gallery.of_pictures(_retriever(), tmp_path)


def test_a_gallery_of_features_is_none_for_a_run_of_pixels(tmp_path):
    with pytest.raises(UserError, match=r"trained on pixels, but .* features: give .* as --images"):
        gallery.of_prepared(_retriever(), tmp_path)
