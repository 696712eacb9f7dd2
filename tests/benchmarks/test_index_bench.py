"""``bench index``: its row, and the options that it refuses."""

import json

import pytest

from hmgr_jax import bench

pytest.importorskip("faiss", reason="needs faiss-cpu: pip install 'hmgr-jax[index]'")


def _row(capsys, *arguments):
    capsys.readouterr()
    assert bench.main(["bench", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_an_index_of_random_vectors(engine, capsys):
    sizes = ("--vectors", 900, "--dim", 8, "--queries", 20, "--k", 5)
    row = _row(capsys, "index", "--engine", engine, *sizes)
    assert row["recall@5"] == 1 if engine == "flat" else 0.8 < row["recall@5"] <= 1
    assert (row["effort"] is None) == (engine == "flat")
    assert row["vectors_bytes"] == 900 * 8 * 4
    for name in ("queries_per_second", "single_queries_per_second"):
        assert row[name] > 0


@pytest.mark.slow
def test_vectors_around_centres_are_nearer(capsys):
    sizes = ("--vectors", 300, "--dim", 64, "--queries", 5, "--engine", "ivf")
    row = _row(capsys, "index", *sizes, "--clusters", 3)
    assert row["clusters"] == 3
    assert row["recall@10"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["index", "--k", "0"], "at least 1"),
        (["index", "--vectors", "5", "--k", "6"], "at most --vectors"),
        (["index", "--vectors", "50", "--engine", "annoy"], "no engine 'annoy'"),
    ],
)
def test_rejects_bad_arguments(arguments, sentence, capsys):
    assert bench.main(["bench", *arguments]) == 2
    assert sentence in capsys.readouterr().err
