"""Processes of one run that watch one another: who is lost is named, and the others end at once.

Without it a collective whose other side is gone waits for ever, or ends in a message that names
nobody. Each process writes a beat a second into the key-value store of JAX's coordination service,
and looks at its neighbour's and at whether anybody has told the end of the run.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from jax._src import distributed  # no public way to the store; Orbax takes this one too

from hmgr_jax.errors import UserError

EXIT_CODE = 69
"""EX_UNAVAILABLE of sysexits.h: a peer was lost."""
BEAT_SECONDS = 1.0
LOST_SECONDS = 10.0
"""A peer that is silent for so long is lost."""
LEFT = "left"


class Peers:
    """This process among the others of its run, which all make one."""

    def __init__(self, index: int, count: int) -> None:
        store: Any = distributed.global_state.client
        self._store, self._index, self._count = store, index, count
        self.name = f"process {index} ({socket.gethostname()}, pid {os.getpid()})"
        store.key_value_set(f"hmgr/name/{index}", self.name)
        self._ending = threading.Event()
        self._heard: tuple[str | None, float] = (None, time.monotonic())
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def leave(self) -> None:
        """The run has ended for this process as it should."""
        self._ending.set()
        self._store.key_value_set(f"hmgr/beat/{self._index}", LEFT, allow_overwrite=True)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process by ``error``, and with it the others, who are told why.

        Where a collective failed because another process is gone, that one is named instead.
        """
        if isinstance(error, UserError):
            sentence, code = str(error), 2
        elif isinstance(error, KeyboardInterrupt):
            sentence, code = "it was stopped by Ctrl-C.", 130
        else:
            time.sleep(LOST_SECONDS + 3 * BEAT_SECONDS)  # the watch may know better
            sentence, code = f"{type(error).__name__}: {error}", 1
            traceback.print_exception(error)
        self._ending.set()
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        self._end(f"{self.name} has ended: {sentence}", code)

    def _watch(self) -> None:
        neighbour = (self._index + 1) % self._count
        beat = 0
        while not self._ending.wait(BEAT_SECONDS):
            beat += 1
            self._store.key_value_set(f"hmgr/beat/{self._index}", str(beat), allow_overwrite=True)
            told = self._read("hmgr/end")
            if told is not None:
                self._report(told)
            heard = self._read(f"hmgr/beat/{neighbour}")
            if heard != self._heard[0]:
                self._heard = heard, time.monotonic()
            elif heard != LEFT and time.monotonic() - self._heard[1] > LOST_SECONDS:
                name = self._read(f"hmgr/name/{neighbour}") or f"process {neighbour}"
                self._report(f"{name} has not been heard of for {LOST_SECONDS:.0f} s.")

    def _report(self, sentence: str) -> None:
        """End with what befell a peer, unless this process is ending by itself."""
        if self._ending.is_set():
            return
        print(
            f"error: {sentence} This process ends too: start all of them again, and the run goes "
            "on from its last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        self._end(sentence, EXIT_CODE)

    def _end(self, sentence: str, code: int) -> NoReturn:
        """Tell the others, wait until they have looked, and end without JAX's own farewell.

        That waits for all processes, and aborts where one is gone.
        """
        self._store.key_value_set("hmgr/end", sentence[:1000], allow_overwrite=True)
        time.sleep(3 * BEAT_SECONDS)
        sys.stdout.flush()
        os._exit(code)

    def _read(self, key: str) -> str | None:
        try:
            return str(self._store.key_value_try_get(key))
        except Exception as error:  # its type is JAX's own
            if "NOT_FOUND" in str(error):
                return None
            raise
