"""``--mode=explain``: the pictures and numbers of what an image and a caption attend to."""

import shutil

import numpy as np
import pytest
from explain_cases import BOX, STEPS, explain, numbers, pictures, trained_on_files
from matplotlib.figure import Figure
from PIL import Image
from tiny_run import files, finished

import hmgr_jax
from hmgr_jax.data.generated.worlds import make_family, open_worlds
from hmgr_jax.data.generated.worlds.render import render
from hmgr_jax.data.pictures.decode import read_picture
from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.evaluation.named_items import Caption
from hmgr_jax.main import main
from hmgr_jax.reports import explain as command
from hmgr_jax.reports.explain import folder_name

OWN = "a red zebra is left of the small ufo"


@pytest.fixture(scope="module")
def workdir():
    return finished("imram")


@pytest.fixture(scope="module")
def retriever(workdir):
    return hmgr_jax.load(workdir)


@pytest.fixture(scope="module")
def split():
    return open_worlds(0, 40, 8, 12).splits["test"]


@pytest.fixture
def drawn(monkeypatch):
    """The pictures that pages are asked for; the pages themselves are blank, which is quicker."""
    asked = []
    blank = Figure(figsize=(0.1, 0.1))
    monkeypatch.setattr(command, "draw_step", lambda *given: (asked.append(given[0]), blank)[1])
    return asked


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    """The folder of one explained pair: image 5 and its caption 2."""
    out = tmp_path_factory.mktemp("explained") / "pair"
    assert explain(workdir, "test/000005", "test/000005#2", out) == 0
    return out


# --- generated worlds -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_page_a_step_and_the_numbers(made):
    names = ["attention.json", *(f"step{k + 1}.png" for k in range(STEPS))]
    assert sorted(path.name for path in made.iterdir()) == names
    for k in range(STEPS):
        with Image.open(made / f"step{k + 1}.png") as page:
            assert page.width > 1000
            assert len(page.convert("L").getcolors()) > 100  # not an empty page


@pytest.mark.slow
def test_the_numbers_are_of_words_and_regions_without_padding(made, split):
    found = numbers(made)
    tokens = tokenize(split.sources["text"].captions[5 * 5 + 2])
    item = split.sources["image"].gather(np.array([5]))
    count = int(item["n_regions"][0])
    assert count < item["regions"].shape[1], "choose an image with padding"
    assert found["words"] == ["<start>", *tokens, "<end>"]
    assert (found["image"], found["caption"]) == ("test/000005", "test/000005#2")
    assert found["sentence"] == split.sources["text"].captions[27]
    np.testing.assert_allclose(found["boxes"], item["boxes"][0, :count], atol=1e-6)
    assert [step["step"] for step in found["steps"]] == [1, 2, 3]
    sides = {"t2i": (len(found["words"]), count), "i2t": (count, len(found["words"]))}
    for step in found["steps"]:
        for direction, shape in sides.items():
            weights = np.array(step[direction]["weights"])
            assert weights.shape == shape
            assert (weights > 0).all()
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
            assert np.shape(step[direction]["cosines"]) == shape[:1]


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_what_nodes_are_rebuilt_from(tmp_path, strict):
    """RACG has one step; its strict form takes of a node's own side too, which is not shown."""
    run = finished("racg_strict" if strict else "racg")
    assert explain(run, "test/000005", "test/000005#2", tmp_path / "pair") == 0
    assert sorted(path.name for path in (tmp_path / "pair").iterdir()) == [
        "attention.json",
        "relations.png",
        "step1.png",
    ]
    (step,) = numbers(tmp_path / "pair")["steps"]
    for direction in ("t2i", "i2t"):
        shares = np.array(step[direction]["weights"]).sum(axis=1)
        assert (shares < 1 - 1e-3).all() if strict else np.allclose(shares, 1, atol=1e-5)
        assert (np.abs(step[direction]["cosines"]) <= 1 + 1e-5).all()
    assert step["score"] == pytest.approx(numbers(tmp_path / "pair")["score"], abs=1e-5)


@pytest.mark.slow
def test_relations_of_racg_are_the_weights_of_its_graphs(split):
    """They sum to 1 over the true nodes; what the tower makes does not change."""
    retriever = hmgr_jax.load(finished("racg"))
    items = split.sources["image"].gather(np.arange(4))
    weights = retriever.relations("image", items)
    count = items["n_regions"]
    assert weights.shape == (4, 1, 6, 6)
    for i in range(4):
        np.testing.assert_allclose(weights[i, 0, : count[i]].sum(axis=1), 1, atol=1e-5)
        assert not weights[i, 0, :, count[i] :].any()
    spread = weights[0, 0, 0, : count[0]]
    assert spread.max() - spread.min() > 1e-3


@pytest.mark.slow
def test_the_score_is_that_of_the_whole_split(made, retriever, split):
    """Of all items encoded together; steps and cosines add up to it."""
    found = numbers(made)
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    scores = retriever.score(("image", codes["image"]), ("text", codes["text"]))
    assert abs(found["score"] - scores[5, 27]) < 1e-5
    assert abs(found["score"] - sum(step["score"] for step in found["steps"])) < 1e-5
    for step in found["steps"]:
        cosines = [np.mean(step[direction]["cosines"]) for direction in ("t2i", "i2t")]
        assert abs(sum(cosines) - step["score"]) < 1e-5


