"""Projections onto large machines: the arithmetic, worked out by hand."""

import dataclasses

import pytest

from hmgr_jax.benchmarks.scaling import pod
from hmgr_jax.benchmarks.scaling.machines import MACHINES, Machine
from hmgr_jax.errors import UserError

MACHINE = Machine("toy", 8, 4, {"bfloat16": 1e12}, 1e9, 1e9, near=1e8, far=1e7, turn=1e-3)


def _row(devices, batch, flops, sent=0, count=0, mode="strong"):
    moved = {"all-reduce": {"count": count, "result_bytes": 1, "sent_bytes": sent}}
    return {
        "benchmark": "scaling",
        "mode": mode,
        "model": "hmgr",
        "dim": 8,
        "dtype": "bfloat16",
        "options": "",
        "lengths": "full",
        "virtual": True,
        "devices": devices,
        "batch": batch,
        "matmul_flops": flops,
        "memory_bytes": {"argument": 3_000_000, "output": 1_000_000, "total": 5e8},
        "items_per_second": None,
        "collectives": moved if sent else {},
        "sent_bytes": sent,
    }


def _seconds(row, machine=MACHINE):
    return {term.name: term.seconds for term in pod.terms(row, machine, 0.5)}


def test_terms_of_one_chip():
    found = _seconds(_row(1, 16, 1e9))
    assert found == pytest.approx({"matrix products": 2e-3, "state, batch": 4e-3})


def test_a_ring_is_split_over_nodes_and_network():
    """8 chips in 2 nodes of 4: of 8 MB, 3/4 go round the node, 1/2 of each quarter between them."""
    found = _seconds(_row(8, 16, 1e9, sent=7_000_000, count=3))
    assert found["sent in the node"] == pytest.approx(8e6 * 3 / 4 / 1e8)
    assert found["sent between nodes"] == pytest.approx(8e6 / 4 * 1 / 2 / 1e7)
    assert found["turns"] == pytest.approx(3e-3)
    one_node = _seconds(_row(8, 16, 1e9, sent=7_000_000), dataclasses.replace(MACHINE, node=8))
    assert one_node["sent to others"] == pytest.approx(7e6 / 1e8)


def test_report(monkeypatch):
    monkeypatch.setattr(pod, "MACHINES", (MACHINE,))
    rows = [_row(1, 16, 8e9), _row(8, 16, 1.25e9, 7_000_000, 3), {"devices": 8, "error": "?"}]
    text = pod.report(rows, 0.5)
    assert "assumed: matrix products at 50% of the peak" in text
    assert "0.00125 TFLOP / (0.5 x 1 TFLOP/s)" in text
    # 2.5 + 4 + 60 + 100 + 3 ms; alone 16 + 4 ms for 16 items, 800 items/s
    assert "169.500 ms, 94 items/s, 1% of 800 on one chip" in text
    assert "100.000 ms, 160 items/s, 2% of 1,000 on one chip" in text
    assert "binds first        sent between nodes" in text
    assert "work efficiency    80.0%" in text
    assert "fits" in text
    big = rows[1] | {"memory_bytes": rows[1]["memory_bytes"] | {"total": 2e9}}
    text = pod.report([big], 0.5)
    assert "2.0 GB as planned for CPU: DOES NOT FIT" in text
    assert "on one chip" not in text


def test_weak_rows_are_compared_with_the_batch_of_one_device(monkeypatch):
    monkeypatch.setattr(pod, "MACHINES", (MACHINE,))
    weak = [_row(1, 2, 1e9, mode="weak"), _row(8, 16, 1e9, 7_000_000, 3, mode="weak")]
    assert "work efficiency    100.0%" in pod.report(weak, 0.5)


def test_rejects_bad_rows():
    with pytest.raises(UserError, match="--devices 1,256,64"):
        pod.report([_row(8, 16, 1e9)], 0.4)
    with pytest.raises(UserError, match="--utilisation is a share"):
        pod.report([_row(256, 256, 1e9)], 40)


def test_machines_know_both_types():
    for machine in MACHINES:
        assert set(machine.flops) == {"float32", "bfloat16"}
        assert machine.chips % machine.node == 0
