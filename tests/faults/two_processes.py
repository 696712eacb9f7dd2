"""Tiny runs of several processes on this machine, each with its own virtual devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import tiny_run

from hmgr_jax.training.records import read_rows

TIMEOUT = 240.0


class Group:
    """The processes of one run, their output gathered as it comes."""

    def __init__(self, workdir, *more, count=2, devices=1, recipe=None, **options):
        options = {"parallel__devices": 0, **options}
        arguments = tiny_run.arguments(workdir, *more, **options)[1:]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.outputs = [[] for _ in range(count)]
        self.errors = [[] for _ in range(count)]
        self.processes, self._readers = [], []
        for index in range(count):
            hosts = () if count == 1 else ("--hosts", f"{address},{count},{index}")
            self._start(index, [*arguments, *hosts], devices)

    def _start(self, index, arguments, devices):
        own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "hmgr_jax.main", *arguments],
            cwd=tiny_run.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | own,
        )
        self.processes.append(process)
        for pipe, lines in ((process.stdout, self.outputs), (process.stderr, self.errors)):
            reader = threading.Thread(target=lines[index].extend, args=(pipe,), daemon=True)
            reader.start()
            self._readers.append(reader)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self.processes:
            process.stdout.close()
            process.stderr.close()

    def wait_for(self, text):
        """Until process 0 has printed a line with ``text``."""
        end = time.monotonic() + TIMEOUT
        while not any(text in line for line in list(self.outputs[0])):
            assert time.monotonic() < end, (text, self.outputs, self.errors)
            assert self.processes[0].poll() is None, (text, self.outputs, self.errors)
            time.sleep(0.02)

    def codes(self):
        """The exit codes, once all have ended."""
        end = time.monotonic() + TIMEOUT
        codes = [process.wait(max(0.1, end - time.monotonic())) for process in self.processes]
        for reader in self._readers:
            reader.join()
        return codes

    def send(self, index, number=signal.SIGTERM):
        self.processes[index].send_signal(number)

    def said(self, index):
        """What a process wrote on standard error."""
        return "".join(self.errors[index])


def run(workdir, *more, **options):
    """A run of several processes to its end, which must be a good one."""
    with Group(workdir, *more, **options) as group:
        codes = group.codes()
        assert not any(codes), (codes, group.errors)
    return group


def rows(workdir):
    return read_rows(workdir / "metrics.jsonl")


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def assert_same_numbers(found, expected, tolerance=1e-5):
    """Rows of metrics that name the same values at the same steps, equal to rounding."""
    assert [sorted(row) for row in found] == [sorted(row) for row in expected]
    for own, other in zip(found, expected, strict=True):
        for name, value in other.items():
            assert abs(own[name] - value) <= tolerance * max(1.0, abs(value)), (name, own, other)
