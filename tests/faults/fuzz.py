"""A small fuzzer: damage one file, act, and compare with what the undamaged files gave.

A test makes good files in a folder of its own and calls::

    found = fuzz([folder / "codes.npy", folder / "index.json"], lambda: read(folder), count=40)

``read`` takes nothing and returns anything that `alike` compares (arrays, dicts, lists, paths,
dataclasses...), or what the caller's ``same(now, before)`` compares. Before each action one of the
files, chosen by the seed, gets flipped bits, extreme bytes, a cut, a block twice, a block less, or
is deleted; afterwards all files of ``files`` are put back (also those that the action renamed or
wrote; other files that it makes are the caller's to remove).

Allowed are an equal result, and a refusal by `UserError` in one sentence. ``values=True`` says that
the files have no checksums: another result then counts as ``other``. Anything else fails: another
exception, another result, more than ``seconds`` of the processor, `WAIT` times as long on the
clock, or ``megabytes`` a run. The message names each failure with the seed, by which ``damaged``
gives the same bytes again. Returned are the numbers of ``equal``, ``refused`` and ``other``; `note`
prints them with ``pytest -s``.

The usual number of damages is `COUNT`; under ``pytest -m slow`` call with `MANY` divided by the
number of groups of files (``HMGR_TEST_DAMAGES=1000`` makes more). Crashes of the process are
failures too, of the whole pytest worker: ``pytest -n 0`` then shows the stack.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError

COUNT = 25
MANY = int(os.environ.get("HMGR_TEST_DAMAGES", 250))
SECONDS = 5.0
WAIT = 12
"""Seconds on the clock of a second of the processor, on a busy machine."""
MEGABYTES = 500
GUARD = 8
"""Address space beyond which a run fails, as a multiple of ``megabytes``; spares the machine."""
LONGEST = 2000
"""Characters of a sentence; a longer one repeats what is in the file."""


class TooLong(BaseException):
    """A run took more than its seconds."""


def damaged(data: bytes, seed: int) -> bytes | None:
    """``data`` with a damage that depends on ``seed`` alone; None for a deleted file."""
    rng = random.Random(seed)
    kind = rng.choice(("flip", "flip", "flip", "bytes", "bytes", "cut", "twice", "less", "delete"))
    if kind == "delete" or not data:
        return None
    found = bytearray(data)
    # Headers hold what readers trust: half of all damages lie in the first 512 bytes.
    end = len(data) if rng.random() < 0.5 else min(len(data), 512)
    at = rng.randrange(end)
    size = min(len(data) - at, rng.choice((1, 4, 16, 256)))
    if kind == "flip":
        for place in (at, *(rng.randrange(end) for _ in range(rng.choice((0, 0, 4))))):
            found[place] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        found[at : at + size] = bytes([rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))]) * size
    elif kind == "cut":
        del found[at:]
    elif kind == "twice":
        found[at:at] = found[at : at + size]
    else:
        del found[at : at + size]
    return bytes(found)


def fuzz(
    files: Sequence[Path],
    action: Callable[[], Any],
    *,
    same: Callable[[Any, Any], bool] | None = None,
    values: bool = False,
    count: int = COUNT,
    seed: int = 0,
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
) -> Counter[str]:
    """Damage ``files`` ``count`` times and act each time; see the top of this file."""
    good = {path: path.read_bytes() for path in files}
    before, same = action(), same or alike
    outcomes: Counter[str] = Counter()
    failures = []
    for number in range(seed, seed + count):
        path = files[random.Random(f"file {number}").randrange(len(files))]  # whatever the damage
        _put(path, damaged(good[path], number))
        outcome, what = _act(action, before, same, seconds, megabytes)
        for name, data in good.items():
            _put(name, data)
        if outcome == "different":
            outcome = "other" if values else outcome
        outcomes[outcome] += 1
        if outcome not in ("equal", "refused", "other"):
            failures.append(f"seed {number}, {path.name}: {outcome} {what}")
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures)
    return outcomes


def note(name: str, found: Mapping[str, int]) -> None:
    """Print a row of the table in docs/reliability.md."""
    cells = " | ".join(str(found.get(key, 0)) for key in ("equal", "refused", "other"))
    print(f"\n| {name} | {sum(found.values())} | {cells} |")


def alike(a: Any, b: Any) -> bool:
    """Equal, to the bit of every array and the order of every mapping."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if dataclasses.is_dataclass(a):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


def _act(
    action: Callable[[], Any],
    before: Any,
    same: Callable[[Any, Any], bool],
    seconds: float,
    megabytes: float,
) -> tuple[str, str]:
    """What an action led to, and more about it."""
    begun, room = time.process_time(), _Room()
    try:
        with _limited(seconds, megabytes), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = action()
        outcome, what = ("equal" if same(found, before) else "different"), ""
    except UserError as error:
        sentence = str(error)
        outcome, what = "refused", sentence
        if "\n" in sentence or len(sentence) > LONGEST or not sentence.strip():
            outcome, what = "no sentence", repr(sentence[:LONGEST])
    except TooLong:
        outcome, what = "too long", ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, what = "exception", f"{type(error).__name__}: {str(error)[:300]}"
    if (taken := time.process_time() - begun) > seconds:
        return "too long", f"{taken:.1f} s, {what}"
    if (grown := room.grown()) > megabytes:
        return "memory", f"{grown:.0f} MB, {what}"
    return outcome, what


def _put(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
    elif not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # another inode: the old one may still be mapped
        path.write_bytes(data)


class _Room:
    """Growth of the process's memory, in MB, at its highest (Linux; elsewhere 0)."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the highest
        self._before = self._megabytes("VmRSS")

    def grown(self) -> float:
        """Since it was made."""
        return self._megabytes("VmHWM") - self._before

    @staticmethod
    def _megabytes(name: str) -> float:
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) / 1024
        return 0.0


@contextlib.contextmanager
def _limited(seconds: float, megabytes: float) -> Iterator[None]:
    """Raise `TooLong` long after ``seconds``, and MemoryError far beyond ``megabytes``."""

    def stop(*_: object) -> None:
        raise TooLong

    former, limits = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    now = int(_Room._megabytes("VmSize") * 2**20)
    try:
        if now:
            most = now + int(GUARD * megabytes * 2**20)
            resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
        signal.setitimer(signal.ITIMER_REAL, WAIT * seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, former)
