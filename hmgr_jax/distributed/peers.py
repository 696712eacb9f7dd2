"""Processes of one run watch each other: a lost process is named and the others end quickly.

Without the watch, a collective waits forever for a lost process, or fails without naming it. Each
process writes a heartbeat per second to the key-value store of JAX's coordination service, and
reads the heartbeat of its neighbour and the key that announces the end of the run.
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
"""EX_UNAVAILABLE of sysexits.h: a process of the run was lost."""
MISTAKE, INTERRUPTED = 2, 130
"""Exit codes that every process of the run uses for these ends."""
BEAT_SECONDS = 1.0
LOST_BEATS = 10
"""A process without a heartbeat during this many of our own is lost. Heartbeats are counted, not
timed, so that a run that was suspended as a whole continues."""
LEFT = "left"


class Peers:
    """The watch of one process; every process of the run creates one."""

    def __init__(self, index: int, count: int) -> None:
        store: Any = distributed.global_state.client
        self._store, self._index, self._count = store, index, count
        self.name = f"process {index} ({socket.gethostname()}, pid {os.getpid()})"
        store.key_value_set(f"hmgr/name/{index}", self.name)
        self._ending, self._leaving = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """End the watch after a normal end of the run."""
        self._ending.set()
        self._thread.join()  # its last heartbeat must precede LEFT
        self._store.key_value_set(f"hmgr/beat/{self._index}", LEFT, allow_overwrite=True)

    def fail(self, error: BaseException) -> NoReturn:
        """End this process with ``error`` and announce the reason to the others, which end too.

        If a collective failed because another process is lost, the message names that process.
        """
        if isinstance(error, KeyboardInterrupt):
            sentence, code = "it was stopped by Ctrl-C.", INTERRUPTED
        elif isinstance(error, UserError | OSError):
            sentence, code = str(error).replace("\n", " "), MISTAKE
        else:
            time.sleep(2 * LOST_BEATS * BEAT_SECONDS)  # the watch may name a lost process first
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
                ending, now = self._read("hmgr/end"), self._read(f"hmgr/beat/{neighbour}")
                name = self._read(f"hmgr/name/{neighbour}")
            except Exception:  # the service is busy or gone: JAX itself ends us in the second case
                continue
            if ending:
                code, _, sentence = ending.partition(" ")
                self._report(sentence, int(code))
            if now != heard or now == LEFT:
                heard, silent = now, 0
            elif silent > LOST_BEATS:
                sentence = f"{name} has sent no heartbeat for {LOST_BEATS} s."
                self._report(sentence, EXIT_CODE, tell=True)

    def _report(self, sentence: str, code: int, *, tell: bool = False) -> None:
        """End with the reason of another process, unless this process is ending already."""
        if self._ending.is_set():
            return
        self._end(
            f"error: {sentence} This process ends too: start all processes again to resume "
            "from the last checkpoint.",
            code if code in (MISTAKE, INTERRUPTED) else EXIT_CODE,
            sentence if tell else "",
        )

    def _end(self, line: str, code: int, announcement: str) -> NoReturn:
        """Print the reason, announce it to the others and exit without JAX's own shutdown.

        JAX's shutdown waits for all processes and aborts if one is lost. Process 0 exits last,
        since the key-value store ends with it.
        """
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()  # another thread is ending the process
        print(line, file=sys.stderr, flush=True)
        if announcement:
            with contextlib.suppress(Exception):
                text = f"{code} {announcement[:1000]}"
                self._store.key_value_set("hmgr/end", text, allow_overwrite=True)
        time.sleep(BEAT_SECONDS * (6 if self._index == 0 else 3 if announcement else 0))
        sys.stdout.flush()
        os._exit(code)

    def _read(self, key: str) -> str:
        try:
            return str(self._store.key_value_try_get(key))
        except Exception as error:  # its type is JAX's own
            if "NOT_FOUND" in str(error):
                return ""
            raise
