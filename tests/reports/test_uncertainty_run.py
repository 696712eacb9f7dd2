"""The report of uncertainties at the end of a run and of an evaluation."""

import json
import shutil

import numpy as np
import pytest
from tiny_run import finished, results, run

from hmgr_jax.data.generated.worlds import open_worlds
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.evaluation.evaluate import Evaluator, Scored
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.evaluation.tiles import Bucket
from hmgr_jax.main import main
from hmgr_jax.metrics.ranks import ranks
from hmgr_jax.metrics.uncertainty import rank_correlations
from hmgr_jax.models.pcme import PCME
from hmgr_jax.reports import uncertainty
from hmgr_jax.reports.finish import spread

FILES = ["uncertainty.csv", "uncertainty.html", "uncertainty.png"]
RHO = {"uncertainty/i2t/rank", "uncertainty/t2i/rank", "uncertainty/t2i/length"}


def found_in(folder, pattern="uncertainty*"):
    return sorted(path.name for path in folder.glob(pattern))


def test_a_run_ends_with_the_report(tmp_path, capsys):
    shutil.copytree(finished("pcme"), tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    assert run(tmp_path, model="pcme") == 0  # finished: it shows what there is
    said = capsys.readouterr().out
    assert found_in(tmp_path) == FILES
    for name in FILES:
        assert str(tmp_path / name) in said
        assert (tmp_path / name).stat().st_mtime_ns <= (
            tmp_path / "results.json"
        ).stat().st_mtime_ns
    assert "uncertainty/: Spearman's rho" in said
    metrics = results(tmp_path)["metrics"]
    assert {name for name in metrics if name.startswith("uncertainty/")} == RHO
    assert all(-1 <= metrics[name] <= 1 for name in RHO)
    assert f"uncertainty/i2t  {metrics['uncertainty/i2t/rank']:.2f}" in said

    # The same from the codes that a user gets.
    retriever, split = Retriever.load(tmp_path), open_worlds(0, 40, 8, 12).splits["test"]
    codes = retriever.evaluator.encode_split(retriever.variables, split)
    scores = retriever.score(("image", codes["image"]), ("text", codes["text"]))
    sigma = np.exp(codes["text"]["log_sigma"].mean(axis=1))
    rank = ranks(scores.T, split.groups["text"], split.groups["image"])
    lengths = split.sources["text"].lengths
    for what, value in rank_correlations(sigma, rank, length=lengths).items():
        assert metrics[f"uncertainty/t2i/{what}"] == pytest.approx(value, abs=1e-3)

    assert main(["main", "--mode=evaluate", f"--workdir={tmp_path}", "--split=dev"]) == 0
    assert found_in(tmp_path, "uncertainty-*") == [f.replace(".", "-dev.") for f in FILES]
    assert str(tmp_path / "uncertainty-dev.html") in capsys.readouterr().out
    evaluation = json.loads((tmp_path / "evaluation-dev.json").read_text())
    assert evaluation["metrics"].keys() >= RHO


def test_other_systems_have_none(capsys):
    assert found_in(finished()) == []
    assert "uncertainty" not in (finished() / "results.json").read_text()


def test_a_side_that_is_a_point(tmp_path):
    options = {"model__img_probemb": False, "model__test_distance": "mean"}
    assert run(tmp_path, model="pcme", train__steps=4, **options) == 0
    metrics = results(tmp_path)["metrics"]
    assert {n for n in metrics if n.startswith("uncertainty/")} == RHO - {"uncertainty/i2t/rank"}
    assert (tmp_path / "uncertainty.html").read_text("utf-8").count("<h2>") == 2


def _evaluator():
    model = PCME(dim=4, word_dim=2, vocabulary_size=9, regions=2, region_dim=3)
    return Evaluator(model, make_mesh(1))


def test_buckets_come_in_the_order_of_items():
    logs = np.log(np.arange(1.0, 6.0, dtype=np.float32))[:, None] * np.ones((1, 4), np.float32)
    parts = [np.array([3, 0]), np.array([4, 1, 2])]
    buckets = [Bucket(items, {"log_sigma": logs[items]}) for items in parts]
    np.testing.assert_allclose(_evaluator().uncertainty(buckets), np.arange(1, 6), rtol=1e-6)
    points = [Bucket(items, {"mu": logs[items]}) for items in parts]
    assert _evaluator().uncertainty(points) is None


def test_a_failed_report_keeps_the_metrics(tmp_path):
    split = open_worlds(0, 4, 4, 4).splits["test"]
    more = uncertainty.reporter(_evaluator(), tmp_path, split, title="t")
    logs = np.zeros((4, 4), np.float32)
    logs[2] = np.nan
    scores = np.random.default_rng(0).random((4, 20)).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="no report .* uncertainty of item 2 is nan"):
        assert more(Scored(("image", "text"), scores, {"image": {"log_sigma": logs}})) == {}
    assert found_in(tmp_path) == []


def test_seeds_of_which_one_has_no_rho(tmp_path):
    run = {"model": "pcme", "protocol": "plain", "split": "test", "step": 1, "config_hash": ""}
    runs = {
        seed: run | {"metrics": {"rsum": 3.0 + seed} | more}
        for seed, more in enumerate([{"uncertainty/i2t/rank": 0.5}, {}])
    }
    assert spread(runs, "worlds", tmp_path)["metrics"].keys() == {"rsum"}


def test_another_distance_and_protocols_of_a_finished_run(tmp_path, capsys, monkeypatch):
    shutil.copytree(finished("pcme"), tmp_path, dirs_exist_ok=True)
    evaluate = ["main", "--mode=evaluate", f"--workdir={tmp_path}"]

    def rsum(*overrides):
        assert main([*evaluate, *overrides]) == 0
        return json.loads((tmp_path / "evaluation-test.json").read_text())["metrics"]["rsum"]

    found = {name: rsum(f"--config.model.test_distance={name}") for name in ("mean", "kl", "min")}
    assert len(set(found.values())) == 3, found
    assert rsum() == results(tmp_path)["metrics"]["rsum"]
    capsys.readouterr()

    def encode(*_, **__):
        raise AssertionError("nothing is encoded for a protocol that does not fit")

    monkeypatch.setattr(Evaluator, "encode", encode)
    assert main([*evaluate, "--config.eval.protocols=pmrp"]) == 2
    assert "protocol pmrp needs the objects of all 12 items" in capsys.readouterr().err


def test_pvse_by_a_recipe_of_pcme(tmp_path):
    triplet = {"model__objective": "triplet", "model__test_distance": "proposals"}
    points = {"model__img_probemb": False, "model__txt_probemb": False, "model__proposals": 2}
    unclipped = {"train__unclipped": "match", "train__steps": 2, "train__eval_steps": 2}
    assert run(tmp_path / "run", model="pcme", **triplet, **points, **unclipped) == 0
    assert found_in(tmp_path / "run") == []
