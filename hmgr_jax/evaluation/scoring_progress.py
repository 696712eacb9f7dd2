"""What a person sees while all pairs are scored: as in training, one live line or plain lines."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hmgr_jax.distributed.watchdog import alive
from hmgr_jax.progress import clock, is_live, print_line

SILENT_SECONDS = 2.0
"""Nothing is shown of what ends sooner."""
LINE_SECONDS = 10.0
"""Between plain lines."""


class ScoringProgress:
    """How far a scoring is: ``scoring 200 image x 1,000 text items  12/40 tiles  3:05 left``.

    Give it as ``progress`` to `hmgr_jax.evaluation.all_pairs.score_matrix`, inside ``with``. On a
    terminal this is one line that is kept up to date, elsewhere a line at most every ten seconds.
    With ``shown=False`` nothing is printed.
    """

    def __init__(self, what: str, *, shown: bool = True, stream: TextIO | None = None) -> None:
        self._what, self._shown = what, shown
        self._console = Console(file=stream or sys.stdout, highlight=False)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._due = time.perf_counter() + SILENT_SECONDS
        self._first: tuple[int, float] | None = None
        self._last = (0, 0, 0.0)  # done, total, when
        self._open = False
        # The first tile may take minutes: the line is not to wait for it.
        self._timer = threading.Timer(SILENT_SECONDS, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._open = True
        if self._shown:
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:  # the timer may be at work
            self._open = False
            if self._live is not None:
                self._live.stop()
                self._live = None

    def __call__(self, done: int, total: int) -> None:
        """Tell that ``done`` tiles of ``total`` are scored."""
        alive()
        now = time.perf_counter()
        self._first = self._first or (done, now)
        self._last = (done, total, now)
        if self._shown:
            self._show()

    def _show(self) -> None:
        with self._lock:
            if not self._open or self._live is not None or time.perf_counter() < self._due:
                return
            if is_live(self._console):
                self._live = Live(
                    console=self._console,
                    get_renderable=self._line,
                    refresh_per_second=4,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            else:
                print_line(self._console, self._line())
                self._due = time.perf_counter() + LINE_SECONDS

    def _line(self) -> Text:
        (done, total, when), fields = self._last, [self._what]
        if total:
            fields.append(f"{done}/{total} tiles")
        if self._first is not None and done > self._first[0]:
            a_tile = (when - self._first[1]) / (done - self._first[0])
            left = (total - done) * a_tile - (time.perf_counter() - when)
            fields.append(f"{clock(left)} left")
        return Text("  ".join(fields), no_wrap=True, overflow="ellipsis")
