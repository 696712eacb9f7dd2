"""Benchmarks of the checkout: one JSON row each, or one sentence."""

import json

import pytest
from tiny_run import finished

from benchmarks import edgeconv, graph, match, shortlist, soak
from hmgr_jax import bench

pytestmark = pytest.mark.slow


def _row(capsys, benchmark, line):
    capsys.readouterr()
    assert bench.main_of(benchmark, ["bench", *line.split()]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_match_agrees_with_the_direct_form(capsys):
    row = _row(
        capsys, match.run, "--batch 4 --dim 6 --samples 3 --images 5 --captions 11 --repeats 1"
    )
    loss, scoring = row["loss"], row["scoring"]
    # Twelve samples of either side, three products of them.
    assert loss["matmul_flops"] == loss["products_flops"] == 3 * 2 * 12 * 12 * 6
    assert loss["memory_bytes"] > 4 * 2 * 2 * 12 * 6  # the samples and their gradients
    assert loss["times_the_products"] > 0
    assert scoring["pairs_per_second"] == pytest.approx(55 / scoring["seconds"])
    assert scoring["largest_probability"] > 0.1
    assert scoring["off_probability"] < 1e-5
    assert scoring["off_log_probability"] < 1e-4


def test_both_forms_of_edgeconv_agree(capsys):
    sizes = "--batch 2 --points 24 --neighbours 5 --channels 4 --features 8 --repeats 1"
    row = _row(capsys, edgeconv.run, sizes)
    for kind in ("inference", "training"):
        split, concatenated = (row[kind][form] for form in ("split", "concatenated"))
        assert 0 < split["memory_bytes"] < concatenated["memory_bytes"]
        assert max(row[kind]["apart"].values()) < 1e-5
        assert split["seconds"] > 0


def test_dense_and_sparse_graphs_agree(capsys):
    sizes = "--words 40 --vector-dim 6 --neighbours 3 --batch 4 --repeats 1"
    row = _row(capsys, graph.run, sizes)
    assert 40 * 3 <= row["edges"] <= 2 * 40 * 3
    assert row["sparse"]["graph_bytes"] < row["dense"]["graph_bytes"] == 4 * 40 * 40
    assert row["apart"] < 1e-5


def test_a_shortlist_of_all_items_equals_the_exhaustive_search(capsys):
    options = f"--workdir {finished('imram')} --candidates 10,60 --repeats 1"
    row = _row(capsys, shortlist.run, options)
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
    ("benchmark", "line", "sentence"),
    [
        (match, "--samples 0", "Every size must be at least 1"),
        (edgeconv, "--points 3", "--points at least --neighbours"),
        (graph, "--words 5", "--words above --neighbours"),
        (soak, "--kills 0", "--kills must be at least 1, got 0."),
        (shortlist, "", "--workdir is missing: give the folder of a trained run."),
        (shortlist, "--workdir x --split all", "--split must be one of train, dev, test"),
        (shortlist, "--workdir x --candidates a", "--candidates must be numbers"),
        (shortlist, "--workdir x --candidates 0", "--candidates must be numbers"),
        (shortlist, "--workdir {vse}", "no shortlist is needed"),
    ],
)
def test_rejects_bad_arguments(capsys, benchmark, line, sentence):
    line = line.format(vse=finished("vse")) if "{vse}" in line else line
    assert bench.main_of(benchmark.run, ["bench", *line.split()]) == 2
    assert sentence in capsys.readouterr().err
