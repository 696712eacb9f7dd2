"""The metrics of a run: ``metrics.jsonl``, which is equal for equal runs, and TensorBoard."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.files.workdir import write_text_atomic

# tensorboardX imports PyTorch where it finds it, seven seconds that nothing here needs, and fails
# on a folder of that name in the working directory.
_TORCH = sys.modules.get("torch")
sys.modules["torch"] = _TORCH  # type: ignore[assignment]  # None: cannot be imported
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar
finally:
    if _TORCH is None:
        del sys.modules["torch"]

Row = dict[str, float]
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


class MetricLog:
    """Appends rows to the files of ``workdir``; with ``kept`` False rows are only checked.

    ``metrics.jsonl`` has one row ``{"step": 10, "loss": 0.5, ...}`` per logging step and one per
    dev evaluation (names ``dev/...``), with the values of that step and nothing that depends on
    the clock, so that equal runs have equal files. ``timing.jsonl`` has the throughput. TensorBoard
    events of both lie in ``tensorboard/``.
    """

    def __init__(self, workdir: Path, *, kept: bool = True) -> None:
        self._workdir, self._kept = workdir, kept
        self._events: _Events | None = None
        self._purge_step: int | None = None
        self._written = hashlib.sha256()  # of metrics.jsonl
        self._bytes = 0

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a row to ``metrics.jsonl``; ``values`` are numbers or arrays of one number.

        Raises FoundNonFinite for NaN or infinity; nothing of the row is written then.
        """
        self._append(METRICS, step, values)

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a row to ``timing.jsonl``, such as the throughput; otherwise as ``write``."""
        self._append(TIMING, step, values)

    def cut_after(self, step: int) -> None:
        """Drop rows after ``step`` (-1: all rows) and incomplete lines of an interrupted run.

        Call it at every start, before the first row, so that no row is written twice.
        """
        self.close()
        self._written, self._bytes = hashlib.sha256(), 0
        self._count(_cut(self._workdir / METRICS, step))
        _cut(self._workdir / TIMING, step)
        self._purge_step = step + 1

    def digest(self) -> dict[str, Any]:
        """Size and sha256 of ``metrics.jsonl`` as written so far, for `check`."""
        return {"bytes": self._bytes, "sha256": self._written.hexdigest()}

    def check(self, written: Mapping[str, Any] | None) -> None:
        """Warn if ``metrics.jsonl`` does not begin with what `digest` described at a save."""
        path = self._workdir / METRICS
        found = path.read_bytes()[: written["bytes"]] if written and path.is_file() else b""
        if written and hashlib.sha256(found).hexdigest() != written["sha256"]:
            warnings.warn(
                f"{path} was changed or has lost rows since they were written, so curves from it "
                "are incomplete: restore the file from a copy if there is one",
                RuntimeWarning,
                stacklevel=3,
            )

    def _count(self, text: str) -> None:
        """Count text that is in ``metrics.jsonl``."""
        self._written.update(text.encode())
        self._bytes += len(text.encode())

    def close(self) -> None:
        """Close the file of TensorBoard events; everything is on disk already."""
        events, self._events = self._events, None
        if events is not None:
            events.close()

    def _append(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        row = _row(step, values)
        if not self._kept:
            return
        self._workdir.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row) + "\n"
        with (self._workdir / name).open("a", encoding="utf-8") as file:  # closing flushes
            file.write(line)
        if name == METRICS:
            self._count(line)
        if self._events is None:
            self._events = _Events(self._workdir / "tensorboard", self._purge_step)
        self._events.write(int(step), {k: v for k, v in row.items() if k != "step"})


class _Events:
    """A new file of TensorBoard events in ``folder`` (made if absent), written synchronously.

    tensorboardX's own writer passes events to a thread; if the thread dies of a full disk, the next
    event blocks forever. With ``purge_step`` TensorBoard drops events of that step and later ones
    in earlier files. All methods raise OSError if the disk refuses.
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
        for name, value in values.items():
            summary = scalar(re.sub(r"[^-/\w.]", "_", name), value)
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_rows(path: Path) -> list[Row]:
    """Rows of a ``.jsonl`` file in order, without incomplete lines; none if there is no file."""
    return [row for row, _ in _whole_lines(path)]


def _row(step: int, values: Mapping[str, Any]) -> Row:
    if "step" in values:
        raise ValueError("'step' is the name of the row's step and cannot name a value")
    row: Row = {"step": int(step)} | {name: float(value) for name, value in values.items()}
    for name, value in row.items():
        if not math.isfinite(value):
            raise FoundNonFinite(
                f"{name} at step {step} must be finite, got {value}: lower train.lr or check the "
                "data of that step."
            )
    return row


def _whole_lines(path: Path) -> list[tuple[Row, str]]:
    """Complete rows, each with its line in the file (without the line end)."""
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append((row, line))
    return found


def _cut(path: Path, step: int) -> str:
    """Drop rows after ``step``; returns what is left."""
    kept = "".join(line + "\n" for row, line in _whole_lines(path) if row["step"] <= step)
    if path.exists():
        write_text_atomic(path, kept)
    return kept
