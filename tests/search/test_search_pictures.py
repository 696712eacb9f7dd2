"""A system trained on pixels takes files of pictures, as it saw those of its own data."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_run import run

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.search.command import main

pytestmark = pytest.mark.slow

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
        with pytest.raises(UserError, match="Items must be a list with"):
            retriever.encode("image", wrong)


def test_another_shape_is_brought_to_the_run_s(retriever, tmp_path):
    Image.new("RGB", (90, 41), "red").save(tmp_path / "wide.jpg")
    assert retriever.encode("image", [tmp_path / "wide.jpg"])["mu"].shape[0] == 1


def _search(*arguments):
    return main(["search", *map(str, arguments)])


def _asked(tmp_path, *arguments):
    """The queries of the JSON that a query writes."""
    assert _search("query", *arguments, "--json", tmp_path / "found.json") == 0
    return json.loads((tmp_path / "found.json").read_text())["queries"]


@pytest.mark.filterwarnings("default:the picture of red")
def test_pictures_of_a_folder_and_one_that_is_gone(retriever, tmp_path, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "index"
    pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (30, 20 + number), colour).save(folder / f"{colour}.png")
    given = ("index", "--workdir", retriever.workdir, "--out", out)
    assert _search(*given, "--images", folder) == 0
    sheet = tmp_path / "sheet.png"
    (row,) = _asked(tmp_path, "--index", out, "a red circle", "-k", 3, "--sheet", sheet)
    assert {r["id"] for r in row["results"]} == {"red.png", "green.png", "blue.png"}
    with Image.open(sheet) as drawn:
        assert drawn.width > 600
    # This distance is of a picture and a text, not of two pictures.
    assert _search("query", "--index", out, "--image", folder / "red.png", "-k", 3) == 2
    assert (
        "the index and the query are both image items: use a query of the other"
        in capsys.readouterr().err
    )
    (folder / "red.png").unlink()
    capsys.readouterr()
    (row,) = _asked(tmp_path, "--index", out, "a red circle", "-k", 3, "--sheet", sheet)
    assert [r["id"] for r in row["results"] if r.get("missing")] == ["red.png"]
    said = capsys.readouterr()
    assert "red.png (file missing)" in said.out
    assert "the picture of red.png is left out: There is no picture" in said.err
    (tmp_path / "empty").mkdir()
    other = ("--out", tmp_path / "other")
    given = ("index", "--workdir", retriever.workdir, *other)
    for folder, why in (("empty", "holds no picture"), ("none", "There is no folder")):
        assert _search(*given, "--images", tmp_path / folder) == 2
        assert why in capsys.readouterr().err
