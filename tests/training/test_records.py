"""Rows of a run: equal runs write equal bytes, also when one was interrupted."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.training.records import MetricLog, read_rows


@pytest.fixture
def opened(tmp_path):
    made = []

    def open_(name="run"):
        made.append(MetricLog(tmp_path / name))
        return made[-1]

    yield open_
    for log in made:
        log.close()


def values(step):
    return {"loss": jnp.float32(1 / (step + 1)), "lr": 1e-4 * step}


def events(folder):
    """(step, {tag: value} or "start") of all event files, oldest file first."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                found.append((event.step, "start"))
            elif event.summary.value:
                found.append((event.step, {v.tag: v.simple_value for v in event.summary.value}))
    return found


def test_a_row_holds_the_step_and_exact_floats(opened, tmp_path):
    log = opened()
    log.write(3, {"loss": jnp.float32(0.1), "n": np.int32(2), "dev/i2t/R@1": 50})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()  # on disk before close
    assert text == ('{"step": 3, "loss": 0.10000000149011612, "n": 2.0, "dev/i2t/R@1": 50.0}\n')
    log.write(np.int64(4), {"loss": 0.1 + 0.2})
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[1] == {"step": 4, "loss": 0.1 + 0.2}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), jnp.float32(-jnp.inf)])
def test_rejects_non_finite_values_and_writes_nothing(opened, tmp_path, bad):
    log = opened()
    log.write(1, {"loss": 1.0})
    with pytest.raises(FoundNonFinite, match=r"hinge at step 2 must be finite, got"):
        log.write(2, {"loss": 1.0, "hinge": bad})
    assert [row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")] == [1]


def test_step_is_not_a_value(opened):
    with pytest.raises(ValueError, match="'step'"):
        opened().write(1, {"step": 2.0})


@pytest.mark.parametrize("half", ["", '{"step": 7, "lo', '{"step": 7}', "\0\0\0", "7\n"])
def test_an_interrupted_run_ends_with_the_same_bytes(opened, tmp_path, half):
    whole = opened("whole")
    for step in range(1, 10):
        whole.write(step, values(step))
        if step % 3 == 0:
            whole.write(step, {"dev/rsum": 100.0 + step})
    first = opened("run")
    for step in range(1, 9):
        first.write(step, values(step))
        if step % 3 == 0:
            first.write(step, {"dev/rsum": 100.0 + step})
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(half)
    second = opened("run")
    second.cut_after(6)
    for step in range(7, 10):
        second.write(step, values(step))
        if step % 3 == 0:
            second.write(step, {"dev/rsum": 100.0 + step})
    files = [tmp_path / name / "metrics.jsonl" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_cutting_keeps_whole_lines_as_they_are(opened, tmp_path):
    file = tmp_path / "run" / "metrics.jsonl"
    file.parent.mkdir()
    file.write_text('{"step":1,  "x": 1e0}\nbroken\n{"step": 2, "x": 2.0}\n{"step": 1, "y": 3}')
    opened().cut_after(1)
    assert file.read_text() == '{"step":1,  "x": 1e0}\n{"step": 1, "y": 3}\n'
    assert read_rows(file) == [{"step": 1, "x": 1.0}, {"step": 1, "y": 3}]
    opened().cut_after(-1)
    assert file.read_text() == ""


def test_cutting_before_anything_was_written(opened, tmp_path):
    opened("absent").cut_after(5)
    assert read_rows(tmp_path / "absent" / "metrics.jsonl") == []


def test_timing_has_its_own_file_and_is_cut_too(opened, tmp_path):
    log = opened()
    log.write(1, {"loss": 1.0})
    log.write_timing(1, {"items_per_second": 10.0})
    log.write_timing(2, {"items_per_second": 20.0})
    log.cut_after(1)
    assert read_rows(tmp_path / "run" / "timing.jsonl") == [{"step": 1, "items_per_second": 10.0}]
    assert "items" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_tensorboard_gets_the_rows_and_forgets_the_cut_ones(opened, tmp_path):
    log = opened()
    log.write(1, {"loss": 0.5, "dev/i2t/R@1": 25.0})
    log.write(2, {"loss": 0.25})
    log.close()
    again = opened()
    again.cut_after(1)
    again.write(2, {"loss": 0.125})
    again.close()
    found = events(tmp_path / "run" / "tensorboard")
    assert found == [
        (1, {"loss": 0.5}),
        (1, {"dev/i2t/R_1": 25.0}),
        (2, {"loss": 0.25}),
        (2, "start"),  # tells TensorBoard to drop what came before from step 2 on
        (2, {"loss": 0.125}),
    ]


def test_rows_are_json_lines(opened, tmp_path):
    log = opened()
    for step in range(3):
        log.write(step, values(step))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


@pytest.mark.parametrize("harm", ["lost", "changed", "gone", None])
def test_rows_that_were_lost_after_a_save_are_missed(opened, tmp_path, harm):
    log = opened()
    for step in (1, 2):
        log.write(step, values(step))
    written = log.digest()
    log.write(3, values(3))  # after the save
    log.close()
    path = tmp_path / "run" / "metrics.jsonl"
    text = path.read_text()
    if harm == "lost":
        path.write_text("".join(text.splitlines(keepends=True)[1:]))
    elif harm == "changed":
        path.write_text(text.replace("1", "7", 1))
    elif harm == "gone":
        path.unlink()
    again = opened()
    if harm:
        with pytest.warns(RuntimeWarning, match="metrics.jsonl was changed or has lost rows"):
            again.check(written)
    else:
        again.check(written)
        again.cut_after(2)
        assert again.digest() == written
    again.check(None)  # of an older version
