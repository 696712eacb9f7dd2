"""The scaling benchmark: what is measured, a row of it, its processes, its table and picture."""

import io
import json

import pytest
from rich.console import Console

from benchmarks.scaling.children import in_children
from benchmarks.scaling.grid import Configuration, compared, grid
from benchmarks.scaling.measure import measure
from benchmarks.scaling.picture import draw
from benchmarks.scaling.table import print_tables
from hmgr_jax.benchmarks.program import Program
from hmgr_jax.benchmarks.workload import Workload
from hmgr_jax.distributed.parallel import make_mesh
from hmgr_jax.errors import UserError

pytestmark = pytest.mark.slow

TINY = Workload("vse", 8, 8, regions=3, region_dim=5, words=4, vocabulary=20)
"""The program of the step benchmark's tests: the compile cache has it."""
ONCE = {"repeats": 3, "matmul_size": 16, "compile_only": False}


def test_grid():
    found = [(c.mode, c.processes, c.devices, c.workload.batch) for c in grid(TINY, [2, 1], [1, 2])]
    assert found == [
        ("weak", 1, 1, 8),
        ("weak", 1, 2, 16),
        ("weak", 2, 2, 16),
        ("strong", 1, 1, 8),
        ("strong", 1, 2, 8),
        ("strong", 2, 2, 8),
    ]
    with pytest.raises(UserError, match="--batch is 8, which 3 devices cannot share"):
        grid(TINY, [1, 3])
    with pytest.raises(UserError, match="No number in --devices"):
        grid(TINY, [1, 3], [2])
    with pytest.raises(UserError, match="at least 1"):
        grid(TINY, [0, 1])


@pytest.fixture(scope="module")
def rows():
    found = []
    for configuration in grid(TINY, [1, 8], modes=["strong"]):
        row = measure(configuration, **ONCE)
        assert json.loads(json.dumps(row)) == row
        found.append(compared(row, found))
    return found


def test_row(rows):
    one, eight = rows
    assert (eight["devices"], eight["processes"], eight["batch"]) == (8, 1, 8)
    assert eight["virtual"] is True
    assert 0 < eight["seconds"]["p50"] <= eight["seconds"]["p90"] <= eight["seconds"]["p99"]
    assert eight["items_per_second"] == pytest.approx(8 / eight["seconds"]["p50"])
    rate = eight["matmul_flops"] / eight["seconds"]["p50"]
    assert eight["utilisation"] == pytest.approx(rate / eight["matmul_rate"])
    held = dict(eight["memory_bytes"])
    assert held.pop("total") == held["argument"] + held["output"] - held["alias"] + held["temp"]
    assert eight["efficiency"] == pytest.approx(
        eight["items_per_second"] / one["items_per_second"] / 8
    )
    assert (one["efficiency"], one["work_efficiency"]) == (1, 1)
    assert eight["work_efficiency"] == one["matmul_flops"] / eight["matmul_flops"] / 8
    assert 0.9 < eight["work_efficiency"] <= 1  # pairs too are shared by the devices


def test_bytes_of_the_gradient_are_reduced(rows):
    one, eight = rows
    assert one["sent_bytes"] == 0
    reduced = eight["collectives"]["all-reduce"]["result_bytes"]
    assert reduced >= 4 * eight["parameters"]
    assert reduced < 4 * eight["parameters"] + 100
    assert eight["sent_bytes"] == sum(k["sent_bytes"] for k in eight["collectives"].values())
    assert eight["collectives"]["all-gather"]["result_bytes"] >= 2 * 4 * 8 * 8  # codes of a batch
    assert eight["loops_of_unknown_length"] == 0


def test_compiling_alone_needs_no_room_for_the_batch():
    """A batch of a terabyte: nothing of its size may be made."""
    workload = Workload("vse", 2**22, 8, regions=64, region_dim=2048, words=4, vocabulary=20)
    program = Program(workload, make_mesh(8))
    assert program.batch["image"]["regions"].size == 2**39
    assert program.flops() > 2 * 2**39


def test_compiling_alone_takes_no_times():
    row = measure(Configuration("strong", 8, 1, TINY), compile_only=True)
    assert (row["seconds"], row["items_per_second"], row["utilisation"]) == (None, None, None)
    assert compared(row, [])["efficiency"] is None


def test_too_many_devices():
    with pytest.raises(UserError, match="9 devices were asked for, but there are 8"):
        measure(Configuration("weak", 9, 1, TINY))


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    how = ONCE | {"compile_only": False}
    one, two = (in_children(Configuration("strong", 2, p, TINY), "cpu", how) for p in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2)
    for name in ("matmul_flops", "collectives", "batch", "devices"):
        assert one[name] == two[name], name
    assert two["items_per_second"] > 0


def test_a_failing_process_is_a_row_with_its_error():
    odd = Workload("vse", 3, 8, regions=3, region_dim=5, words=4, vocabulary=20)
    row = in_children(Configuration("strong", 2, 1, odd), "cpu", {"compile_only": True})
    assert (row["mode"], row["devices"], row["model"]) == ("strong", 2, "vse")
    assert "not evenly divisible" in row["error"]
    assert compared(row, []) == row


def _printed(rows):
    out = io.StringIO()
    print_tables(rows, Console(file=out, width=80))
    return out.getvalue()


def test_tables(rows):
    text = _printed(rows)
    assert "…" not in text
    assert "strong*" in text
    assert "no measure of scaling" in text
    assert "all-reduce" in text
    compiled = [row | {"seconds": None} for row in rows]
    text = _printed([*compiled, {"error": "out of memory"}])
    assert "items/s" not in text
    assert "strong*" not in text
    text = _printed([rows[1] | {"loops_of_unknown_length": 1}])
    assert "a loop of unknown length" in text


@pytest.mark.parametrize("timed", [True, False])
def test_picture(rows, timed, tmp_path):
    more = [row | {"processes": 2} for row in rows if timed]
    shown = [*more, *(row if timed else row | {"seconds": None} for row in rows)]
    path = draw([*shown, {"error": "out of memory"}], tmp_path / "scaling.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_size > 20_000
