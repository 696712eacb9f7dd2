"""``benchmarks.sigma``: uncertainty of items with missing words and regions."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_run import finished, results

from benchmarks.damaged import Erased, FewerRegions
from benchmarks.sigma import choose_damage, run, summarize_side
from hmgr_jax import bench
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.data.split import Source
from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.models.base import Feature, frames_and_tokens

pytestmark = pytest.mark.slow
LINE = "--words 2,6 --shares 0,0.5"


@pytest.mark.slow
def _main(line):
    return bench.main_of(run, ["sigma", *line.split()])


def test_a_run_is_measured_and_plotted(tmp_path, capsys):
    shutil.copytree(finished("pcme"), tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    assert _main(f"{LINE} --workdir {tmp_path}") == 0
    row = json.loads(capsys.readouterr().out)
    assert row == json.loads((tmp_path / "sigma.json").read_text())
    assert (row["model"], row["split"], row["seed"]) == ("pcme", "test", 0)
    with Image.open(tmp_path / "sigma.png") as drawn:
        assert min(drawn.size) > 200
    text, image = row["sides"]["text"], row["sides"]["image"]
    assert (text["removed"], text["items"]) == ("words", 60)
    assert (image["removed"], image["items"]) == ("share of the regions", 12)
    assert [level["level"] for level in text["levels"]] == [0, 2, 6]
    assert [level["level"] for level in image["levels"]] == [0, 0.5]
    for side, name in ((text, "t2i"), (image, "i2t")):  # level 0 is what the run itself found
        assert side["levels"][0]["R@1"] == results(tmp_path)["metrics"][f"{name}/R@1"]
        assert -1 <= side["spearman"] <= 1
        assert 0 <= side["rose"] <= 100

    retriever, split = Retriever.load(tmp_path), open_worlds(0, 40, 8, 12).splits["test"]
    whole = FewerRegions(split.sources["image"], 0.5, name="regions", number="n_regions")
    codes = retriever.encode("image", whole.gather(np.arange(12)))
    sigma = np.exp(codes["log_sigma"].mean(axis=1))
    level = image["levels"][1]
    assert level["sigma"] == pytest.approx(sigma.mean(), rel=1e-4)
    assert level["sigma_se"] == pytest.approx(sigma.std(ddof=1) / 12**0.5, rel=1e-3)
    assert level["sigma"] != image["levels"][0]["sigma"]

    assert _main(f"{LINE} --workdir {tmp_path} --recall 0") == 0
    again = json.loads(capsys.readouterr().out)["sides"]["text"]
    assert again["spearman"] == text["spearman"]
    assert "R@1" not in again["levels"][0]


def _damage(**inputs):
    return choose_damage(inputs, {"words": [0, 1], "shares": [0, 0.5]}, seed=0)


def test_the_report_of_one_side():
    how = _damage(pixels=Feature((4, 4, 3), "float32"))
    assert how.unit == "share of the pixels"
    assert isinstance(how.at(open_worlds(0, 4, 4, 4).splits["test"].sources["image"], 0.5), Erased)
    found = summarize_side(how, np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 3.0]]), [])
    assert found["levels"][1] == {"level": 0.5, "sigma": 4.0, "sigma_se": pytest.approx(3**-0.5)}
    assert found["rose"] == pytest.approx(200 / 3)
    assert found["spearman"] == pytest.approx(0.7921181, abs=1e-6)  # ranks 1 2 3.5, 5 6 3.5
    assert summarize_side(how, np.ones((2, 3)), [])["spearman"] is None
    assert summarize_side(how, np.ones((2, 1)), [])["levels"][0]["sigma_se"] is None
    with pytest.raises(FoundNonFinite, match=r"item 1 without 0\.5 \(share of the pixels\) is inf"):
        summarize_side(how, np.array([[1.0, 2.0], [3.0, np.inf]]), [])


def test_frames_are_regions_of_videos():
    how = _damage(**frames_and_tokens(4, 2)["video"])
    source: Source = how.at(open_worlds(0, 4, 4, 4).splits["test"].sources["image"], 0.5)
    assert (how.unit, source.name, source.number) == ("share of the frames", "frames", "n_frames")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "--workdir is missing: give the folder of a trained run."),
        ("--workdir /none", "/none holds no checkpoints: give the --workdir of a trained run."),
        ("--workdir x --split tset", "--split must be one of train, dev, test, got 'tset'."),
        ("--workdir x --words 1,many", "--words must list numbers of words, such as 0,1,2,3, got"),
        ("--workdir x --words 0", "--words must list numbers of words"),
        ("--workdir x --words=-1,2", "--words must list numbers of words"),
        ("--workdir x --shares 0,1", "--shares must list shares below 1, such as 0,0.2,0.4, got"),
        ("--workdir x --shares nan,0.5", "--shares must list shares below 1"),
    ],
)
def test_rejects_bad_arguments(capsys, line, sentence):
    assert _main(line) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error


def test_rejects_a_system_without_uncertainties(capsys):
    folder = finished()
    assert _main(f"{LINE} --workdir {folder}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{folder} holds a vse, which has no uncertainties: give" in error
    assert not (folder / "sigma.json").exists()
