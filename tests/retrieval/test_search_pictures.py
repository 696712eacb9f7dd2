"""A system trained on pixels takes files of pictures, as it saw those of its own data."""

import numpy as np
import pytest
from PIL import Image
from tiny_run import run

import hmgr_jax
from hmgr_jax.errors import UserError

PIXELS = {"data__worlds__pictures": True, "data__pixels__size": 16, "data__pixels__resize": 20}
PIXELS |= {"model__cnn": "resnet10", "model__cnn_width": 4, "model__cnn_small_stem": True}
PIXELS |= {"model__region_dropout": 0.0, "train__steps": 4, "data__batching": "rows"}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert run(workdir, model="pcme", **PIXELS) == 0
    return hmgr_jax.load(workdir)


@pytest.fixture(scope="module")
def files(retriever, tmp_path_factory):
    """The pictures of the test split as files."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = retriever.open(("test",)).splits["test"].sources["image"].pictures
    found = [folder / f"{number}.png" for number in range(len(pictures))]
    for number, file in enumerate(found):
        pictures.load(number).save(file)
    return found


def test_files_are_encoded_as_the_split_is(retriever, files):
    source = retriever.open(("test",)).splits["test"].sources["image"]
    of_split = retriever.encode("image", source.gather(np.arange(len(source))))
    of_files = retriever.encode("image", files)
    np.testing.assert_array_equal(of_files["mu"], of_split["mu"])
    texts = retriever.encode("text", ["a red circle", "a blue square left of a green ring"])
    numbers, scores = retriever.search(("text", texts), ("image", of_files), k=3)
    assert numbers.shape == (2, 3)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_files_that_are_no_pictures(retriever, files, tmp_path):
    with pytest.raises(UserError, match=r"none\.png"):
        retriever.encode("image", [files[0], tmp_path / "none.png"])
    (tmp_path / "text.png").write_text("not a picture", "utf-8")
    with pytest.raises(UserError, match=r"text\.png"):
        retriever.encode("image", [tmp_path / "text.png"])
    for wrong in (str(files[0]), files[0], []):
        with pytest.raises(UserError, match="list of at least one file of a picture"):
            retriever.encode("image", wrong)


def test_another_shape_is_brought_to_the_run_s(retriever, tmp_path):
    Image.new("RGB", (90, 41), "red").save(tmp_path / "wide.jpg")
    assert retriever.encode("image", [tmp_path / "wide.jpg"])["mu"].shape[0] == 1
