"""TensorBoard events, written synchronously by the caller.

tensorboardX's own writer passes events to a thread; if the thread dies of a full disk, its queue
fills up and the next event blocks forever.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class Events:
    """A new event file in ``folder`` (made if absent).

    With ``purge_step`` TensorBoard drops events of that step and later ones in earlier files. All
    methods raise OSError if the disk refuses.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Names hold the second of the start: a run resumed at once would overwrite the old file.
        number = len(list(folder.iterdir()))
        self._writer = EventsWriter(str(folder / "events"), f".{number:04}")
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=purge_step, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append ``values`` of a step; they are on disk when this returns."""
        for name, value in values.items():
            summary = scalar(re.sub(r"[^-/\w.]", "_", name), value)
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
