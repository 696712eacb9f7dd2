"""``--mode=evaluate`` of a system that scores pair by pair: stopped, started again, by one step."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_run import config, files, finished, results

from hmgr_jax import modes as commands
from hmgr_jax.evaluation import all_pairs, tiles
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.main import main
from hmgr_jax.metrics.protocols import evaluate_all
from hmgr_jax.models import get_model
from hmgr_jax.training.config import config_hash

pytestmark = pytest.mark.slow

SCORE_STEP = "model.score_step"


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(finished("imram"), tmp_path / "run")


@pytest.fixture
def scored(monkeypatch):
    """Tiles that went to the device so far, of which there are many."""
    found, real = [], all_pairs._score

    def score(*arguments, **options):
        found.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(all_pairs, "_score", score)
    monkeypatch.setattr(tiles, "TILE_BYTES", 20_000)
    return found


def evaluate(workdir, *more):
    return main(["main", "--mode=evaluate", f"--workdir={workdir}", *more])


def interrupt(monkeypatch, tile):
    """Ctrl-C after so many tiles are written, until the context ends."""
    real, seen = all_pairs._write, []

    def write(*arguments):
        real(*arguments)
        seen.append(1)
        if len(seen) > tile:
            raise KeyboardInterrupt

    monkeypatch.setattr(all_pairs, "_write", write)


def test_an_evaluation_goes_on_where_it_was_stopped(workdir, scored, monkeypatch, capsys):
    before = files(workdir)
    with monkeypatch.context() as patch:
        interrupt(patch, 7)
        assert evaluate(workdir) == 130
    folder = workdir / "scores" / "test" / "image-text"
    assert json.loads((folder / "tiles.json").read_text())["done"] == 7
    assert not (workdir / "evaluation-test.json").exists()
    del scored[:]
    assert evaluate(workdir) == 0
    rest = len(scored)
    assert rest > 7
    assert "warning" not in capsys.readouterr().err
    after = files(workdir)
    found = json.loads(after.pop("evaluation-test.json")[0])
    assert after == before
    assert not (workdir / "scores").exists()
    assert found == results(workdir)

    del scored[:]
    assert evaluate(workdir) == 0
    assert len(scored) == rest + 7


def test_a_failed_evaluation_leaves_its_scores(workdir, scored, monkeypatch, capsys):
    """The result could not be written: the next start scores nothing again."""
    (workdir / "evaluation-test.json").mkdir()
    assert evaluate(workdir) == 2
    assert "evaluation-test.json" in capsys.readouterr().err
    (workdir / "evaluation-test.json").rmdir()
    del scored[:]
    assert evaluate(workdir) == 0
    assert scored == []


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_other_tiles_begin_anew_with_a_warning(workdir, scored, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt(patch, 7)
        assert evaluate(workdir) == 130
    capsys.readouterr()
    assert evaluate(workdir, "--config.eval.tile=2") == 0
    assert "starts from the beginning" in capsys.readouterr().err
    assert json.loads((workdir / "evaluation-test.json").read_text()) == results(workdir)


def test_only_systems_that_score_pair_by_pair_keep_scores(workdir):
    retriever = Retriever.load(workdir)
    assert retriever.store("dev") == workdir / "scores" / "dev"
    retriever.model = get_model("vse")
    assert retriever.store("dev") is None


def test_scores_of_one_step(workdir):
    """Of an IMRAM trained on the sum over steps."""
    whole, first = Retriever.load(workdir), commands.load(workdir, None, {SCORE_STEP: "1"})
    data = whole.open(("test",)).splits["test"]
    codes = whole.evaluator.encode_split(whole.variables, data)
    pair = ("image", codes["image"]), ("text", codes["text"])
    steps = jax.jit(whole.model.step_scores)(whole.variables, codes["image"], codes["text"])
    np.testing.assert_allclose(first.score(*pair), steps[0], rtol=0, atol=1e-6)
    assert np.abs(first.score(*pair) - whole.score(*pair)).max() > 0.1

    assert evaluate(workdir, f"--config.{SCORE_STEP}=1") == 0
    found = json.loads((workdir / "evaluation-test.json").read_text())
    assert found["metrics"] == evaluate_all(
        ("worlds", "family"),
        np.asarray(steps[0]),
        data.groups["image"],
        data.groups["text"],
        families=data.families,
    )
    assert found["metrics"] != results(workdir)["metrics"]
    assert found["config_hash"] == config_hash(first.config) != results(workdir)["config_hash"]
    with pytest.warns(UserWarning, match=r"the recipe changes .*: model\.score_step: 0 -> 2"):
        given = Retriever.load(workdir, config(model="imram", model__score_step=2))
    np.testing.assert_allclose(given.score(*pair), steps[1], rtol=0, atol=1e-6)
