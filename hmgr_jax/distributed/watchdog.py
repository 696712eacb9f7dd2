"""End a process that makes no progress, after writing where it hangs.

A scheduler restarts a process that ended, but not one that hangs in a barrier with a lost process,
in a read from a disk that does not answer, or in a lock.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path
from typing import Self

import jax

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command may succeed."""
COMPILING = 4
"""Factor on the time limit while a program compiles."""
TICKS = 20
OTHERS_TICKS = 2
LAST_WORDS_SECONDS = 10.0
"""Time limit for writing the stacks: the disk itself may hang."""

_watching: list[Watchdog] = []


def report_progress(*, compiling: bool = False) -> None:
    """Report progress (a step, a batch or a tile is done); a no-op without a watchdog.

    ``compiling`` announces that a compilation may precede the next report.
    """
    for watchdog in _watching:
        watchdog.report_progress(compiling=compiling)


class Watchdog:
    """``with Watchdog(seconds, workdir):`` ends the process after ``seconds`` without progress.

    It writes the stacks of all threads to standard error and to ``WORKDIR/hang.txt``
    (``hang-1.txt`` for process 1 of several) and exits with `EXIT_CODE`. Nothing is saved, since
    the saving may be what hangs; the next start resumes from the last checkpoint. With 0 seconds
    it does nothing. Time is counted in ticks of a thread, not by the clock, so a suspended process
    (SIGSTOP, a closed laptop) does not count as hanging. A call that blocks all Python threads is
    not detected.
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

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self in _watching:
            _watching.remove(self)

    def report_progress(self, *, compiling: bool = False) -> None:
        """See the function of this name."""
        self._patience = COMPILING if compiling else 1
        self._silent = 0

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds / TICKS):
            self._silent += 1
            if self._silent > TICKS * self._patience:
                self._bark()

    def _bark(self) -> None:
        """Write all stacks and end the process."""
        wait = LAST_WORDS_SECONDS + OTHERS_TICKS * self._seconds / TICKS
        leave = threading.Timer(wait, os._exit, [EXIT_CODE])
        leave.daemon = True
        leave.start()
        seconds = self._seconds * self._patience
        faulthandler.dump_traceback(file=2)
        try:
            with self.file.open("w", encoding="utf-8") as file:
                file.write(f"No progress for {seconds:g} s; the stacks of all threads:\n\n")
                file.flush()
                faulthandler.dump_traceback(file=file)
        finally:
            message = (
                f"error: No progress for {seconds:g} s: {self.file} shows where the run hangs; run "
                "the same command to resume from the last checkpoint (train.hang_seconds is the "
                "time limit, 0 for none).\n"
            )
            os.write(2, message.encode(errors="replace"))
            if jax.process_count() > 1:  # the other processes write their stacks first
                time.sleep(OTHERS_TICKS * self._seconds / TICKS)
            os._exit(EXIT_CODE)
