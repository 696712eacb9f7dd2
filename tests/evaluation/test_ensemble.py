"""``--ensemble``: the mean of the score matrices of several runs, by the first one's protocols."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny_run import finished, results

import hmgr_jax
from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation import all_pairs
from hmgr_jax.evaluation.ensemble import mean_of_runs
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.main import main
from hmgr_jax.metrics.protocols import evaluate_all
from hmgr_jax.training.config import config_hash


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(finished(), tmp_path / "run")


def ensemble(workdir, *others, more=()):
    command = ["main", "--mode=evaluate", f"--workdir={workdir}", *more, "--ensemble"]
    return main([*command, *map(str, others)])


def written(workdir, split="test"):
    return json.loads((workdir / f"ensemble-{split}.json").read_text())


def matrix(workdir):
    """(scores of the test split, the split)."""
    retriever = hmgr_jax.load(workdir)
    split = retriever.open(("test",)).splits["test"]
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    return retriever.score(("image", codes["image"]), ("text", codes["text"])), split


def test_the_mean_of_two_systems_by_hand(workdir, capsys):
    other = finished("imram")
    assert ensemble(workdir, other) == 0
    found = written(workdir)
    (a, split), (b, _) = matrix(workdir), matrix(other)
    assert np.abs(a - b).max() > 0.01
    groups = split.groups
    expected = evaluate_all(
        ("worlds", "family"),
        (a + b) / 2,
        groups["image"],
        groups["text"],
        families=split.families,
    )
    assert found["metrics"] == expected
    assert found["metrics"] not in (results(workdir)["metrics"], results(other)["metrics"])
    names = ("model", "step", "config_hash")
    assert found["runs"] == [{n: results(r)[n] for n in names} for r in (workdir, other)]
    assert found["runs"][0]["config_hash"] == config_hash(hmgr_jax.load(workdir).config)
    assert (found["model"], found["split"]) == ("vse+imram", "test")
    assert found["protocol"] == results(workdir)["protocol"]
    assert found["data_fingerprint"] == results(workdir)["data_fingerprint"]
    out = capsys.readouterr().out
    assert "vse+imram on worlds, test, mean scores of 2 runs" in out
    assert f"results:    {workdir / 'ensemble-test.json'}" in out
    assert f"{expected['t2i/R@1']:.1f}" in out
    assert not (other / "ensemble-test.json").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_with_itself_is_itself(workdir, times):
    assert ensemble(workdir, *[workdir] * times) == 0
    assert written(workdir)["metrics"] == results(workdir)["metrics"]
    assert len(written(workdir)["runs"]) == 1 + times


def test_values_change_all_runs_and_dev_has_its_protocols(workdir):
    more = ("--split=dev", "--config.eval.dev_protocols=plain", "--config.data.worlds.dev=16")
    assert ensemble(workdir, finished("imram"), more=more) == 0
    found = written(workdir, "dev")
    assert found["protocol"] == "plain"
    assert len(found["metrics"]) == 11


def refused(argv, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def other_data(key, value):
    def change(config):
        config.data.worlds[key] = value
        return config

    return Retriever.load(finished("imram"), change=change)


def other_split(**changed):
    """A run whose test split differs in what ``changed`` names."""
    run = Retriever.load(finished("imram"))
    data = run.open(("test",))
    split = dataclasses.replace(data.splits["test"], **changed)
    run.open = lambda roles: dataclasses.replace(data, splits={"test": split})
    return run


TEST = open_worlds(0, 4, 4, 12).splits["test"]
IDS, GROUPS = TEST.ids, TEST.groups


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: other_data("test", 8), "other image ids in test than .* .12 there and 8 here.:"),
        # the same names, other scenes:
        (lambda: other_data("seed", 1), "other text captions in test .* .number 0 is '.*' there"),
        (
            lambda: other_split(ids=IDS | {"image": [*IDS["image"][:-1], "x.jpg"]}),
            "other image ids in test .* .number 11 is 'test/000011' there and 'x.jpg' here.:",
        ),
        (
            lambda: other_split(groups=GROUPS | {"text": GROUPS["text"][::-1]}),
            "other text groups in test .* .number 0 is 0 there and 11 here.:",
        ),
    ],
    ids=["number", "captions", "ids", "groups"],
)
def test_other_items_are_refused_before_anything_is_scored(make, sentence, monkeypatch):
    runs = [Retriever.load(finished()), make()]
    monkeypatch.setattr(Evaluator, "encode_split", None)
    with pytest.raises(UserError, match=sentence):
        mean_of_runs(runs, "test")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--mode=encode --workdir X --ensemble Y", "--ensemble is for --mode=evaluate, not for"),
        ("--ensemble Y", "--ensemble is for --mode=evaluate, not for --mode=train"),
        ("--mode=evaluate --ensemble Y", "--mode=evaluate needs a trained run"),
        ("--mode=evaluate --workdir X --ensemble", "expected at least one argument"),
        (
            "--mode=evaluate --workdir X --config configs/worlds.py --ensemble Y",
            "leave --config out and give --workdir",
        ),
        ("--mode=evaluate --workdir X --ensemble /none", "X holds no checkpoints"),
    ],
)
def test_rejects_bad_flags(capsys, flags, sentence):
    assert sentence in refused(["main", *flags.split()], capsys)


def test_a_score_that_is_not_finite_names_its_run(workdir, monkeypatch, capsys):
    other, real = finished("imram"), Evaluator.scores

    def scores(self, *arguments, **options):
        found = real(self, *arguments, **options)
        if type(self.model).__name__ == "IMRAM":
            found[3, 7] = np.nan
        return found

    monkeypatch.setattr(Evaluator, "scores", scores)
    line = refused(
        ["main", "--mode=evaluate", f"--workdir={workdir}", "--ensemble", str(other)], capsys
    )
    assert f"{other}: every score must be finite, found nan in row 3, column 7" in line
    assert not (workdir / "ensemble-test.json").exists()
    shutil.rmtree(other / "scores")


def test_scores_are_kept_until_the_result_is_written(workdir, tmp_path, monkeypatch):
    """Interrupted before that, the next start scores nothing again."""
    first = shutil.copytree(finished("imram"), tmp_path / "imram")
    second = shutil.copytree(first, tmp_path / "again")
    tiles, real = [], all_pairs._score

    def score(*arguments, **options):
        tiles.append(1)
        return real(*arguments, **options)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(all_pairs, "_score", score)
    monkeypatch.setattr(Retriever, "store", lambda self, role: self.workdir / "scores" / role)
    with monkeypatch.context() as patch:
        patch.setattr("hmgr_jax.evaluation.ensemble.evaluate_all", stop)
        assert ensemble(first, workdir) == 130
    assert len(tiles) > 0
    assert (first / "scores" / "test" / "image-text" / "scores.npy").exists()
    del tiles[:]
    assert ensemble(first, workdir) == 0
    assert tiles == []
    assert not (first / "scores").exists()
    assert not (workdir / "scores").exists()
    found = written(first)
    assert ensemble(second, workdir) == 0
    assert len(tiles) > 0
    assert written(second) == found
