"""A wish to stop (SIGTERM of a scheduler, Ctrl-C of a person) as a flag that the loop reads."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """The first SIGTERM or SIGINT asks the loop to save and stop; a second one acts as usual.

    ``with StopSignal() as stop:`` takes both signals over; ``stop.requested`` turns True at the
    first one and stays so, and ``stop.name`` tells which one it was. At that moment the former
    handlers are back, so a second Ctrl-C raises KeyboardInterrupt and a second SIGTERM ends the
    process. The handler does nothing but set the flag: it may run inside any call.

    Who owns SIGTERM: here, this class; it is for one process. ``jax.distributed.initialize``
    installs a notifier of its own, and the two exclude each other: a Python handler installed
    before it never runs, one installed after it keeps JAX's agreement on a common last step from
    ever being reached. Runs of several processes leave SIGTERM to JAX. Outside the main thread,
    where Python allows no handlers, nothing is taken over and ``requested`` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name: str | None = None
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested, self.name = True, signal.Signals(number).name
        self._give_back()

    def _give_back(self) -> None:
        while self._former:
            number, handler = self._former.popitem()
            # None: a handler that was not set from Python and that Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
