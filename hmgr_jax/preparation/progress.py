"""What a person sees meanwhile: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 10.0


class Bar:
    """``with Bar("images", 1000) as bar: bar.advance(10)``; printed on stderr."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done = what, total, done
        console = Console(stderr=True)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task(what, total=total, completed=done)
        self._due = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        self._done += count
        self._live.update(self._task, completed=self._done)
        if self._live.disable and time.monotonic() > self._due:
            self._due = time.monotonic() + LINE_SECONDS
            print(f"{self._what} {self._done:,} of {self._total:,}", file=sys.stderr, flush=True)
