"""How a process that works for another one begins."""

from __future__ import annotations

import os
import signal
import threading
import time

GLANCE_SECONDS = 1.0


def begin_worker() -> None:
    """Leave signals to the parent, which stops its workers, and end where the parent was killed.

    Ctrl-C and clusters send signals to all processes; a worker whose parent is gone would wait for
    work for ever.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(GLANCE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
