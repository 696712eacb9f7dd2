"""``--mode=explain``: the pictures and numbers of what an image and a caption attend to."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny_run import files, finished, run, scan_folder

import hmgr_jax
from hmgr_jax.data.named_items import Caption
from hmgr_jax.data.pictures import find_picture, read_picture
from hmgr_jax.data.tokens import tokenize
from hmgr_jax.data.worlds import make_family, open_worlds
from hmgr_jax.data.worlds.render import render
from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.main import main
from hmgr_jax.models import get_model, list_models
from hmgr_jax.retrieval import attention_picture, explanation
from hmgr_jax.retrieval.faded_picture import FadedPicture
from hmgr_jax.retrieval.retriever import Retriever
from hmgr_jax.training import explain
from hmgr_jax.training.explain import folder_name

STEPS = 3
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


def _explain(workdir, image, caption, out, *more):
    flags = ["--mode=explain", f"--workdir={workdir}", f"--out={out}", *more]
    return main(["main", *flags, "--pair", image, caption])


def _numbers(folder):
    return json.loads((folder / "attention.json").read_text())


@pytest.fixture
def drawn(monkeypatch):
    """The pictures that pages are asked for; the pages themselves are blank, which is quicker."""
    asked = []
    blank = Figure(figsize=(0.1, 0.1))
    monkeypatch.setattr(explain, "draw_step", lambda *given: (asked.append(given[0]), blank)[1])
    return asked


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    """The folder of one explained pair: image 5 and its caption 2."""
    out = tmp_path_factory.mktemp("explained") / "pair"
    assert _explain(workdir, "test/000005", "test/000005#2", out) == 0
    return out


# --- generated worlds -------------------------------------------------------------------------


def test_a_page_a_step_and_the_numbers(made):
    names = ["attention.json", *(f"step{k + 1}.png" for k in range(STEPS))]
    assert sorted(path.name for path in made.iterdir()) == names
    for k in range(STEPS):
        with Image.open(made / f"step{k + 1}.png") as page:
            assert page.width > 1000
            assert len(page.convert("L").getcolors()) > 100  # not an empty page


def test_the_numbers_are_of_words_and_regions_without_padding(made, split):
    found = _numbers(made)
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


def test_the_score_is_that_of_the_whole_split(made, retriever, split):
    """Of all items encoded together; steps and cosines add up to it."""
    found = _numbers(made)
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    scores = retriever.score(("image", codes["image"]), ("text", codes["text"]))
    assert abs(found["score"] - scores[5, 27]) < 1e-5
    assert abs(found["score"] - sum(step["score"] for step in found["steps"])) < 1e-5
    for step in found["steps"]:
        cosines = [np.mean(step[direction]["cosines"]) for direction in ("t2i", "i2t")]
        assert abs(sum(cosines) - step["score"]) < 1e-5


def test_the_weights_are_those_that_the_cosines_come_from(made, retriever, split):
    """The cosine of a word with its attended context, from the fragments themselves."""
    found = _numbers(made)
    item = split.sources["image"].gather(np.array([5]))
    regions = retriever.encode("image", item)["nodes"][0][: len(found["boxes"])]
    words = retriever.encode("text", [found["sentence"]])["nodes"][0][: len(found["words"])]
    for direction, queries, contexts in (("t2i", words, regions), ("i2t", regions, words)):
        for step in found["steps"]:
            attended = np.array(step[direction]["weights"]) @ contexts
            cosines = np.sum(queries * attended, axis=1) / np.linalg.norm(attended, axis=1)
            np.testing.assert_allclose(step[direction]["cosines"], cosines, atol=2e-5)


def test_numbers_and_ids_name_the_same(workdir, made, tmp_path, drawn):
    assert _explain(workdir, "5", "27", tmp_path) == 0
    assert files(tmp_path).keys() == files(made).keys()
    assert _numbers(tmp_path) == _numbers(made)


@pytest.mark.filterwarnings("default")
def test_a_sentence_of_ones_own(workdir, tmp_path, drawn, capsys):
    assert _explain(workdir, "0", OWN, tmp_path) == 0
    printed = capsys.readouterr()
    assert "does not know zebra, ufo: each is read as <unk>" in printed.err
    assert "your own sentence" in printed.out
    found = _numbers(tmp_path)
    assert found["caption"] is None
    assert found["words"] == ["<start>", *OWN.split(), "<end>"]
    assert found["unknown_words"] == ["zebra", "ufo"]


def test_a_pair_of_another_split_goes_to_the_folder_of_the_run(workdir, tmp_path, drawn):
    mine = shutil.copytree(workdir, tmp_path / "run")
    before = files(mine)
    argv = ["main", "--mode=explain", f"--workdir={mine}", "--split=dev", "--pair", "1", "1"]
    assert main(argv) == 0
    after = files(mine)
    assert {name: after.pop(name) for name in before} == before
    folder = "explain/dev-dev_000001-dev_000000_1"
    assert {name.rpartition("/")[0] for name in after} == {folder}
    assert _numbers(mine / folder)["split"] == "dev"


def test_pictures_of_worlds_are_those_of_the_scene(workdir, tmp_path, drawn):
    assert _explain(workdir, "6", "0", tmp_path) == 0
    expected = render(make_family(0, "test", 1).scenes[2])
    assert len(drawn) == STEPS
    for picture in drawn:
        np.testing.assert_array_equal(picture, expected)


# --- the page ---------------------------------------------------------------------------------


def test_the_colours_are_where_the_region_is():
    picture = np.full((40, 80, 3), (200, 40, 90), np.uint8)
    boxes = np.array([[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]])
    faded = FadedPicture(picture, boxes)
    heat = faded.heat(np.array([0.9, 0.1]))
    assert heat.shape == (40, 80)
    assert (heat[:20, :20] == 0.9).all()
    assert (heat[20:, 40:] == 0.1).all()
    assert np.count_nonzero(heat) == 20 * 20 + 20 * 40
    shown = faded.faded(np.array([0.9, 0.1]), full=0.9)
    assert (shown[:20, :20] == picture[:20, :20]).all()
    assert (np.ptp(shown[:20, 20:], axis=2) == 0).all()  # grey
    assert 0 < np.ptp(shown[30, 60]) < np.ptp(picture[30, 60])


def test_regions_that_overlap_show_the_higher_weight():
    faded = FadedPicture(
        np.zeros((10, 10, 3), np.uint8), np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    )
    assert faded.heat(np.array([0.2, 0.7]))[2, 2] == 0.7
    assert faded.heat(np.array([0.2, 0.1]))[2, 2] == 0.2


def test_panels_lie_on_the_page_and_apart():
    """A long caption: no panel leaves the page or covers another."""
    rng = np.random.default_rng(0)
    words = ("<start>", *["$x_{1}$", "incomprehensibilities" * 3] * 20, "<end>")
    weights = rng.dirichlet(np.ones(36), (2, 42)).astype(np.float32)
    back = rng.dirichlet(np.ones(42), (2, 36)).astype(np.float32)
    low, high = rng.random((36, 2)) / 2, 0.5 + rng.random((36, 2)) / 2
    found = explanation.PairExplanation(
        words=words,
        unknown=(),
        boxes=np.concatenate([low, high], axis=1),
        score=1.0,
        steps=(0.4, 0.6),
        attention={
            "t2i": explanation.Attention(weights, weights[:, :, 0]),
            "i2t": explanation.Attention(back, back[:, :, 0]),
        },
    )
    figure = attention_picture.draw_step(None, found, 1, " ".join(words), "x.jpg")
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 42 + 2 * attention_picture.STRONGEST
    for number, place in enumerate(places):
        assert 0 <= place.x0 < place.x1 <= 1
        assert 0 <= place.y0 < place.y1 <= 1
        for other in places[:number]:
            assert (
                min(place.x1, other.x1) <= max(place.x0, other.x0) + 1e-9
                or min(place.y1, other.y1) <= max(place.y0, other.y0) + 1e-9
            )


# --- folders of features ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder with boxes."""
    root = scan_folder(tmp_path_factory.mktemp("scan") / "data")
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        boxes = np.tile([0.1, 0.2, 0.6, 0.9], (count, 4, 1)).astype(np.float32)
        np.save(root / f"{name}_boxes.npy", boxes)
    chosen = {"data__source": "scan", "data__batching": "rows", "data__root": root}
    chosen |= {"eval__protocols": "plain", "eval__dev_protocols": "plain", "train__steps": 2}
    assert run(root.parent / "run", model="imram", **chosen) == 0
    return root.parent / "run"


