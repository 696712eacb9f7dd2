"""Progress of a command: one live line on a terminal, plain lines elsewhere; and tables."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hmgr_jax.terminal import escape_controls

Cell = str | float | None
T = TypeVar("T")

LINE_SECONDS = 10.0
"""Between plain lines of work that is not training."""


class Progress:
    """``scoring 200 x 1,000 items  tiles 12/40  3:05 left``, or a line of training.

    On a terminal this is one line that is kept up to date and loses its last fields where the
    window is narrow. Elsewhere a line is printed every ten seconds; in training, for every update
    with a loss: ``epoch 2  step 130/1,000  loss 0.4321  812 items/s  4:05 left``.

    Args:
        total: units of the whole work; may be given with an update, where it is known only then.
        unit: what is counted.
        title: what is being done.
        done: units that were done before.
        items: of training: rows of a global batch.
        steps_per_epoch: of training, may be a fraction; 0: this is not training.
        epochs_before: of training: epochs that ``done`` steps read; by default in equal batches.
        announce_after: seconds before anything is shown; then a line is, even without an update.
            None: the live line is shown at once.
        shown: False on all processes but one: nothing is printed.
        stream: where to; by default standard output.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        title: str = "",
        done: int = 0,
        items: int = 0,
        steps_per_epoch: float = 0.0,
        epochs_before: float | None = None,
        announce_after: float | None = None,
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._done, self._total, self._unit, self._title = done, total, unit, title
        self._items, self._steps_per_epoch = items, steps_per_epoch
        if epochs_before is None:
            epochs_before = done / steps_per_epoch if steps_per_epoch else 0.0
        self._epochs_before, self._first = epochs_before, done
        self._console = Console(file=stream or sys.stdout, highlight=False)
        self._shown, self._open = shown, False
        self._live: Live | None = None
        self._lock = threading.Lock()
        now = time.perf_counter()
        self._due = now + (LINE_SECONDS if announce_after is None else announce_after)
        self._timer: threading.Timer | None = None
        if announce_after is not None:  # the first unit may take minutes
            self._timer = threading.Timer(announce_after, self._show)
            self._timer.daemon = True
        self._loss: float | None = None
        # Work that is resumed says so with its first update, and time counts from there.
        self._mark = (done, now) if steps_per_epoch else None
        self.items_per_second: float | None = None
        """Of training: throughput between the last two updates with a loss; None before that."""
        self._timed_units, self._timed_seconds, self._intervals = 0, 0.0, 0

    def __enter__(self) -> Self:
        self._open = True
        if self._shown and self._timer is not None:
            self._timer.start()
        elif self._shown and is_live(self._console):
            self._start_live()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:  # the timer may be at work
            self._open = False
            if self._live is not None:
                self._live.stop()
                self._live = None

    def update(self, done: int, loss: float | None = None, *, total: int | None = None) -> None:
        """Report that ``done`` units are done.

        In training only updates with a ``loss`` (which was fetched from the device) are timed:
        steps in between have merely been handed to the device.
        """
        self._done = done
        self._total = self._total if total is None else total
        if not self._steps_per_epoch:
            self._measure(done)
            self._show()
        elif loss is not None:
            self._loss = loss
            self._measure(done)
            if self._shown and self._live is None:
                print_line(self._console, self._line())

    def advance(self, count: int = 1) -> None:
        """Report that ``count`` more units are done."""
        self.update(self._done + count)

    def over(self, units: Iterable[T]) -> Iterator[T]:
        """The units, each of which counts as done when the next one is asked for."""
        for unit in units:
            yield unit
            self.advance()

    def restart_clock(self) -> None:
        """Leave the time since the last update (an evaluation) out of the throughput."""
        self._mark = (self._done, time.perf_counter())

    def say(self, text: str) -> None:
        """Print a line of its own, above the live one."""
        if self._shown:
            print_line(self._console, Text(text))

    def _show(self) -> None:
        """Print a plain line, or start the live one, if it is time for it."""
        with self._lock:
            due = time.perf_counter() >= self._due
            if not self._shown or not self._open or self._live is not None or not due:
                return
            if is_live(self._console):
                self._start_live()
            else:
                print_line(self._console, self._line())
                self._due = time.perf_counter() + LINE_SECONDS

    def _start_live(self) -> None:
        self._live = Live(
            console=self._console,
            get_renderable=self._line,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _measure(self, done: int) -> None:
        now = time.perf_counter()
        (marked, then), self._mark = self._mark or (done, now), (done, now)
        units, seconds = done - marked, now - then
        if units <= 0 or seconds <= 0:
            return
        self.items_per_second = self._items * units / seconds
        self._intervals += 1
        if self._intervals == 2:  # the first one includes the compilation
            self._timed_units, self._timed_seconds = 0, 0.0
        self._timed_units += units
        self._timed_seconds += seconds

    def _line(self) -> Text:
        fields = [self._title] if self._title else []
        if self._steps_per_epoch:
            read = max(self._done - self._first - 1, 0) / self._steps_per_epoch
            fields.append(f"epoch {1 + int(self._epochs_before + read + 1e-9)}")
        if self._total:
            fields.append(f"{self._unit} {self._done:,}/{self._total:,}")
        if self._loss is not None:
            fields.append(f"loss {self._loss:.4f}")
        if self._items and self.items_per_second is not None:
            fields.append(f"{self.items_per_second:.4g} items/s")
        if self._timed_units and self._mark is not None:
            marked, then = self._mark
            rest = (self._total - marked) * self._timed_seconds / self._timed_units
            fields.append(f"{clock(rest - (time.perf_counter() - then))} left")
        return Text("  ".join(fields), no_wrap=True, overflow="ellipsis")


def table(title: str, rows: Sequence[Mapping[str, Cell]], *, stream: TextIO | None = None) -> None:
    """Print ``rows`` under ``title``, a column for every key in the order of first sight.

    Control characters are escaped. Numbers get one decimal and stand to the right; a missing value
    is left blank.
    """
    console = Console(file=stream or sys.stdout, highlight=False)
    names, title = list(dict.fromkeys(name for row in rows for name in row)), escape_controls(title)
    cells = [[_show(row.get(name)) for name in names] for row in rows]
    numeric = [all(not isinstance(row.get(name), str) for row in rows) for name in names]
    heads = list(map(escape_controls, names))
    if not is_live(console):
        print_line(console, Text("\n".join(_align(title, heads, cells, numeric))))
        return
    drawn = Table(title=Text(title, style="bold"), title_justify="left")
    for name, right in zip(heads, numeric, strict=True):
        drawn.add_column(Text(name), justify="right" if right else "left")
    for row_cells in cells:
        drawn.add_row(*map(Text, row_cells))
    console.print(drawn)


def _align(title: str, names: list[str], cells: list[list[str]], numeric: list[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    lines = [title]
    for row in [names, *cells]:
        placed = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(placed).rstrip())
    return lines


def _show(cell: Cell) -> str:
    if cell is None:
        return ""
    return escape_controls(str(cell)) if isinstance(cell, str | int) else f"{float(cell):.1f}"


def is_live(console: Console) -> bool:
    """Whether lines can be kept up to date there."""
    return console.is_terminal and not console.is_dumb_terminal


def print_line(console: Console, text: Text) -> None:
    """Print whole lines: wrapping belongs to terminals, a log keeps a line a line."""
    if is_live(console):
        console.print(text, overflow="fold", no_wrap=False)
    else:
        print(text.plain, file=console.file, flush=True)


def clock(seconds: float) -> str:
    """``4:05``, or ``1:22:30`` from an hour on."""
    minutes, second = divmod(round(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
