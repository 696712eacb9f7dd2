"""Large machines as their vendors describe them, for projections on paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """``chips`` equal accelerators in nodes of ``node``; rates in units a second and chip.

    ``near`` and ``far`` are bytes a second that a chip sends (and at once receives) within and
    between nodes. ``turn``, seconds until a small collective of all chips has ended, is assumed.
    """

    name: str
    chips: int
    node: int
    flops: Mapping[str, float]
    memory: float
    memory_rate: float
    near: float
    far: float
    turn: float


MACHINES = (
    Machine(
        # Google's pages: 197 TFLOP/s in bfloat16, 16 GB at 819 GB/s, 1,600 Gbit/s (four links of
        # 400; later pages: 400 GB/s in both directions together) in a 16 x 16 torus. A float32
        # product at the highest precision takes six passes. 16 hops of about 1 us, and a start.
        name="TPU v5e-256",
        chips=256,
        node=256,
        flops={"bfloat16": 197e12, "float32": 197e12 / 6},
        memory=16e9,
        memory_rate=819e9,
        near=200e9,
        far=200e9,
        turn=20e-6,
    ),
    Machine(
        # NVIDIA's data sheet of the SXM part: 989 TFLOP/s dense in bfloat16, 67 in float32, 80 GB
        # at 3.35 TB/s, NVLink 900 GB/s in both directions together; 400 Gbit/s InfiniBand a GPU.
        name="64 H100 SXM",
        chips=64,
        node=8,
        flops={"bfloat16": 989e12, "float32": 67e12},
        memory=80e9,
        memory_rate=3.35e12,
        near=450e9,
        far=50e9,
        turn=50e-6,
    ),
)
