"""Run configurations on this machine, each in one or several processes of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hmgr_jax
from benchmarks.scaling.grid import Configuration, Row

CHILD = "benchmarks.scaling.child"
ERROR_LINE = re.compile(r"error: |(\w+\.)*\w*(Error|Exception|Interrupt)\b")
"""The beginning of the line that names the error: a sentence of ours or a traceback's end."""
PATIENCE = 5.0
"""Seconds that the peers of a failed process have to end by themselves."""


def in_children(configuration: Configuration, platform: str, how: dict[str, Any]) -> Row:
    """The row of a configuration; it has ``error``, a sentence, if a process failed.

    ``platform`` is cpu, gpu, tpu, or empty for JAX's default; ``how`` holds options of ``measure``.
    On CPU the configuration gets as many virtual devices as it needs. Elsewhere several processes
    share the present devices equally.
    """
    with tempfile.TemporaryDirectory() as folder:
        row_file = Path(folder, "row.json")
        job = {
            "configuration": list(asdict(configuration).values()),
            "platform": platform,
            "address": f"127.0.0.1:{_free_port()}",
            "how": how,
            "row_file": str(row_file),
        }
        logs = [Path(folder, f"{index}.log") for index in range(configuration.processes)]
        children = [start(job | {"index": i}, log) for i, log in enumerate(logs)]
        try:
            failed = _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
        if failed is None:
            return json.loads(row_file.read_text())
        return _error(configuration, logs[failed].read_text(), children[failed].returncode)


def start(job: dict[str, Any], log: Path) -> subprocess.Popen:
    """Start a process that measures ``job``, with its output in ``log``."""
    own, package = Path(__file__).parents[2], Path(hmgr_jax.__file__).parents[1]
    places = filter(None, [str(package), str(own), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    with log.open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", CHILD, json.dumps(job)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _wait(children: list[subprocess.Popen]) -> int | None:
    """Wait until all have ended or one has failed; the number of the failed one."""
    while True:
        codes = [child.poll() for child in children]
        failed = next((i for i, code in enumerate(codes) if code), None)
        if failed is not None:
            time.sleep(PATIENCE if None in codes else 0)
            return failed
        if None not in codes:
            return None
        time.sleep(0.05)


def _error(configuration: Configuration, log: str, code: int) -> Row:
    lines = [line for line in log.splitlines() if ERROR_LINE.match(line)]
    told = lines[-1] if lines else f"The process ended with code {code}."
    workload = asdict(configuration.workload)
    names = ("mode", "devices", "processes")
    row = {"benchmark": "scaling"} | {name: getattr(configuration, name) for name in names}
    return row | workload | {"error": told.removeprefix("error: ").strip()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
