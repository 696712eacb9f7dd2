"""Runs that come first: made once, gone on with, handed over; and banks that are swapped."""

import json
import shutil
import signal

import numpy as np
import pytest
from contract_cases import compilations
from tiny_run import arguments, config, files, finished, results, run

import hmgr_jax
from hmgr_jax import modes
from hmgr_jax.data.generated.worlds.questions import ANSWERS
from hmgr_jax.main import main
from hmgr_jax.models.base import Banks
from hmgr_jax.search import needs, retrieved
from hmgr_jax.training import loop

FINDER = "needs/finder"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run with what it needed: to be read or copied."""
    folder = tmp_path_factory.mktemp("xtra") / "run"
    assert run(folder, model="xtra") == 0
    return folder


@pytest.mark.slow
def test_one_command_makes_what_a_run_needs_and_the_run(done):
    first = json.loads((done / FINDER / "results.json").read_text())
    assert (first["model"], first["split"]) == ("vse", "test")
    found = results(done)
    assert set(found["metrics"]) == {
        f"vqa/{kind}" for kind in ("accuracy", "seen", "maker", "material")
    }
    kept = np.load(done / "retrieved" / "main-image-captions.npz")["retrieved"]
    assert kept.shape == (40 + 8 + 12, 3)
    assert (kept // 2 != np.arange(60)[:, None]).all()  # two captions a scene; none of its own
    answers = json.loads((done / "answers.json").read_text())
    assert len(answers) == 6 * 12
    assert answers[0].keys() == {"question_id", "answer"}
    assert {one["answer"] for one in answers} <= set(ANSWERS)


@pytest.mark.slow
def test_a_finished_run_prints_its_results_and_nothing_is_made_again(done, monkeypatch):
    before = files(done)
    monkeypatch.setattr(retrieved, "_search", None)
    assert run(done, model="xtra") == 0
    assert files(done) == before


@pytest.mark.slow
def test_a_run_that_goes_on_searches_no_more(done, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(done, copy)
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "12")
    monkeypatch.setattr(retrieved, "_search", None)
    assert run(copy, model="xtra") == 0
    assert results(copy) == results(done)
    assert (copy / "metrics.jsonl").read_bytes() == (done / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_signal_before_the_run_leaves_what_was_needed_to_go_on_with(tmp_path, monkeypatch):
    real = loop._Run._log

    def stop(self, step, report):
        real(self, step, report)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop._Run, "_log", stop)
    assert run(tmp_path / "run", model="xtra") == 0
    assert (tmp_path / "run" / FINDER / "checkpoints").is_dir()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not in the vocabulary")  # the facts of questions
def test_a_run_elsewhere_is_used_as_it_is(tmp_path):
    finder = finished()
    before = files(finder)
    assert run(tmp_path / "run", model="xtra", needs__finder=finder, train__steps=4) == 0
    assert files(finder) == before
    assert not (tmp_path / "run" / "needs").exists()


@pytest.mark.slow
def test_nothing_retrieved_needs_no_retriever(tmp_path):
    options = {"model__k_train": 0, "model__k_test": 0, "train__steps": 4}
    chosen = config(model="xtra", **options)
    with chosen.unlocked():
        del chosen.needs["finder"]
    assert modes.train_run(chosen, tmp_path / "run")["model"] == "xtra"


def test_tables_of_a_retriever_that_was_trained_again_are_not_used(tmp_path):
    chosen = config(model="xtra")
    (name,) = chosen.needs
    sealed = tmp_path / needs.FOLDER / name / "digests" / "12.json"
    sealed.parent.mkdir(parents=True)
    sealed.write_text('{"a": 1}')
    first = needs.retriever_digest(chosen, tmp_path)
    path, rows = tmp_path / "kept.npz", {"retrieved": np.zeros((2, 3), np.int32)}
    retrieved._write(path, rows, {"bank": "b", "retriever": first})
    assert retrieved._read(path, {"bank": "b", "retriever": first}) is not None
    sealed.write_text('{"a": 2}')
    second = needs.retriever_digest(chosen, tmp_path)
    assert retrieved._read(path, {"bank": "b", "retriever": second}) is None
    sealed.unlink()  # a retriever that is gone cannot have changed
    gone = needs.retriever_digest(chosen, tmp_path)
    assert retrieved._read(path, {"bank": "b", "retriever": gone}) is not None


@pytest.mark.slow
def test_another_bank_and_another_k_at_evaluation(done, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(done, copy)
    command = ["main", "--mode=evaluate", f"--workdir={copy}"]
    for bank, k in (("other", 3), ("random", 1), ("main", 0), ("main", 4)):
        flags = [f"--config.model.index_test={bank}", f"--config.model.k_test={k}"]
        assert main([*command, *flags]) == 0
    made = {path.stem for path in (copy / "retrieved").iterdir()}
    assert {"main-image-captions", "other-image-captions", "random-image-captions"} == made
    more = np.load(copy / "retrieved" / "main-image-captions.npz")["retrieved"]
    kept = np.load(done / "retrieved" / "main-image-captions.npz")["retrieved"]
    np.testing.assert_array_equal(more[:, :3], kept)  # of four, found for k of 4, the first three
    drawn = np.load(copy / "retrieved" / "random-image-captions.npz")["retrieved"]
    assert (drawn // 2 != np.arange(60)[:, None]).all()
    capsys.readouterr()
    assert main([*command, "--config.model.index_test=mian"]) == 2
    assert "no bank 'mian'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bank_is_swapped_in_a_loaded_run_without_compiling(done):
    """And the answers that stand in captions change with it."""
    loaded = hmgr_jax.load(done)
    split = loaded.open(("test",)).splits["test"]
    first = loaded.evaluator.encode(loaded.variables, "question", split.sources["question"])
    wanted: Banks = loaded.model.banks
    data = loaded.open(("train", "dev", "test"))
    other = retrieved.retrieved_tables(wanted, "other", loaded.config, data, done)
    variables = loaded.variables.replace(tables=other)
    variables = loaded.evaluator.to_local_devices(variables)
    before = compilations()
    second = loaded.evaluator.encode(variables, "question", split.sources["question"])
    assert compilations() == before
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"needs__finder": "nowhere.py:vse"}, "There is no recipe 'nowhere.py'"),
        ({"model__index_train": "mian"}, "no bank 'mian': choose from main, other, random"),
        ({"data__source": "worlds", "data__buckets": "24"}, "xtra reads question and answer"),
    ],
)
def test_rejects_bad_needs_before_training(options, sentence, tmp_path, capsys):
    assert run(tmp_path / "run", model="xtra", **options) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_system_retrieves_with_one_run(tmp_path, capsys):
    options = {"needs__finder": finished(), "needs__more": finished()}
    assert run(tmp_path / "run", model="xtra", **options) == 2
    assert "config.needs names finder, more" in capsys.readouterr().err


@pytest.mark.slow
def test_a_retriever_must_be_of_inner_products(tmp_path, capsys):
    options = {"needs__finder": finished("imram"), "train__steps": 4}
    assert main(arguments(tmp_path / "run", model="xtra", **options)) == 2
    assert "holds a imram, but a retriever must find captions" in capsys.readouterr().err


def test_needs_are_beside_the_run_or_where_they_are_named(tmp_path):
    chosen = config(model="xtra")
    assert needs.folder(chosen, tmp_path, "finder") == tmp_path / FINDER
    other = config(model="xtra", needs__finder=finished())
    assert needs.folder(other, tmp_path, "finder") == finished()
