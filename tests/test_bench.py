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


def test_match(capsys):
    row = _row(capsys, "match --batch 4 --dim 6 --samples 3 --images 5 --captions 11 --repeats 1")
    loss, scoring = row["loss"], row["scoring"]
    # Twelve samples of either side, three products of them.
    assert loss["matmul_flops"] == loss["products_flops"] == 3 * 2 * 12 * 12 * 6
    assert loss["memory_bytes"] > 4 * 2 * 2 * 12 * 6  # the samples and their gradients
    assert loss["times_the_products"] > 0
    assert scoring["pairs_per_second"] == pytest.approx(55 / scoring["seconds"])
    assert scoring["largest_probability"] > 0.1
    assert scoring["off_probability"] < 1e-5
    assert scoring["off_log_probability"] < 1e-4


def test_edgeconv(capsys):
    sizes = "--batch 2 --points 24 --neighbours 5 --channels 4 --features 8 --repeats 1"
    row = _row(capsys, f"edgeconv {sizes}")
    for kind in ("inference", "training"):
        split, concatenated = (row[kind][form] for form in ("split", "concatenated"))
        assert 0 < split["memory_bytes"] < concatenated["memory_bytes"]
        assert max(row[kind]["apart"].values()) < 1e-5
        assert split["seconds"] > 0


def test_help(capsys):
    assert bench.main(["bench"]) == 0
    assert "step         a training step" in capsys.readouterr().out
    assert bench.main(["bench", "pipeline", "--help"]) == 0
    assert "--sparse-gb 0.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("stp", "There is no benchmark 'stp': choose from step, pipeline, pictures, recall, match"),
        ("step --bach 3", "There is no flag '--bach'; did you mean --batch?"),
        ("step --batch many", "Argument --batch: invalid int value: 'many'"),
        ("step --batch 0", "Every size must be at least 1"),
        ("step --batch 3 --devices 2", "--batch is 3, which 2 devices cannot share."),
        ("step --devices 99", "--devices is 99, but this machine has 8."),
        ("step --dtype float16", "--dtype is float32 or bfloat16, not 'float16'."),
        ("step --model hmgrr", "There is no model 'hmgrr'; did you mean 'hmgr'?"),
        ("pictures --batch 0", "Every size must be at least 1"),
        ("pictures --folder /none", "/none is not a folder"),
        ("pipeline --count 0", "Every size must be at least 1"),
        ("pipeline --batch 50 --images 20", "the batch size is 50 rows but train has only"),
        ("match --samples 0", "Every size must be at least 1"),
        ("soak --kills 0", "--kills is 0: ask for at least one."),
        ("pipeline --folder /none", "The system refused /none"),
    ],
)
def test_mistakes(capsys, line, sentence):
    assert bench.main(["bench", *line.split()]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error