def _pictures(folder, *names):
    folder.mkdir()
    for name in names:
        Image.new("RGB", (60, 40), (10, 200, 30)).save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["test3.jpg", "test3.png"])
def test_the_picture_of_a_folder_is_found_by_the_id(trained, tmp_path, drawn, name):
    images = _pictures(tmp_path / "images", name)
    out = tmp_path / "out"
    assert _explain(trained, "test3.jpg", "test3.jpg#1", out, f"--images={images}") == 0
    assert drawn[0].shape == (40, 60, 3)
    assert abs(drawn[0].astype(int) - (10, 200, 30)).max() < 4
    np.testing.assert_allclose(_numbers(out)["boxes"], np.tile([0.1, 0.2, 0.6, 0.9], (4, 1)))


@pytest.mark.filterwarnings("default")
def test_without_the_picture_the_canvas_is_blank(trained, tmp_path, capsys):
    assert _explain(trained, "test3.jpg", "0", tmp_path / "a") == 0
    sentence = "warning: without --images FOLDER there is no picture: boxes"
    assert sentence in capsys.readouterr().err
    images = _pictures(tmp_path / "images", "other.jpg")
    assert _explain(trained, "test3.jpg", "0", tmp_path / "b", f"--images={images}") == 0
    assert "images holds no test3.jpg, with or without .jpg" in capsys.readouterr().err
    assert _numbers(tmp_path / "a") == _numbers(tmp_path / "b")
    assert drawn == [None] * 2 * STEPS


