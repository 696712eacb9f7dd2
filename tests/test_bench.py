"""The bench command: one JSON row, or one sentence."""

import json

import pytest

from hmgr_jax import bench


def _row(capsys, line):
    assert bench.main(["bench", *line.split()]) == 0
    (row,) = capsys.readouterr().out.splitlines()
    return json.loads(row)


def test_pipeline(capsys):
    row = _row(capsys, "pipeline --batch 4 --images 40 --regions 2 --features 8 --count 12")
    assert row["shape"] == [40, 2, 8]
    assert (row["batches"], row["sparse"]) == (12, False)
    assert row["batches_per_second"] > 1
    assert row["bytes_per_second"] == pytest.approx(row["batches_per_second"] * 4 * 2 * 8 * 2)


def test_pictures(capsys):
    row = _row(capsys, "pictures --batch 2 --count 3 --size 16 --resize 20 --width 40 --height 30")
    assert (row["files"], row["batch"], row["workers"]) == (16, 2, 0)
    assert row["pictures_per_second"] > 1
    share = row["pictures_per_second"] / row["decode_per_second"]
    assert row["share_of_decoding"] == pytest.approx(share)


def test_recall(capsys):
    row = _row(capsys, "recall --images 10 --captions 50 --dim 4 --repeats 1")
    assert (row["images"], row["captions"], row["dim"]) == (10, 50, 4)


def test_help_lists_benchmarks_and_options(capsys):
    assert bench.main(["bench"]) == 0
    assert "a training step" in capsys.readouterr().out
    assert bench.main(["bench", "pipeline", "--help"]) == 0
    assert "--sparse-gb FLOAT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stp", "There is no benchmark 'stp': choose from step, pipeline, pictures, recall, index"),
        ("step --bach 3", "There is no flag '--bach'; did you mean --batch?"),
        ("step --batch many", "Argument --batch: invalid int value: 'many'"),
        ("step --batch 0", "Every size must be at least 1"),
        ("step --batch 3 --devices 2", "--batch is 3, which 2 devices cannot share."),
        ("step --devices 99", "--devices is 99, but this machine has 8: lower it."),
        ("step --dtype float16", "--dtype must be float32 or bfloat16, got 'float16'."),
        ("step --model hmgrr", "There is no model 'hmgrr'; did you mean 'hmgr'?"),
        ("pictures --batch 0", "Every size must be at least 1"),
        ("pictures --folder /none", "/none is not a folder"),
        ("pipeline --count 0", "Every size must be at least 1"),
        ("pipeline --batch 50 --images 20", "the batch size is 50 rows but train has only"),
        ("pipeline --folder /none", "The system refused /none"),
    ],
)
def test_rejects_bad_arguments(capsys, line, sentence):
    assert bench.main(["bench", *line.split()]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error
