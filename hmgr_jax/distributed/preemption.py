"""SIGTERM and Ctrl-C as a flag that the training loop reads."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_asked, _interrupts = itertools.count(1), itertools.count(1)


class StopSignal:
    """The first SIGTERM or SIGINT asks the loop to save and stop; a third one acts as usual.

    ``with StopSignal() as stop:`` handles both signals; ``stop.requested`` becomes True at the
    first one and ``stop.name`` names it. A second signal does not disturb the saving (schedulers
    signal a process and its group) but restores the former handlers, so a third Ctrl-C raises
    KeyboardInterrupt and a third SIGTERM ends the process. The handler only sets the flag, since
    it may run inside any call.

    In a run of one process this class handles SIGTERM. ``jax.distributed.initialize`` installs a
    notifier of its own, and the two exclude each other: a Python handler installed before it never
    runs, and one installed after it prevents JAX's agreement on a common last step. Runs of
    several processes leave SIGTERM to JAX and forward their SIGINT to it. Outside the main thread,
    where Python allows no handlers, no signal is handled and ``requested`` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name: str | None = None
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        if jax.process_count() > 1:
            self._former = {signal.SIGINT: signal.signal(signal.SIGINT, _forward_as_sigterm)}
        else:
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def now(self) -> bool:
        """Whether to stop after this step: the same answer in every process.

        All processes must call it at every step. A signal to one of several processes stops all
        of them after the first step that no process has passed.
        """
        # A counter instead of the step: JAX agrees on a future number, and a second run in this
        # process starts its steps at 0.
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_asked)):
            self.requested, self.name = True, "SIGTERM"
        return self.requested

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self.name = True, signal.Signals(number).name
            return
        self._restore_handlers()  # before the message, which says so
        os.write(2, b"warning: Saving, then stopping; one more signal ends this at once.\n")

    def _restore_handlers(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            # None: a handler that was not set from Python, which Python cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]


def _forward_as_sigterm(number: int, frame: FrameType | None) -> None:
    """Forward Ctrl-C as SIGTERM, the only signal that JAX's notifier knows; the third one acts."""
    if next(_interrupts) == 2:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
