"""``bench index`` and ``bench shortlist``: their rows, and what they refuse."""

import json

import pytest
from tiny_run import finished

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


@pytest.mark.slow
def test_a_shortlist_of_all_is_the_exhaustive_search(capsys):
    row = _row(
        capsys, "shortlist", "--workdir", finished("imram"), "--candidates", "10,60", "--repeats", 1
    )
    assert list(row["directions"]) == ["i2t", "t2i"]
    for found in row["directions"].values():
        some, every = found["shortlists"]
        assert every["candidates"] == found["gallery"]
        assert every["kept"] == 1
        assert 0 < some["kept"] <= 1
        for name in ("R@1", "R@5", "R@10", "medR"):
            assert every[name] == found["exhaustive"][name]
        assert some["R@10"] <= 100


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["index", "--k", "0"], "at least 1"),
        (["index", "--vectors", "5", "--k", "6"], "at most --vectors"),
        (["index", "--vectors", "50", "--engine", "annoy"], "no engine 'annoy'"),
        (["shortlist"], "give its folder"),
        (["shortlist", "--workdir", "x", "--split", "all"], "one of train, dev, test"),
        (["shortlist", "--workdir", "x", "--candidates", "a"], "numbers from 1"),
        (["shortlist", "--workdir", "x", "--candidates", "0"], "numbers from 1"),
        (["shortlist", "--workdir", "{vse}"], "no shortlist is needed"),
    ],
)
def test_rejects_bad_arguments(arguments, sentence, capsys):
    assert bench.main(["bench", *[a.format(vse=finished("vse")) for a in arguments]]) == 2
    assert sentence in capsys.readouterr().err
