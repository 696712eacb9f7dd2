"""The live line on a terminal, plain lines in a log, and tables in both."""

import io
import os
import pty
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hmgr_jax import progress as module
from hmgr_jax.progress import Progress, table

ROWS = [
    {"direction": "image → text", "R@1": 50.26, "R@10": 100.0, "medR": 1},
    {"direction": "text → image", "R@1": 7.0, "medR": 12},
]


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: ``clock[0] = seconds``."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_a_log_gets_a_line_for_every_loss(clock):
    stream = io.StringIO()
    with Progress(1000, "step", items=64, steps_per_epoch=100, stream=stream) as progress:
        progress.update(1)
        clock[0] += 50.0  # compilation
        progress.update(10, 3.25)
        clock[0] += 2.0
        progress.update(20, 1.5)
        progress.say("dev rsum 301.2 [best] of a long line that no terminal would hold " + "x" * 99)
        clock[0] += 4.0
        progress.update(101, 0.123456)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "epoch 1  step 10/1,000  loss 3.2500  12.8 items/s  1:22:30 left"
    assert lines[1] == "epoch 1  step 20/1,000  loss 1.5000  320 items/s  3:16 left"
    assert lines[2].startswith("dev rsum 301.2 [best] of")
    assert lines[2].endswith("xxx")
    assert lines[3].startswith("epoch 2  step 101/1,000  loss 0.1235  1296 items/s  ")
    assert len(lines) == 4


def test_throughput_is_that_of_the_last_interval(clock):
    progress = Progress(9, "step", items=8, steps_per_epoch=3, stream=io.StringIO(), done=4)
    assert progress.items_per_second is None
    clock[0] += 1.0
    progress.update(6, 1.0)
    assert progress.items_per_second == 16.0
    clock[0] += 500.0  # an evaluation
    progress.restart_clock()
    clock[0] += 1.0
    progress.update(7, 1.0)
    assert progress.items_per_second == 8.0
    progress.update(7, 1.0)  # the same step again: no interval, no division by zero
    assert progress.items_per_second == 8.0


def test_epochs_turn_with_their_first_step():
    stream = io.StringIO()
    progress = Progress(12, "step", items=1, steps_per_epoch=2.5, stream=stream)
    for step in (0, 1, 2, 3, 5, 6):
        progress.update(step, 1.0)
    assert re.findall(r"epoch (\d)", stream.getvalue()) == ["1", "1", "1", "1", "2", "3"]


def test_other_processes_print_nothing():
    stream = io.StringIO()
    with Progress(9, "step", items=1, steps_per_epoch=3, shown=False, stream=stream) as progress:
        progress.update(1, 1.0)
        progress.say("hello")
    assert stream.getvalue() == ""


def test_work_that_ends_before_its_announcement_prints_nothing(clock):
    stream = io.StringIO()
    with Progress(0, "tiles", announce_after=2.0, stream=stream) as progress:
        for done in range(1, 11):
            clock[0] += 0.19
            progress.update(done, total=10)
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_of_work_every_ten_seconds(clock):
    stream = io.StringIO()
    with Progress(0, "tiles", title="scoring", announce_after=2.0, stream=stream) as progress:
        for done in range(1, 61):
            clock[0] += 1.0
            progress.update(done, total=60)
    assert stream.getvalue().splitlines() == [
        f"scoring  tiles {done}/60  0:{60 - done:02} left" for done in (2, 12, 22, 32, 42, 52)
    ]


def test_units_done_before_do_not_count_for_the_time_left(clock):
    stream = io.StringIO()
    with Progress(0, "tiles", announce_after=2.0, stream=stream) as progress:
        progress.update(900, total=1000)
        clock[0] += 3.0
        progress.update(901)
    assert stream.getvalue() == "tiles 901/1,000  4:57 left\n"


def test_a_first_unit_that_takes_long_is_announced():
    stream = io.StringIO()
    with Progress(0, "tiles", title="scoring 3 x 4", announce_after=0.05, stream=stream):
        deadline = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue() == "scoring 3 x 4\n"


