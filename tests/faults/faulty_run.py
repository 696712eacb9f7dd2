"""Tiny runs in processes of their own, into which a test puts a fault."""

import os
import subprocess
import sys
import textwrap

from tiny_run import ROOT, arguments, finished

WRITTEN = ("metrics.jsonl", "results.json")
BEFORE = """
import os, signal, sys, time
from hmgr_jax.main import main
from hmgr_jax.training import loop

def at_step(step, act):
    # Act while the batch of a step is on its way to the devices.
    real, count = loop.shard, iter(range(1, 1000))
    def shard(mesh, batch):
        if next(count) == step:
            act()
        return real(mesh, batch)
    loop.shard = shard
"""


def start(fault, workdir, **options):
    """The command of a tiny run, in a process that executes ``fault`` first."""
    program = BEFORE + textwrap.dedent(fault) + "\nsys.exit(main(sys.argv))\n"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments(workdir, **options)[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"},
    )


def end(process):
    """(exit code, what it said, the lines that it complained in)."""
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors.splitlines()


def assert_as_unbroken(workdir, model="vse"):
    """The same bytes as a run that nothing happened to."""
    for name in WRITTEN:
        assert (workdir / name).read_bytes() == (finished(model) / name).read_bytes(), name