def test_pictures_are_found_by_their_stem_and_scaled_down(tmp_path):
    images = _pictures(tmp_path / "images", "17.png", "a.b.jpg")
    assert find_picture(images, "17") == images / "17.png"
    assert find_picture(images, "17.jpg") == images / "17.png"
    assert find_picture(images, "a.b") == images / "a.b.jpg"
    assert find_picture(images, "a") is None
    Image.new("L", (2000, 500), 7).save(images / "large.png")
    assert read_picture(images / "large.png").shape == (160, 640, 3)


# --- mistakes ---------------------------------------------------------------------------------


def _fails(capsys, argv, *parts):
    assert main(["main", *argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    for part in parts:
        assert part in error
    return error


@pytest.mark.parametrize(
    ("image", "caption", "parts"),
    [
        ("test/000099", "0", ["no image 'test/000099' among the 12 of the test", "did you mean"]),
        ("12", "0", ["no image '12'", "a number from 0 to 11"]),
        ("-1", "0", ["no image '-1'"]),
        ("0", "60", ["no caption '60' among the 60 of the test", "from 0 to 59"]),
        ("0", "test/000001#5", ["no caption 'test/000001#5'"]),
        ("0", "test/000001", ["is an image, not a caption", "as test/000001#0."]),
        ("0", " ", ["The caption is empty"]),
    ],
)
def test_a_wrong_name_is_one_sentence(workdir, tmp_path, capsys, image, caption, parts):
    argv = ["--mode=explain", f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
    _fails(capsys, [*argv, "--pair", image, caption], *parts)
    assert not (tmp_path / "out").exists()


def test_flags_that_are_missing_or_too_many(workdir, capsys):
    explained = ["--mode=explain", f"--workdir={workdir}"]
    _fails(capsys, explained, "needs an image and a caption", "--pair IMAGE CAPTION")
    _fails(capsys, [*explained, "--pair", "0"], "expected 2 arguments")
    _fails(capsys, ["--mode=explain", "--pair", "0", "0"], "needs a trained run")
    _fails(capsys, ["--mode=encode", f"--workdir={workdir}", "--pair", "0", "0"], "--pair is for")
    _fails(capsys, ["--mode=encode", f"--workdir={workdir}", "--out=x"], "--out is for --mode=ex")
    pair = [*explained, "--pair", "0", "0", "--images=."]
    _fails(capsys, pair, "Generated worlds draw their pictures anew")


def test_pictures_that_are_missing_or_broken(trained, tmp_path, capsys):
    argv = ["--mode=explain", f"--workdir={trained}", f"--out={tmp_path / 'out'}"]
    argv += ["--pair", "test3.jpg", "0"]
    _fails(capsys, [*argv, f"--images={tmp_path / 'none'}"], "none, which is no folder")
    images = _pictures(tmp_path / "images")
    (images / "test3.jpg").write_bytes(b"no picture")
    _fails(capsys, [*argv, f"--images={images}"], "test3.jpg holds no picture that can be read")
    Image.effect_noise((300, 300), 9).save(tmp_path / "whole.jpg")
    (images / "test3.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    _fails(capsys, [*argv, f"--images={images}"], "test3.jpg holds no picture that can be read")
    assert not (tmp_path / "out").exists()


def test_without_boxes_it_says_what_is_needed(trained, tmp_path, capsys):
    root = scan_folder(tmp_path / "data")
    argv = ["--mode=explain", f"--workdir={trained}", f"--config.data.root={root}"]
    argv += ["--pair", "0", "0"]
    _fails(capsys, argv, "test_boxes.npy is missing", "float32 [rows, 4, 4] of x1, y1, x2, y2")


def test_systems_without_attention_are_refused(tmp_path, capsys):
    argv = ["--mode=explain", f"--workdir={finished('vse')}", "--pair", "0", "0"]
    said = _fails(capsys, argv, "vse compares a picture with a caption as wholes", "imram, scan")
    assert "hmgr" not in said
    able = [name for name in list_models() if get_model(name).explainable()]
    assert {"imram", "scan"} <= set(able)
    assert not {"hmgr", "vse"} & set(able)


def test_nan_is_an_error(retriever, split):
    item = split.sources["image"].gather(np.array([0]))
    broken = hmgr_jax.load(finished("imram"))
    broken.variables = broken.variables.replace(
        params={**broken.variables.params, "units": _nan(broken.variables.params["units"])}
    )
    with pytest.raises(FoundNonFinite, match="NaN or infinity"):
        explanation.explain_pair(broken, item, "a red star")


def _nan(tree):
    return jax.tree.map(lambda x: x * float("nan"), tree)


@pytest.mark.parametrize(("variant", "direction"), [("text", "t2i"), ("image", "i2t")])
def test_a_variant_shows_its_own_direction(retriever, split, variant, direction):
    model = dataclasses.replace(retriever.model, variant=variant, steps=1)
    other = Retriever(
        retriever.workdir, retriever.config, model, retriever.variables, retriever.vocabulary, 1
    )
    item = split.sources["image"].gather(np.array([0]))
    found = explanation.explain_pair(other, item, "a red star")
    assert found.attention.keys() == {direction}
    assert found.score == pytest.approx(found.steps[0], abs=1e-5)
    panels = {"text": 5, "image": 2 * len(found.boxes)}[variant]
    assert len(attention_picture.draw_step(None, found, 0, "a red star", "0").axes) == panels


def test_folders_have_plain_names():
    assert folder_name("test", "a/b.jpg", Caption("x", "a/b.jpg#2")) == "a_b.jpg-a_b.jpg_2"
    assert folder_name("dev", "3", Caption("x", "3#0")) == "dev-3-3_0"
    one, other = (folder_name("test", "3", Caption("a dog's day " * 9 + end, None)) for end in "ab")
    assert one != other
    assert one.startswith("3-a_dog_s_day_a_dog_s")
    assert "/" not in folder_name("test", "../..", Caption("../../x", None))
