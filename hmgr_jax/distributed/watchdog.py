"""A watch over a run: where nothing moves for long, it shows where it hangs and ends the process.

A scheduler starts a process again that has ended, but not one that hangs: in a barrier whose other
side is gone, in a read from a disk that does not answer, in a lock.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import jax

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command may well succeed."""
COMPILING = 4
"""How many times as long silence may last while something is compiled."""
TICKS = 20
OTHERS_TICKS = 2
LAST_WORDS_SECONDS = 10.0
"""How long the stacks may take to be written: the disk may be what hangs."""

_watching: list[Watchdog] = []


def alive(*, compiling: bool = False) -> None:
    """Give a sign of life: a step, a batch or a tile is done; a no-op where nobody watches.

    ``compiling`` announces that the next one may be preceded by a compilation.
    """
    for watchdog in _watching:
        watchdog.alive(compiling=compiling)


class Watchdog:
    """``with Watchdog(seconds, workdir):`` ends the process after so long without `alive`.

    It then writes the stacks of all threads to standard error and to ``WORKDIR/hang.txt``
    (``hang-1.txt`` for process 1 of several) and leaves with `EXIT_CODE`; nothing is saved, since
    what hangs may be the saving, and the next start goes on from the last checkpoint. With 0
    seconds it does nothing. Silence is counted in ticks of a thread, not by the clock, so a
    process that was suspended (SIGSTOP, a laptop's lid) is not taken for one that hangs. A call
    that hangs without letting other Python threads run is not noticed.
    """

    def __init__(self, seconds: float, workdir: Path) -> None:
        process = jax.process_index()
        self.file = workdir / (f"hang-{process}.txt" if process else "hang.txt")
        self._seconds = seconds
        self._ended = threading.Event()
        self._silent = 0  # ticks
        self._patience = COMPILING

    def __enter__(self) -> Self:
        if self._seconds:
            _watching.append(self)
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self in _watching:
            _watching.remove(self)

    def alive(self, *, compiling: bool = False) -> None:
        """See the function `alive`."""
        self._patience = COMPILING if compiling else 1
        self._silent = 0

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds / TICKS):
            self._silent += 1
            if self._silent > TICKS * self._patience:
                self._bark()

    def _bark(self) -> None:
        """Show all stacks and end the process, whatever else it is doing."""
        wait = LAST_WORDS_SECONDS + OTHERS_TICKS * self._seconds / TICKS
        leave = threading.Timer(wait, os._exit, [EXIT_CODE])
        leave.daemon = True
        leave.start()
        seconds = self._seconds * self._patience
        faulthandler.dump_traceback(file=2)
        try:
            with self.file.open("w", encoding="utf-8") as file:
                file.write(f"Nothing moved for {seconds:g} s; the stacks of all threads:\n\n")
                file.flush()
                faulthandler.dump_traceback(file=file)
        finally:
            message = (
                f"error: Nothing has moved for {seconds:g} s: see {self.file} for where the run "
                "hangs; the same command goes on from the last checkpoint (train.hang_seconds "
                "says how long to wait, 0 for ever).\n"
            )
            os.write(2, message.encode(errors="replace"))
            if jax.process_count() > 1:  # the others, whom this ends, shall show theirs first
                time.sleep(OTHERS_TICKS * self._seconds / TICKS)
            os._exit(EXIT_CODE)
