"""What counted FLOPs and bytes mean for a large machine, on paper, with the arithmetic shown.

A row of as many devices as the machine has says exactly what each of them computes and sends; such
a row needs nothing but compiling (``--compile-only``). Time follows from the vendor's figures and
two assumptions: matrix products reach ``utilisation`` of the peak, and a collective takes a fixed
time besides that of its bytes. Left out, so that real machines are slower: everything elementwise,
activations in memory, stragglers, and links that reach less than their figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hmgr_jax.benchmarks.scaling.grid import Row, compared
from hmgr_jax.benchmarks.scaling.machines import MACHINES, Machine
from hmgr_jax.errors import UserError

Join = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Term:
    """Seconds of a step that one resource is busy, and how they come about."""

    name: str
    seconds: float
    arithmetic: str


def terms(row: Row, machine: Machine, utilisation: float) -> list[Term]:
    """What keeps a chip busy in one step; network terms only where there are several chips."""
    peak = machine.flops[row["dtype"]]
    work, held = row["matmul_flops"], row["memory_bytes"]
    state = held["argument"] + held["output"]
    found = [
        Term(
            "matrix products",
            work / (utilisation * peak),
            f"{work / 1e12:.4g} TFLOP / ({utilisation:g} x {peak / 1e12:.4g} TFLOP/s)",
        ),
        Term(
            "state, batch",
            state / machine.memory_rate,
            f"{state / 1e9:.4g} GB read and written / {machine.memory_rate / 1e9:.4g} GB/s",
        ),
    ]
    if row["devices"] == 1:
        return found
    turns = sum(kind["count"] for kind in row["collectives"].values())
    found += [
        Term(f"sent {place}", sent / rate, f"{sent / 1e9:.4g} GB / {rate / 1e9:.4g} GB/s")
        for place, sent, rate in _sent(row, machine)
    ]
    arithmetic = f"{turns} collectives x {1e6 * machine.turn:.0f} us"
    return [*found, Term("turns", turns * machine.turn, arithmetic)]


def _sent(row: Row, machine: Machine) -> list[tuple[str, float, float]]:
    """(where, bytes a chip sends, its rate), the ring's bytes split over nodes and network.

    Of a result of R bytes a ring over n chips sends R(n-1)/n. In two stages, k chips of a node and
    m nodes, it is R(k-1)/k within, and (R/k)(m-1)/m between, chips of equal rank side by side.
    """
    n, k = row["devices"], machine.node
    if n <= k:
        return [("to others", row["sent_bytes"], machine.near)]
    whole, m = row["sent_bytes"] * n / (n - 1), n // k
    within, between = whole * (k - 1) / k, whole / k * (m - 1) / m
    return [("in the node", within, machine.near), ("between nodes", between, machine.far)]


def report(rows: Sequence[Row], utilisation: float) -> str:
    """The projection of every row that has as many devices as one of the machines.

    Raises:
        UserError: there is no such row, or ``utilisation`` is no share.
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation is a share of the peak such as 0.4, not {utilisation}.")
    good = [row for row in rows if "error" not in row]
    told = []
    for machine in MACHINES:
        fitting = [row for row in good if row["devices"] == machine.chips]
        if fitting:
            told.append(_described(machine, utilisation))
        told += [_projected(row, _alone(row, good), machine, utilisation) for row in fitting]
    if not told:
        wanted = ",".join(str(machine.chips) for machine in MACHINES)
        raise UserError(
            f"No row is of {wanted.replace(',', ' or ')} devices: measure with --compile-only "
            f"--platform cpu --devices 1,{wanted}."
        )
    return "\n\n".join(told)


def _alone(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of one device that ``row`` is compared with."""
    same = ("mode", "model", "dim", "dtype", "options", "lengths")
    fitting = (r for r in rows if r["devices"] == 1 and all(r[k] == row[k] for k in same))
    return next((r for r in fitting if r["batch"] in (row["batch"], _share(row))), None)


def _share(row: Row) -> int:
    return row["batch"] // row["devices"]


def _described(machine: Machine, utilisation: float) -> str:
    near, far = machine.near / 1e9, machine.far / 1e9
    links = f"{near:g} GB/s a direction" + (f", {far:g} between nodes" if far != near else "")
    return (
        f"{machine.name} (vendor's figures: memory {machine.memory / 1e9:g} GB, "
        f"{machine.memory_rate / 1e9:g} GB/s; links {links})\n"
        f"assumed: matrix products at {utilisation:.0%} of the peak, memory and links at their "
        f"full rates, {1e6 * machine.turn:.0f} us a collective"
    )


def _projected(row: Row, alone: Row | None, machine: Machine, utilisation: float) -> str:
    found = terms(row, machine, utilisation)
    title = f"{row['model']}, {row['mode']}, batch {row['batch']} = {row['devices']} x "
    lines = [f"{title}{_share(row)}, dim {row['dim']}, {row['dtype']}"]
    lines += [f"  {t.name:<18} {t.arithmetic:<44} = {1e3 * t.seconds:9.3f} ms" for t in found]
    joins: dict[str, Join] = {"one after another": sum, "all at once": max}
    for name, join in joins.items():
        seconds = join(term.seconds for term in found)
        speed = row["batch"] / seconds
        text = f"{1e3 * seconds:9.3f} ms, {speed:,.0f} items/s"
        if alone:
            single = alone["batch"] / join(t.seconds for t in terms(alone, machine, utilisation))
            text += f", {speed / row['devices'] / single:.0%} of {single:,.0f} on one chip"
        lines.append(f"  {name:<18} {text}")
    lines.append(f"  binds first        {max(found, key=lambda term: term.seconds).name}")
    if alone:
        share = compared(row, [alone])["work_efficiency"]
        lines.append(f"  work efficiency    {share:.1%} (FLOPs of an item, one chip / all)")
    total = row["memory_bytes"]["total"]
    fits = "fits" if total <= machine.memory else "DOES NOT FIT"
    plan = " as planned for CPU" if row["virtual"] else ""
    lines.append(f"  memory             {total / 1e9:.1f} GB{plan}: {fits}")
    return "\n".join(lines)
