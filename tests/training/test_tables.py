"""Tables of a run: made of its training data, the same in training, evaluation and search."""

import jax
import numpy as np
import pytest
from tiny_run import config, finished, results, run

import hmgr_jax
from hmgr_jax.training.experiment import build
from hmgr_jax.training.tables import make_tables


@pytest.fixture(scope="module")
def experiment():
    return build(config(model="gin"))


def test_the_graph_relates_words_of_the_training_captions(experiment):
    matrix = experiment.tables["graph"]["dense"]
    words = experiment.data.vocabulary.words
    assert matrix.shape == (len(words), len(words))
    assert not matrix[:4].any()  # marks
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-7)
    assert (np.count_nonzero(matrix, axis=1)[words.index("red")]) >= experiment.model.knn_k
    spoken = {
        w for c in experiment.data.splits["train"].sources["text"].captions for w in c.split()
    }
    silent = next(w for w in words[4:] if w not in spoken and w.isalpha())
    assert not matrix[words.index(silent)].any()


def test_worlds_know_synonyms_without_a_file(experiment):
    model = type(experiment.model)(**experiment.model.hyperparameters() | {"word_relations": "K"})
    matrix = make_tables(model, experiment.config.data, lambda: experiment.data)["graph"]["dense"]
    number = {word: i for i, word in enumerate(experiment.data.vocabulary.words)}
    related = np.flatnonzero(matrix[number["small"]]).tolist()
    assert related == sorted([number["little"], number["tiny"]])


def test_systems_without_tables_make_none_and_open_nothing(experiment):
    def never():
        raise AssertionError

    model = build(config(model="vse")).model
    assert make_tables(model, experiment.config.data, never) is None


def test_a_file_of_a_wrong_graph_is_refused_before_anything_is_written(tmp_path, capsys):
    size = len(build(config(model="gin")).data.vocabulary)
    graph = tmp_path / "graph.txt"
    graph.write_text("\n" * 5 + f"7 {size}\n" + "\n" * (size - 6))
    workdir = tmp_path / "run"
    assert run(workdir, model="gin", data__word_graph=str(graph)) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{graph}:6 names node {size}" in said
    assert not (workdir / "metrics.jsonl").exists()


def test_a_loaded_run_scores_as_it_did_when_it_ended():
    workdir = finished("gin")
    loaded = hmgr_jax.load(workdir)
    split = loaded.open(("train", "dev", "test")).splits["test"]
    found = loaded.evaluate(split, ("worlds", "family"))
    ended = results(workdir)["metrics"]
    assert found == pytest.approx({name: ended[name] for name in found}, abs=1e-6)
    graphs = [jax.tree.leaves(t) for t in (loaded.variables.tables, build(loaded.config).tables)]
    for a, b in zip(*graphs, strict=True):
        np.testing.assert_array_equal(a, b)
