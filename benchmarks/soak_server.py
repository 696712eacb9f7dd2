"""A process that has imported the program and forks a run for every request of the soak.

Requests are lines of JSON on standard input, ``{"arguments", "out", "err", "events"}``: a command
line and three files. Answers are lines on standard output, the process id at the start of a run and
its exit code at its end. A run appends what it begins to do to ``events``: ``training 12 81.25`` is
the phase, the step and the second (of CLOCK_MONOTONIC). Start-up, which the soak repeats a thousand
times, thereby costs no imports.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from hmgr_jax import main, modes  # noqa: F401  (modes imports all that a run needs)
from hmgr_jax.reports.finish import RunEvaluation
from hmgr_jax.training import loop
from hmgr_jax.training.checkpoint import Checkpoints


def serve() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(request: dict[str, Any]) -> None:
    """In the child: redirect the output, run the command and end the process."""
    code = 1
    try:
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        _record(os.open(request["events"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
        code = main.main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _record(events: int) -> None:
    """Wrap the parts of a run so that they write to ``events``."""

    def tell(phase: str, step: int = 0) -> None:
        os.write(events, f"{phase} {step} {time.monotonic()}\n".encode())

    def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
        real = getattr(owner, name)
        setattr(owner, name, functools.wraps(real)(functools.partial(around, real)))

    def first_step(real: Callable, own: Any) -> Any:
        steps = itertools.count(own.start + 1)
        wrap(loop, "shard", functools.partial(batch, steps, own.start + 1))
        return real(own)

    def batch(steps: Any, first: int, real: Callable, *given: Any) -> Any:
        step = next(steps)
        tell("compiling" if step == first else "training", step)
        return real(*given)

    def evaluate(real: Callable, own: Any, step: int) -> Any:
        tell("evaluating", step)
        found = real(own, step)
        tell("training", step)
        return found

    def save(real: Callable, own: Any, step: int, metric: Any) -> None:
        tell("saving", step)
        real(own, step, metric)

    def seal(real: Callable, own: Any, step: int) -> None:
        real(own, step)
        tell("saved", step)

    def finish(real: Callable, *given: Any) -> Any:
        tell("finishing")
        return real(*given)

    tell("starting")
    for owner, name, around in (
        (loop._Run, "run_to_end", first_step),
        (loop._Run, "_evaluate", evaluate),
        (loop._Run, "_save", save),
        (Checkpoints, "_seal", seal),
        (RunEvaluation, "finish", finish),
    ):
        _wrap_method(owner, name, around)


def _wrap_method(owner: type, name: str, around: Callable[..., Any]) -> None:
    real = getattr(owner, name)

    @functools.wraps(real)
    def method(*given: Any) -> Any:
        return around(real, *given)

    setattr(owner, name, method)


if __name__ == "__main__":
    serve()
