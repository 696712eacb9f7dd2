"""``--config.eval.judgments``: a run's scores of the pairs that people judged."""

import json
import shutil

import numpy as np
import pytest
from judgment_files import CROWD, write_judgments
from tiny_run import config, finished, results, run

import hmgr_jax
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.flickr8k import read_judgments
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.judged import Judged, open_judged
from hmgr_jax.evaluation.results import check_protocols
from hmgr_jax.main import main
from hmgr_jax.metrics.graded import rank_correlation, rater_agreement
from hmgr_jax.training.experiment import build

IMAGES = [f"{i:06d}.jpg" for i in range(12)]
"""The test scenes of a tiny run."""
TEXTS = {
    "000002.jpg#1": "A red circle is left of a blue square .",
    "000007.jpg#4": "a small green triangle near the top",
    "far.jpg#0": "a large yellow circle far from the red square",
}
KEY = "--config.eval.judgments="


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_judgments(tmp_path_factory.mktemp("judged") / "text", IMAGES, TEXTS)


def scores_of(workdir):
    """What the run scores the judged pairs of the test split, in the files' order."""
    retriever = hmgr_jax.load(workdir)
    split = retriever.open(("test",)).splits["test"]
    images = retriever.evaluator.encode(retriever.variables, "image", split.sources["image"])
    captions = retriever.encode("text", list(TEXTS.values()))
    return retriever.score(("image", images), ("text", captions)).reshape(-1)


def expected(scores, folder):
    """The metrics by hand: all but the last three pairs have their image in the split."""
    found = {}
    own = np.zeros((12, 3), bool)
    own[2, 0] = own[7, 1] = True
    own = own.reshape(-1)
    for name, judgments in read_judgments(folder).items():
        ratings = judgments.ratings[:36]
        parts = {name: (scores[~own], ratings[~own]), f"{name}/with_own": (scores, ratings)}
        values = {key: rank_correlation(*given) for key, given in parts.items()}
        if name == "expert":
            values["expert/human"] = rater_agreement(ratings[~own])
        found |= {f"judgments/{key}/{m}": v for key, of in values.items() for m, v in of.items()}
    return found


@pytest.mark.parametrize("model", ["vse", pytest.param("imram", marks=pytest.mark.slow)])
def test_judgments_are_a_protocol_of_evaluation(model, folder, tmp_path, capsys):
    workdir = shutil.copytree(finished(model), tmp_path / "run")
    assert main(["main", "--mode=evaluate", f"--workdir={workdir}", f"{KEY}{folder}"]) == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    graded = {k: v for k, v in found["metrics"].items() if k.startswith("judgments/")}
    assert {k: v for k, v in found["metrics"].items() if k not in graded} == (
        results(workdir)["metrics"]
    )
    by_hand = expected(scores_of(workdir), folder)
    assert graded.keys() == by_hand.keys()
    assert len(graded) == 3 * 5
    assert graded == pytest.approx(by_hand, abs=1e-4)
    assert graded["judgments/expert/spearman"] != graded["judgments/expert/with_own/spearman"]
    counts = {"judged": 39, "with_image": 36, "own": 2}
    assert found["judgments"] == {"expert": counts, "crowd": counts}
    out = capsys.readouterr().out
    assert "34 of 39 judged pairs: 36 have their image in test, of which 2 with a caption" in out
    assert out.count("judgments/expert/human ") == 1


