"""The bytes that a compiled program sends between devices, read from the text of its HLO.

Every kind of collective has two sizes. ``result_bytes`` is the size of its result on one device.
``sent_bytes`` is what one device sends (and receives) with the bandwidth-optimal ring over g
devices: of a result of R bytes

    all-gather, all-to-all           R (g-1)/g
    reduce-scatter                   R (g-1)      R is one share, the input is g times as large
    all-reduce                       2 R (g-1)/g  a reduce-scatter and an all-gather
    collective-permute, -broadcast   R

A gradient of R bytes costs about 2R for any number of devices, and a gathered batch costs its
size. Tree and torus algorithms send as much or more, in fewer rounds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)

_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{\s*")
_OPCODE = re.compile(r" ([a-z][a-z\-]*)\(")  # in a type, "(" never follows a space and a word
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"(?:body|calls|to_apply|called_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CASES = re.compile(r"(?:true|false)_computation=(%?[\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class _Instruction(NamedTuple):
    name: str
    result: str
    """Its type as text: ``f32[2,3]{1,0}`` or a tuple of such."""
    opcode: str
    rest: str
    """Operands and attributes."""


def collectives(hlo: str) -> tuple[dict[str, dict[str, int]], int]:
    """The collectives of one run of a compiled program, from ``compiled.as_text()``.

    A loop counts once per iteration, a conditional as its most expensive branch, an asynchronous
    pair (``-start``, ``-done``) once.

    Returns:
        {kind: {"count", "result_bytes", "sent_bytes"}} of one device, without kinds that do not
        occur; and the number of loops of unknown length, counted as one iteration, that hold
        collectives (0: the counts are exact).
    """
    bodies, entry = _computations(hlo)
    everybody = math.prod(
        int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", hlo)
    )

    @cache
    def cost(name: str) -> Counter:
        groups, total = {}, Counter[tuple[str, str]]()
        for instruction in bodies.get(name, ()):
            groups[instruction.name] = _group(instruction.rest, everybody)
            total.update(_own(instruction, groups, everybody))
            total.update(called(instruction))
        return total

    def called(instruction: _Instruction) -> Counter:
        kind, _, end = instruction.opcode.rpartition("-")
        if end in ("done", "update") or (end == "start" and kind in KINDS):
            return Counter()
        if instruction.opcode == "conditional":
            found = _BRANCHES.search(instruction.rest)
            names = found[1].split(", ") if found else _CASES.findall(instruction.rest)
            return max((cost(name.lstrip("%")) for name in names), key=_sent)
        names = [n for some in _CALLED.findall(instruction.rest) for n in some.split(", ") if n]
        inner = sum((cost(name.lstrip("%")) for name in names), Counter())
        if instruction.opcode != "while" or not inner:
            return inner
        trips = _TRIPS.search(instruction.rest)
        if not trips:
            return inner + Counter({("", "unknown"): 1})
        return Counter({key: n * int(trips[1]) for key, n in inner.items()})

    total = cost(entry)
    fields = ("count", "result_bytes", "sent_bytes")
    found = {kind: {f: total[kind, f] for f in fields} for kind in KINDS if total[kind, "count"]}
    return found, total["", "unknown"]


def _computations(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of every computation, and the name of the one that is run."""
    bodies: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in hlo.splitlines():
        if line[:1] not in (" ", "}", "") and not line.startswith("HloModule"):
            header = _COMPUTATION.fullmatch(line)
            if header:
                current = bodies.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
        elif current is not None:
            current.extend(_instructions(line))
    return bodies, entry


def _instructions(line: str) -> Iterator[_Instruction]:
    found = _INSTRUCTION.match(line)
    opcode = _OPCODE.search(found[2]) if found else None
    if found and opcode:
        result, rest = found[2][: opcode.start()], found[2][opcode.end() :]
        yield _Instruction(found[1], result, opcode[1], rest)


def _own(instruction: _Instruction, groups: dict[str, int], everybody: int) -> Counter:
    """What an instruction itself moves; of an asynchronous pair, the end tells the result."""
    kind = instruction.opcode.removesuffix("-done")
    if kind not in KINDS:
        return Counter()
    size = groups[instruction.name]
    if kind != instruction.opcode:
        words = re.findall(r"[\w.\-]+", instruction.rest)
        size = next((groups[word] for word in words if word in groups), everybody)
    result = sum(map(_bytes, _ARRAY.finditer(instruction.result)))
    share = {
        "all-reduce": 2 * (size - 1) / size,
        "reduce-scatter": size - 1,
        "collective-permute": 1,
        "collective-broadcast": 1,
    }.get(kind, (size - 1) / size)
    sent = round(share * result)
    return Counter({(kind, "count"): 1, (kind, "result_bytes"): result, (kind, "sent_bytes"): sent})


def _bytes(array: re.Match) -> int:
    """Bytes of one array type: dtype, bits in its name, extents."""
    bits = int(array[2] or 8)
    extents = [int(n) for n in array[3].replace("<=", "").split(",") if n]
    return math.ceil(bits * math.prod(extents) / 8)


def _group(rest: str, everybody: int) -> int:
    """How many devices a collective joins."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return listed[1].count(",") + 1
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    return int(counted[1]) if counted else everybody


def _sent(cost: Counter) -> int:
    return sum(n for (_, field), n in cost.items() if field == "sent_bytes")
