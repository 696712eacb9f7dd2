"""Processes of one run that watch one another: who is lost is named, and the others end at once.

Without it a collective whose other side is gone waits for ever, or ends in a message that names
nobody. Each process writes a beat a second into the key-value store of JAX's coordination service,
and looks at its neighbour's and at whether anybody has told the end of the run.
"""

from __future__ import annotations

import contextlib
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
MISTAKE, INTERRUPTED = 2, 130
"""Exit codes that all processes share."""
BEAT_SECONDS = 1.0
LOST_BEATS = 10
"""A peer that is silent for so many of our own beats is lost. They are counted by turns, not by the
clock, so that a run that was suspended as a whole goes on."""
LEFT = "left"


class Peers:
    """This process among the others of its run, which all make one."""

    def __init__(self, index: int, count: int) -> None:
        store: Any = distributed.global_state.client
        self._store, self._index, self._count = store, index, count
        self.name = f"process {index} ({socket.gethostname()}, pid {os.getpid()})"
        store.key_value_set(f"hmgr/name/{index}", self.name)
        self._ending, self._leaving = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """The run has ended for this process as it should."""
        self._ending.set()
        self._thread.join()  # its last beat is not to come after the farewell
        self._store.key_value_set(f"hmgr/beat/{self._index}", LEFT, allow_overwrite=True)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process by ``error``, and with it the others, who are told why.

        Where a collective failed because another process is gone, that one is named instead.
        """
        if isinstance(error, KeyboardInterrupt):
            sentence, code = "it was stopped by Ctrl-C.", INTERRUPTED
        elif isinstance(error, UserError | OSError):
            sentence, code = str(error).replace("\n", " "), MISTAKE
        else:
            time.sleep(2 * LOST_BEATS * BEAT_SECONDS)  # the watch may know better, and end this
            sentence, code = f"{type(error).__name__}: {error}", 1
            traceback.print_exception(error)
        self._ending.set()
        self._end(f"error: {sentence}", code, f"{self.name} has ended: {sentence}")

    def _watch(self) -> None:
        neighbour, heard, beat, silent = (self._index + 1) % self._count, "", 0, 0
        while not self._ending.wait(BEAT_SECONDS):
            beat, silent = beat + 1, silent + 1
            try:
                mine = f"hmgr/beat/{self._index}"
                self._store.key_value_set(mine, str(beat), allow_overwrite=True)
                told, now = self._read("hmgr/end"), self._read(f"hmgr/beat/{neighbour}")
                name = self._read(f"hmgr/name/{neighbour}")
            except Exception:  # the service is busy or gone: JAX itself ends us in the second case
                continue
            if told:
                code, _, sentence = told.partition(" ")
                self._report(sentence, int(code))
            if now != heard or now == LEFT:
                heard, silent = now, 0
            elif silent > LOST_BEATS:
                sentence = f"{name} has not been heard of for {LOST_BEATS} s."
                self._report(sentence, EXIT_CODE, tell=True)

    def _report(self, sentence: str, code: int, *, tell: bool = False) -> None:
        """End with what befell a peer, unless this process is ending by itself."""
        if self._ending.is_set():
            return
        self._end(
            f"error: {sentence} This process ends too: start all of them again, and the run goes "
            "on from its last checkpoint.",
            code if code in (MISTAKE, INTERRUPTED) else EXIT_CODE,
            sentence if tell else "",
        )

    def _end(self, line: str, code: int, told: str) -> NoReturn:
        """Say it, tell the others where they do not know yet, and end without JAX's own farewell.

        That waits for all processes, and aborts where one is gone. Process 0 leaves last: the
        store ends with it, and with the store whoever has not looked yet.
        """
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()  # another thread is at it
        print(line, file=sys.stderr, flush=True)
        if told:
            with contextlib.suppress(Exception):
                text = f"{code} {told[:1000]}"
                self._store.key_value_set("hmgr/end", text, allow_overwrite=True)
        time.sleep(BEAT_SECONDS * (6 if self._index == 0 else 3 if told else 0))
        sys.stdout.flush()
        os._exit(code)

    def _read(self, key: str) -> str:
        try:
            return str(self._store.key_value_try_get(key))
        except Exception as error:  # its type is JAX's own
            if "NOT_FOUND" in str(error):
                return ""
            raise