@pytest.mark.slow
def test_training_ends_with_judgments_too(folder, tmp_path):
    assert run(tmp_path / "a", train__steps=4, eval__judgments=folder) == 0
    found = results(tmp_path / "a")
    assert found["judgments"]["crowd"]["with_image"] == 36
    assert found["metrics"] == pytest.approx(
        {k: v for k, v in found["metrics"].items() if "judgments" not in k}
        | expected(scores_of(tmp_path / "a"), folder),
        abs=1e-4,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_training_keeps_its_results_where_all_scores_are_equal(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Judged, "scores", lambda *_: np.zeros((12, 3), np.float32))
    assert run(tmp_path / "a", train__steps=4, eval__judgments=folder) == 0
    assert "warning: no rank correlations: the 102 judged pairs" in capsys.readouterr().err
    found = results(tmp_path / "a")
    assert "rsum" in found["metrics"]
    assert "judgments" not in found
    assert not any(name.startswith("judgments/") for name in found["metrics"])


@pytest.mark.slow
def test_an_ensemble_is_judged_by_its_mean_scores(folder, tmp_path):
    workdir = shutil.copytree(finished(), tmp_path / "run")
    others = ["--ensemble", str(finished("imram"))]
    flags = ["--mode=evaluate", f"--workdir={workdir}", f"{KEY}{folder}"]
    assert main(["main", *flags, *others]) == 0
    found = json.loads((workdir / "ensemble-test.json").read_text())
    mean = (scores_of(workdir) + scores_of(finished("imram"))) / 2
    for name, value in expected(mean, folder).items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-4)
    assert found["judgments"]["expert"]["judged"] == 39


def test_rejects_bad_judgments_before_encoding(folder, tmp_path, capsys):
    evaluate = ["main", "--mode=evaluate", f"--workdir={finished()}"]

    def refused(*flags):
        assert main([*evaluate, *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "none should hold Flickr8k.token.txt" in refused(f"{KEY}{tmp_path / 'none'}")
    elsewhere = write_judgments(tmp_path / "other", ["x.jpg"], TEXTS)
    line = refused(f"{KEY}{elsewhere}")
    assert "none of the 2 images of" in line
    assert "is in test (its first is test/000000)" in line
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / CROWD).write_text("a b c\n")
    assert "CrowdFlowerAnnotations.txt:1 should hold" in refused(f"{KEY}{broken}")
    with pytest.raises(UserError, match="none of the 2 images of"):
        check_protocols(build(config(eval__judgments=elsewhere)))


def test_other_modalities_have_no_judgments(folder):
    split = build(config()).data.splits["test"]
    assert open_judged(config().eval, split) is None
    clips = type(split)(
        split.name,
        {"video": split.sources["image"], "text": split.sources["text"]},
        split.groups,
        split.rows,
        split.ids,
    )
    with pytest.raises(UserError, match="but test has video and text: leave it empty"):
        open_judged(config(eval__judgments=folder).eval, clips)


def test_the_published_judgments_of_our_test_images(real_data):
    """Every judged image is a test image, and the experts agree to a tau of 65.7."""
    words = Vocabulary.build([["dog"]], 1)
    folder = real_data / "flickr8k"
    data = open_scan(folder, vocabulary=words, splits={"test": "test"})
    opened = open_judged(config(eval__judgments=real_data / "f8k_text").eval, data.splits["test"])
    assert isinstance(opened, Judged)
    assert opened.counts() == {
        "expert": {"judged": 5822, "with_image": 5822, "own": 158},
        "crowd": {"judged": 47830, "with_image": 47830, "own": 721},
    }
    # Scored by the experts' own mean where they judged, the order is far from chance.
    column = {caption: j for j, caption in enumerate(opened.captions)}
    row = {f"{name}.jpg": i for i, name in enumerate(data.splits["test"].ids["image"])}
    scores = np.random.default_rng(0).standard_normal((1000, len(column))) * 1e-3
    for image, caption, rating in zip(
        opened.sets["expert"].images,
        opened.sets["expert"].captions,
        opened.sets["expert"].ratings,
        strict=True,
    ):
        scores[row[image], column[caption]] += rating.mean()
    found = opened.metrics(scores)
    assert found["judgments/expert/human/kendall_tau_b"] == pytest.approx(65.7, abs=0.05)
    assert found["judgments/expert/kendall_tau_b"] > found["judgments/expert/human/kendall_tau_b"]
