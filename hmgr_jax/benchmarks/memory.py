"""Peak memory of this process."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


def forget_peak() -> None:
    """Reset the peak of `peak_memory_bytes`, if the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's memory before exec
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
