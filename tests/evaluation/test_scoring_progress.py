"""How far a scoring is: silent when it is quick, a line now and then, one live line."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hmgr_jax.evaluation import scoring_progress as module
from hmgr_jax.evaluation.scoring_progress import ScoringProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: ``clock[0] = seconds``."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_scoring_within_two_seconds_prints_nothing(clock):
    stream = io.StringIO()
    with ScoringProgress("scoring", stream=stream) as progress:
        for done in range(1, 11):
            clock[0] += 0.19
            progress(done, 10)
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_every_ten_seconds(clock):
    stream = io.StringIO()
    with ScoringProgress("scoring 3 image x 4 text items", stream=stream) as progress:
        for done in range(1, 61):
            clock[0] += 1.0
            progress(done, 60)
    assert stream.getvalue().splitlines() == [
        f"scoring 3 image x 4 text items  {done}/60 tiles  0:{60 - done:02} left"
        for done in (2, 12, 22, 32, 42, 52)
    ]


def test_earlier_tiles_do_not_count_for_the_time_left(clock):
    stream = io.StringIO()
    with ScoringProgress("scoring", stream=stream) as progress:
        progress(900, 1000)
        clock[0] += 3.0
        progress(901, 1000)
    assert stream.getvalue() == "scoring  901/1000 tiles  4:57 left\n"


def test_a_first_tile_that_takes_long_is_announced(monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
    stream = io.StringIO()
    with ScoringProgress("scoring 3 x 4", stream=stream):
        deadline = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue() == "scoring 3 x 4\n"


def test_others_print_nothing(clock):
    stream = io.StringIO()
    with ScoringProgress("scoring", shown=False, stream=stream) as progress:
        clock[0] += 30.0
        progress(1, 2)
    assert stream.getvalue() == ""


TERMINAL = """
import sys, time
from hmgr_jax.evaluation import scoring_progress
scoring_progress.SILENT_SECONDS = float(sys.argv[1])
with scoring_progress.ScoringProgress("scoring 3 x 4") as progress:
    for done in range(1, 5):
        time.sleep(0.1)
        progress(done, 4)
print("end")
"""


@pytest.mark.parametrize("silent", [0.15, 30.0])
def test_a_terminal_gets_one_live_line(silent):
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", TERMINAL, str(silent)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    os.close(slave)
    received = b""
    try:
        while chunk := os.read(master, 4096):
            received += chunk
    except OSError:  # Linux tells the end of a terminal by an error
        pass
    os.close(master)
    assert process.wait(timeout=30) == 0, received.decode()
    text = received.decode()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).strip())
    assert lines[-1] == "end"
    if silent > 1:
        assert lines == ["end"]
        return
    assert lines[-2].rstrip() == "scoring 3 x 4  4/4 tiles  0:00 left"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back
