"""What a person sees while a model trains: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

Cell = str | float | None


class Progress:
    """Where training stands: ``epoch 2  step 130/1000  loss 0.4321  812 items/s  4:05 left``.

    On a terminal this is one line that is kept up to date and loses its last fields where the
    window is narrow; elsewhere a line is printed for every update that has a loss. ``items`` is the
    size of a global batch, ``steps_per_epoch`` may be a fraction, ``first_step`` is where the run
    was resumed. With ``shown=False`` (all processes but one) nothing is printed.
    """

    def __init__(
        self,
        steps: int,
        *,
        items: int,
        steps_per_epoch: float,
        first_step: int = 0,
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._steps, self._items, self._steps_per_epoch = steps, items, steps_per_epoch
        self._console = Console(file=stream or sys.stdout, highlight=False)
        self._shown = shown
        self._live: Live | None = None
        self._step = first_step
        self._loss: float | None = None
        self._mark = (first_step, time.perf_counter())
        self.items_per_second: float | None = None
        """Throughput between the last two updates with a loss; None before the second."""
        self._seconds_per_step, self._intervals = 0.0, 0

    def __enter__(self) -> Self:
        if self._shown and is_live(self._console):
            self._live = Live(
                console=self._console,
                get_renderable=self._line,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, step: int, loss: float | None = None) -> None:
        """Tell that ``step`` steps are done; ``loss`` where it was fetched from the device.

        Only updates with a loss are timed: steps in between have merely been handed to the device.
        """
        self._step = step
        if loss is None:
            return
        self._loss = loss
        self._measure(step)
        if self._shown and self._live is None:
            self._print(self._line())

    def restart_clock(self) -> None:
        """Leave what passed since the last update (an evaluation) out of the throughput."""
        self._mark = (self._step, time.perf_counter())

    def say(self, text: str) -> None:
        """Print a line of its own, above the live one."""
        if self._shown:
            self._print(Text(text))

    def _measure(self, step: int) -> None:
        (marked, then), now = self._mark, time.perf_counter()
        self._mark = (step, now)
        if step <= marked or now <= then:
            return
        seconds = (now - then) / (step - marked)
        self.items_per_second = self._items / seconds
        self._intervals += 1
        # The first interval holds the compilation, so the second one replaces it outright.
        share = 1.0 if self._intervals <= 2 else 0.3
        self._seconds_per_step += share * (seconds - self._seconds_per_step)

    def _line(self) -> Text:
        epoch = 1 + int(max(self._step - 1, 0) / self._steps_per_epoch)
        fields = [f"epoch {epoch}", f"step {self._step}/{self._steps}"]
        if self._loss is not None:
            fields.append(f"loss {self._loss:.4f}")
        if self.items_per_second is not None:
            fields.append(f"{self.items_per_second:.4g} items/s")
            left = (self._steps - self._step) * self._seconds_per_step
            fields.append(f"{clock(left)} left")
        return Text("  ".join(fields), no_wrap=True, overflow="ellipsis")

    def _print(self, text: Text) -> None:
        print_line(self._console, text)


def table(title: str, rows: Sequence[Mapping[str, Cell]], *, stream: TextIO | None = None) -> None:
    """Print ``rows`` under ``title``, a column for every key in the order of first sight.

    Numbers get one decimal and stand to the right; a missing value is left blank.
    """
    console = Console(file=stream or sys.stdout, highlight=False)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_show(row.get(name)) for name in names] for row in rows]
    numeric = [all(not isinstance(row.get(name), str) for row in rows) for name in names]
    if not is_live(console):
        print_line(console, Text("\n".join(_align(title, names, cells, numeric))))
        return
    drawn = Table(title=Text(title, style="bold"), title_justify="left")
    for name, right in zip(names, numeric, strict=True):
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
    return str(cell) if isinstance(cell, str | int) else f"{float(cell):.1f}"


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


LINE_SECONDS = 10.0


class Bar:
    """``with Bar("images", 1000) as bar: bar.advance(10)``; printed on stderr."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done = what, total, done
        console = Console(stderr=True)
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task(what, total=total, completed=done)
        self._due = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        self._done += count
        self._live.update(self._task, completed=self._done)
        if self._live.disable and time.monotonic() > self._due:
            self._due = time.monotonic() + LINE_SECONDS
            print(f"{self._what} {self._done:,} of {self._total:,}", file=sys.stderr, flush=True)