def test_units_of_an_iterable_are_counted(clock):
    stream = io.StringIO()
    with Progress(3, "cases", stream=stream) as progress:
        for _ in progress.over("abc"):
            clock[0] += 6.0
    assert stream.getvalue() == "cases 2/3  0:06 left\n"


def test_a_table_in_a_log_is_aligned():
    stream = io.StringIO()
    table("test, F30K 1K", ROWS, stream=stream)
    assert stream.getvalue() == textwrap.dedent(
        """\
        test, F30K 1K
        direction      R@1   R@10  medR
        image → text  50.3  100.0     1
        text → image   7.0           12
        """
    )


def test_an_empty_table_is_its_title():
    stream = io.StringIO()
    table("nothing", [], stream=stream)
    assert stream.getvalue().strip() == "nothing"


TERMINAL = """
import time
from hmgr_jax.progress import Progress, table

with Progress(100, "step", items=32, steps_per_epoch=10) as progress:
    for step in range(1, 13):
        progress.update(step, 1 / step if step % 3 == 0 else None)
        time.sleep(0.03)
        if step == 6:
            progress.say("[bold]saved[/bold] /some/run " + "y" * 60)
table("[test]", [{"direction": "image → text", "R@1": 50.26}])
print("end")
"""


SCORING = """
import time
from hmgr_jax.progress import Progress

with Progress(0, "tiles", title="scoring 3 x 4", announce_after=SECONDS) as progress:
    for done in range(1, 5):
        time.sleep(0.1)
        progress.update(done, total=4)
print("end")
"""


def on_terminal(columns, term="xterm-256color", code=TERMINAL):
    """What a terminal of that many columns receives, and its lines without escape sequences."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": term, "COLUMNS": str(columns), "LINES": "24"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=Path(__file__).parents[1],
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
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return text, [line for line in re.split(r"[\r\n]+", plain) if line]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [100, 24])
def test_a_terminal_gets_one_live_line(columns):
    text, lines = on_terminal(columns)
    assert all(len(line) <= columns for line in lines)
    assert "\x1b[?25l" in text  # the cursor is hidden ...
    assert "\x1b[?25h" in text  # ... and comes back
    live = [line for line in lines if line.startswith("epoch")]
    if columns == 100:
        assert re.fullmatch(
            r"epoch 2  step 12/100  loss 0\.0833  \S+ items/s  \d+:\d\d left *", live[-1]
        )
    else:
        assert live[-1].rstrip() == "epoch 2  step 12/100  l…"
    assert any("[bold]saved[/bold]" in line for line in lines), lines
    assert "".join(lines).count("y") == 60
    assert lines[-1] == "end"
    assert any("50.3" in line for line in lines)


@pytest.mark.slow
def test_a_dumb_terminal_gets_plain_lines():
    text, lines = on_terminal(60, term="dumb")
    assert "\x1b" not in text
    assert [line for line in lines if line.startswith("epoch")][-1].startswith(
        "epoch 2  step 12/100  loss 0.0833"
    )
    assert len([line for line in lines if line.startswith("epoch")]) == 4


@pytest.mark.parametrize("announce_after", [0.15, 30.0])
def test_work_is_one_live_line_once_it_is_announced(announce_after):
    text, lines = on_terminal(80, code=SCORING.replace("SECONDS", str(announce_after)))
    assert lines[-1] == "end"
    if announce_after > 1:
        assert lines == ["end"]
        return
    assert lines[-2].rstrip() == "scoring 3 x 4  tiles 4/4  0:00 left"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back


def test_epochs_after_other_batches_count_what_was_read():
    stream = io.StringIO()
    given = {"done": 10, "epochs_before": 2.5, "stream": stream}
    progress = Progress(20, "step", items=1, steps_per_epoch=4, **given)
    for step in (11, 12, 13, 17):
        progress.update(step, 1.0)
    assert re.findall(r"epoch (\d)", stream.getvalue()) == ["3", "3", "4", "5"]


def test_control_characters_of_a_table_are_shown_not_sent(capsys):
    table("title\x1b[2J", [{"name": "a\x07b", "count": 1}])
    told = capsys.readouterr().out
    assert r"title\x1b[2J" in told
    assert r"a\x07b" in told