@pytest.mark.slow
def test_the_weights_are_those_that_the_cosines_come_from(made, retriever, split):
    """The cosine of a word with its attended context, from the fragments themselves."""
    found = numbers(made)
    item = split.sources["image"].gather(np.array([5]))
    regions = retriever.encode("image", item)["nodes"][0][: len(found["boxes"])]
    words = retriever.encode("text", [found["sentence"]])["nodes"][0][: len(found["words"])]
    for direction, queries, contexts in (("t2i", words, regions), ("i2t", regions, words)):
        for step in found["steps"]:
            attended = np.array(step[direction]["weights"]) @ contexts
            cosines = np.sum(queries * attended, axis=1) / np.linalg.norm(attended, axis=1)
            np.testing.assert_allclose(step[direction]["cosines"], cosines, atol=2e-5)


@pytest.mark.slow
def test_numbers_and_ids_name_the_same(workdir, made, tmp_path, drawn):
    assert explain(workdir, "5", "27", tmp_path) == 0
    assert files(tmp_path).keys() == files(made).keys()
    assert numbers(tmp_path) == numbers(made)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_sentence_of_ones_own(workdir, tmp_path, drawn, capsys):
    assert explain(workdir, "0", OWN, tmp_path) == 0
    printed = capsys.readouterr()
    assert "does not know zebra, ufo: each is read as <unk>" in printed.err
    assert "a new sentence" in printed.out
    found = numbers(tmp_path)
    assert found["caption"] is None
    assert found["words"] == ["<start>", *OWN.split(), "<end>"]
    assert found["unknown_words"] == ["zebra", "ufo"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_sentence_longer_than_the_last_bucket(workdir, tmp_path, drawn, capsys):
    """Cut to the 30 words that fit, with one line about it."""
    assert explain(workdir, "0", " ".join(["red"] * 50), tmp_path) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert "cuts 1 of 1 texts of the request (100.0%) to the first 30 words" in warned[0]
    found = numbers(tmp_path)
    assert found["words"] == ["<start>", *["red"] * 30, "<end>"]
    weights = np.array(found["steps"][0]["t2i"]["weights"])
    np.testing.assert_allclose(weights.sum(axis=1), np.ones(32), atol=1e-5)


@pytest.mark.slow
def test_a_pair_of_another_split_goes_to_the_folder_of_the_run(workdir, tmp_path, drawn):
    mine = shutil.copytree(workdir, tmp_path / "run")
    before = files(mine)
    argv = ["main", "--mode=explain", f"--workdir={mine}", "--split=dev", "--pair", "1", "1"]
    assert main(argv) == 0
    after = files(mine)
    assert {name: after.pop(name) for name in before} == before
    folder = "explain/dev-dev_000001-dev_000000_1"
    assert {name.rpartition("/")[0] for name in after} == {folder}
    assert numbers(mine / folder)["split"] == "dev"


@pytest.mark.slow
def test_pictures_of_worlds_are_those_of_the_scene(workdir, tmp_path, drawn):
    assert explain(workdir, "6", "0", tmp_path) == 0
    expected = render(make_family(0, "test", 1).scenes[2])
    assert len(drawn) == STEPS
    for picture in drawn:
        np.testing.assert_array_equal(picture, expected)


# --- folders of features ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return trained_on_files()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test3.jpg", "test3.png"])
def test_the_picture_of_a_folder_is_found_by_the_id(trained, tmp_path, drawn, name):
    images = pictures(tmp_path / "images", name)
    out = tmp_path / "out"
    assert explain(trained, "test3.jpg", "test3.jpg#1", out, f"--images={images}") == 0
    assert drawn[0].shape == (40, 60, 3)
    assert abs(drawn[0].astype(int) - (10, 200, 30)).max() < 4
    np.testing.assert_allclose(numbers(out)["boxes"], np.tile(BOX, (4, 1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_the_picture_the_canvas_is_blank(trained, tmp_path, drawn, capsys):
    assert explain(trained, "test3.jpg", "0", tmp_path / "a") == 0
    sentence = "warning: without --images FOLDER there is no picture: boxes"
    assert sentence in capsys.readouterr().err
    images = pictures(tmp_path / "images", "other.jpg")
    assert explain(trained, "test3.jpg", "0", tmp_path / "b", f"--images={images}") == 0
    assert "images holds no test3.jpg, with or without an ending" in capsys.readouterr().err
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert drawn == [None] * 2 * STEPS


def test_pictures_are_found_by_their_stem_and_scaled_down(tmp_path):
    images = pictures(tmp_path / "images", "17.png", "a.b.jpg")
    found = PictureFolder(images).find_shown
    assert found("17") == found("17.jpg") == images / "17.png"
    assert found("a.b") == images / "a.b.jpg"
    assert found("a") is None
    Image.new("L", (2000, 500), 7).save(images / "large.png")
    assert read_picture(images / "large.png").shape == (160, 640, 3)


def test_folders_have_plain_names():
    assert folder_name("test", "a/b.jpg", Caption("x", "a/b.jpg#2")) == "a_b.jpg-a_b.jpg_2"
    assert folder_name("dev", "3", Caption("x", "3#0")) == "dev-3-3_0"
    one, other = (folder_name("test", "3", Caption("a dog's day " * 9 + end, None)) for end in "ab")
    assert one != other
    assert one.startswith("3-a_dog_s_day_a_dog_s")
    assert "/" not in folder_name("test", "../..", Caption("../../x", None))
