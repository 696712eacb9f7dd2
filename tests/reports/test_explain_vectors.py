"""``--mode=explain`` of HMGR: weights of words, pairs read from the memory, ranks without it."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import explain, numbers
from ml_collections import ConfigDict
from PIL import Image
from tiny_run import finished, scan_folder

import hmgr_jax
from hmgr_jax.data.pictures.files import PictureFolder
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.calibration import Calibration
from hmgr_jax.layers.bank import EMPTY
from hmgr_jax.reports import explain as explain_module
from hmgr_jax.reports.retrieval_picture import draw_retrieval
from hmgr_jax.reports.split_pictures import SplitPictures
from hmgr_jax.reports.vector_explanation import Ranking, StoredPair, VectorExplanation

PAIR = ("test/000005", "test/000005#2")
CAPTION = 27


@pytest.fixture(scope="module")
def retriever():
    return hmgr_jax.load(finished("hmgr"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "pair"
    assert explain(finished("hmgr"), *PAIR, out) == 0
    return out


# --- a run --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_page_and_the_numbers(made):
    assert sorted(path.name for path in made.iterdir()) == ["retrieval.json", "retrieval.png"]
    with Image.open(made / "retrieval.png") as page:
        assert page.width > 1000
        assert len(page.convert("L").getcolors()) > 100  # not an empty page


@pytest.mark.slow
def test_weights_are_those_of_words_and_regions_without_padding(made, retriever):
    found = numbers(made, "retrieval")
    split = retriever.open(("test",)).splits["test"]
    tokens = tokenize(split.sources["text"].captions[CAPTION])
    assert [row["word"] for row in found["weights"]["text"]] == ["<start>", *tokens, "<end>"]
    item = split.sources["image"].gather(np.array([5]))
    regions = found["weights"]["image"]
    assert sorted(row["region"] for row in regions) == list(range(item["n_regions"][0]))
    for row in regions:
        np.testing.assert_allclose(row["box"], item["boxes"][0, row["region"]], atol=1e-6)
    for rows in found["weights"].values():
        assert sum(row["weight"] for row in rows) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_pairs_read_are_those_that_the_slots_hold(made, retriever):
    """A slot holds the picture that is named and the mean of its captions, of which one is."""
    pairs = numbers(made, "retrieval")["memory"]["text"]
    weights = [pair["weight"] for pair in pairs]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    train = retriever.open(("train",)).splits["train"]
    asleep = retriever.model.before_finalize(retriever.variables)
    codes = retriever.evaluator.encode_split(asleep, train)
    bank = retriever.variables.memory.bank
    for pair in pairs:
        picture = list(train.ids["image"]).index(pair["image"])
        own = train.rows["text"][train.rows["image"] == picture]
        mean = codes["text"][own].mean(axis=0)
        for modality, x in (("image", codes["image"][picture]), ("text", mean)):
            stored = bank.vectors[modality][pair["slot"]]
            np.testing.assert_allclose(stored, x / np.linalg.norm(x), atol=1e-5)
        assert pair["caption"] == train.ids["text"][own[0]]
        assert pair["sentence"] == train.sources["text"].captions[own[0]]


@pytest.mark.slow
def test_ranks_are_those_of_the_split_with_and_without_the_memory(made, retriever):
    found = numbers(made, "retrieval")
    split = retriever.open(("test",)).splits["test"]
    asleep = retriever.model.before_finalize(retriever.variables)
    ranks = {}
    for name, variables in (("rank", retriever.variables), ("rank_without_memory", asleep)):
        codes = retriever.evaluator.encode_split(variables, split)
        ranks[name] = np.argsort(-(codes["image"] @ codes["text"][CAPTION]), kind="stable")
        rows = found["results" if name == "rank" else "results_without_memory"]
        assert [row["image"] for row in rows] == [split.ids["image"][i] for i in ranks[name][:10]]
        assert [row[name] for row in rows] == list(range(1, 11))
        assert found[name] == list(ranks[name]).index(5) + 1
        assert [row["image"] for row in rows if row["correct"]] in ([], [PAIR[0]])
    for row in found["moved_up"]:
        assert row["rank"] < row["rank_without_memory"]


@pytest.mark.slow
def test_a_system_without_memory_has_weights_and_results(tmp_path):
    assert explain(finished("vse"), "test/000005", "a red star", tmp_path) == 0
    found = numbers(tmp_path, "retrieval")
    assert {"weights", "results"} <= found.keys()
    assert not {"memory", "results_without_memory", "moved_up"} & found.keys()
    assert [row["image"] for row in found["results"] if row["correct"]] in ([], [PAIR[0]])


@pytest.mark.slow
def test_a_memory_of_other_data_is_refused(retriever):
    train = retriever.open(("train",)).splits["train"]
    fewer = {name: rows[train.rows["image"] > 0] for name, rows in train.rows.items()}
    with pytest.raises(UserError, match="another training split"):
        retriever.model.stored_items(retriever.variables, fewer)


@pytest.mark.slow
def test_captions_of_slots_that_training_wrote_are_unknown(retriever):
    train = retriever.open(("train",)).splits["train"]
    as_trained = hmgr_jax.models.get_model("hmgr", rewrite_bank=False)
    stored = as_trained.stored_items(retriever.variables, train.rows)
    np.testing.assert_array_equal(stored["image"], retriever.variables.memory.bank.group)
    assert (stored["text"] == EMPTY).all()


@pytest.mark.slow
def test_a_memory_that_is_not_read_yet_is_not_shown(retriever):
    memory = retriever.variables.memory.replace(active=jnp.zeros((), bool))
    asleep = retriever.variables.replace(memory=memory)
    assert retriever.model.readings(asleep, "text", np.eye(16, dtype=np.float32)[:1]) is None


# --- the page -----------------------------------------------------------------------------------


READ = (StoredPair(0, 0.7, 3, 7), StoredPair(1, 0.3, 2, EMPTY))


def _page(tmp_path, images=(), *, memory=True, boxes=None, pairs=READ):
    data = ConfigDict({"source": "scan"})
    splits = open_scan(scan_folder(tmp_path / "data")).splits
    folder = tmp_path / "images"
    folder.mkdir()
    for name in images:
        Image.new("RGB", (60, 40), (10, 200, 30)).save(folder / name)
    files = PictureFolder(folder)
    gallery, train = (SplitPictures(data, splits[name], files) for name in ("test", "train"))
    scores = np.arange(8.0)
    found = VectorExplanation(
        image=0,
        words=("<start>", "a", "$dog$", "<end>"),
        unknown=(),
        weights={"text": np.array([0.1, 0.2, 0.6, 0.1]), "image": np.full(4, 0.25)},
        boxes=boxes,
        pairs={"text": pairs} if memory else {},
        correct=frozenset([0]),
        found=Ranking(scores),
        without=Ranking(scores[::-1]) if memory else None,
        uncalibrated=Ranking(np.roll(scores, 2)) if memory else None,
        calibration=Calibration({}, 0.5, 20.0) if memory else None,
    )
    return draw_retrieval(found, gallery, train if memory else None, "a $dog$")


def _texts(figure):
    inside = [text for axes in figure.axes for text in axes.texts]
    return [text.get_text() for text in (*figure.texts, *inside)]


def test_the_correct_image_beyond_the_best_is_shown_last_with_its_move(tmp_path):
    texts = _texts(_page(tmp_path))
    assert "8    0.000" in texts
    assert texts.count("▼ from 1") == texts.count("▼ to 8") == 1
    assert any("rank 8 of 8 (1 without the memory, 2 by the read alone)" in text for text in texts)
    assert any("calibrated (λ = 0.5, β = 20)" in text for text in texts)
    assert {"weight 0.700", "weight 0.300", "train2.jpg", "$dog$", "0.60"} <= set(texts)


@pytest.mark.parametrize("boxes", [None, np.tile([0.1, 0.2, 0.6, 0.9], (4, 1))])
@pytest.mark.parametrize("images", [(), ("test0.jpg", "train3.jpg")])
def test_every_kind_of_picture_is_drawn(tmp_path, images, boxes):
    figure = _page(tmp_path, images, boxes=boxes)
    drawn = sum(bool(axes.images) for axes in figure.axes)
    own = boxes is not None or bool(images)  # the image of the pair
    assert drawn == own + len(images) + bool(images)  # test0 stands in both rows of results


def test_pairs_of_one_picture_are_drawn_together(tmp_path):
    pairs = [StoredPair(0, 0.5, 3, 7), StoredPair(1, 0.3, 2, 5), StoredPair(2, 0.2, 3, 6)]
    texts = _texts(_page(tmp_path, pairs=pairs))
    assert {"weight 0.700  in 2 pairs", "weight 0.300"} <= set(texts)
    assert any("2 of 2 pictures, with 100% of the weight" in text for text in texts)


def test_without_memory_there_is_one_row_of_results(tmp_path):
    texts = _texts(_page(tmp_path, memory=False))
    assert not [text for text in texts if "memory" in text or "▼" in text]


@pytest.mark.parametrize("known", ["", "own", "other"])
def test_a_memory_of_other_data_with_as_many_pictures_is_refused(known):
    """An imported run does not know its data."""
    data = types.SimpleNamespace(fingerprint="own", name="mine", splits={"train": "split"})
    run = types.SimpleNamespace(fingerprint=known, workdir="runs/a", open=lambda roles: data)
    if known == "other":
        with pytest.raises(UserError, match="mine is not the data that runs/a was trained on"):
            explain_module._training_split(run)
    else:
        assert explain_module._training_split(run) == "split"


@pytest.mark.slow
def test_pcme_has_weights_and_uncertainties_without_each_word(tmp_path):
    assert explain(finished("pcme"), "test/000005", "a red star", tmp_path) == 0
    found = numbers(tmp_path, "retrieval")
    assert sum(row["weight"] for row in found["weights"]["text"]) == pytest.approx(1, abs=1e-5)
    run = hmgr_jax.load(finished("pcme"))
    words = [row["word"] for row in found["uncertainty_without"]]
    assert words == ["a", "red", "star"]
    for sentence, sigma in (
        ("a red star", found["uncertainty"]["text"]),
        ("a red", found["uncertainty_without"][2]["uncertainty"]),
    ):
        codes = run.encode("text", [sentence])
        assert run.evaluator.uncertainty(codes)[0] == pytest.approx(sigma, rel=1e-5)
