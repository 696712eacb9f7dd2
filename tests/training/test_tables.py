"""Tables of a run: made of its training data, the same in training, evaluation and search."""

import jax
import numpy as np
import pytest
from tiny_run import config, finished, results, run

import hmgr_jax
from hmgr_jax.errors import UserError
from hmgr_jax.search.retrieved import run_tables
from hmgr_jax.training.experiment import build
from hmgr_jax.training.tables import FILE, TrainBags, keep_tables, make_tables, read_tables


@pytest.fixture(scope="module")
def experiment():
    return build(config(model="gin"))


def test_the_graph_relates_words_of_the_training_captions(experiment):
    matrix = run_tables(experiment, None).train["graph"]["dense"]
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


@pytest.mark.slow
def test_a_loaded_run_scores_as_it_did_when_it_ended():
    workdir = finished("gin")
    loaded = hmgr_jax.load(workdir)
    split = loaded.open(("train", "dev", "test")).splits["test"]
    found = loaded.evaluate(split, ("worlds", "family"))
    ended = results(workdir)["metrics"]
    assert found == pytest.approx({name: ended[name] for name in found}, abs=1e-6)
    graphs = [
        jax.tree.leaves(t)
        for t in (loaded.variables.tables, run_tables(build(loaded.config), None).train)
    ]
    for a, b in zip(*graphs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:the configuration differs")
def test_a_run_keeps_its_graph_whatever_becomes_of_the_file(tmp_path, capsys):
    size = len(build(config(model="gin")).data.vocabulary)
    graph = tmp_path / "graph.txt"
    graph.write_text("\n" * 5 + "7\n" + "\n" * (size - 6))
    workdir = tmp_path / "run"
    assert run(workdir, model="gin", data__word_graph=str(graph), train__steps=4) == 0
    kept = hmgr_jax.load(workdir).variables.tables["graph"]["dense"]
    np.testing.assert_array_equal(np.argwhere(kept), [[5, 7], [7, 5]])
    graph.write_text("\n" * 5 + "8\n" + "\n" * (size - 6))
    capsys.readouterr()
    assert run(workdir, model="gin", data__word_graph=str(graph), train__steps=8) == 2
    assert "differs from" in capsys.readouterr().err
    graph.unlink()
    again = hmgr_jax.load(workdir).variables.tables["graph"]["dense"]
    np.testing.assert_array_equal(again, kept)


def test_kept_tables_are_the_same_or_refused(tmp_path):
    tables = {"graph": {"weight": np.arange(3.0), "senders": np.arange(3)}, "rarity": np.ones(2)}
    keep_tables(tmp_path, tables)
    keep_tables(tmp_path, tables)
    found = read_tables(tmp_path)
    assert jax.tree.structure(found) == jax.tree.structure(tables)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tables), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in ({"graph": tables["graph"]}, tables | {"rarity": np.zeros(2)}):
        with pytest.raises(UserError, match="with which the run began"):
            keep_tables(tmp_path, other)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="delete it to compute it again"):
        read_tables(tmp_path)


# Six words: 0 to 2 stand together, and 3 and 4; nobody says 5.
BAGS = np.zeros((40, 6), np.float32)
BAGS[:20, :3] = np.random.default_rng(0).poisson(1.5, (20, 3))
BAGS[20:, 3:5] = 1 + np.random.default_rng(1).poisson(1.5, (20, 2))


class Files:
    """The ``data`` part of a configuration."""

    def __init__(self, vectors="none", word_graph=""):
        self.vectors, self.word_graph = str(vectors), word_graph

    def get(self, name):
        return getattr(self, name)


def test_words_of_bags_are_related_as_those_of_captions():
    bags = TrainBags(Files(), BAGS)
    np.testing.assert_array_equal(bags.usable(), [True] * 5 + [False])
    vectors = bags.vectors(3)
    norms = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ vectors.T / np.maximum(np.outer(norms, norms), 1e-9)
    assert not vectors[5].any()
    assert min(cosine[0, 1], cosine[1, 2], cosine[3, 4]) > 0.4 > np.abs(cosine[:3, 3:5]).max()
    assert {tuple(edge) for edge in bags.together(2, 0.0)} == {(0, 1), (0, 2), (1, 2), (3, 4)}
    assert bags.inverse_frequencies().argmax() == 5
    assert bags.given_graph() is None
    shares = BAGS / np.maximum(BAGS.sum(axis=1, keepdims=True), 1)  # topics, tf-idf
    of_shares = TrainBags(Files(), shares).vectors(3)
    assert np.isfinite(of_shares).all()
    np.testing.assert_allclose(of_shares[:3] @ of_shares[3:].T, 0, atol=1e-5)


def test_vectors_of_the_numbers_of_bags_come_from_an_array(tmp_path):
    wanted = np.arange(18, dtype=np.float64).reshape(6, 3)
    np.save(tmp_path / "vectors.npy", wanted)
    found = TrainBags(Files(tmp_path / "vectors.npy"), BAGS).vectors(300)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))
    np.save(tmp_path / "short.npy", wanted[:4])
    with pytest.raises(UserError, match=r"an array of shape \(4, 3\), but texts are vectors of 6"):
        TrainBags(Files(tmp_path / "short.npy"), BAGS).vectors(300)
    with pytest.raises(UserError, match=r"no \.npy file, but texts are vectors of 6"):
        TrainBags(Files(tmp_path / "vectors.txt"), BAGS).vectors(300)
    with pytest.raises(UserError, match="cannot be read"):
        TrainBags(Files(tmp_path / "none.npy"), BAGS).vectors(300)


def test_rejects_bags_that_hold_no_words(tmp_path):
    with pytest.raises(UserError, match="vectors without words: leave K out"):
        TrainBags(Files(), BAGS).triples()
    graph = tmp_path / "graph.txt"
    graph.write_text("1\n")
    with pytest.raises(UserError, match="has 1 lines, but texts are vectors of 6 numbers"):
        TrainBags(Files(word_graph=str(graph)), BAGS).given_graph()
    with pytest.raises(UserError, match="vectors hold -1, which is no count"):
        TrainBags(Files(), BAGS - 1).vectors(3)
