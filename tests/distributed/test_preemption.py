"""Signals as a flag: the first one asks, the second one may come too, the third one acts."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from hmgr_jax.distributed.preemption import StopSignal

LOOP = """
import sys, time
from hmgr_jax.distributed.preemption import StopSignal

with StopSignal() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("saving", stop.name, flush=True)
    if sys.argv[1] == "slow":
        time.sleep(60)
print("saved", flush=True)
"""


def start(speed):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LOOP), speed],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_loop_finish(number):
    process = start("fast")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, f"saving {number.name}\nsaved\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT])
def test_the_third_signal_acts_as_usual(first, last):
    process = start("slow")
    process.send_signal(first)
    assert process.stdout.readline() == f"saving {first.name}\n"
    process.send_signal(first)
    assert "one more signal ends this at once" in process.stderr.readline()
    process.send_signal(last)
    out, err = process.communicate(timeout=30)
    assert out == ""
    # Python dies of the signal itself after an uncaught KeyboardInterrupt.
    assert process.returncode == -last
    assert ("KeyboardInterrupt" in err) == (last == signal.SIGINT)


def test_former_handlers_come_back():
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) != former[0]
        assert not stop.requested
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == former
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.requested, stop.name) == (True, "SIGTERM")
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.requested, stop.name) == (True, "SIGTERM")
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == former
    assert stop.requested
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == former


def test_outside_the_main_thread_nothing_is_taken_over():
    former, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with StopSignal() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, former)]
