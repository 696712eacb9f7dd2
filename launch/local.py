"""Several processes of one run on this machine: ``python launch/local.py N [...] -- COMMAND...``.

    python launch/local.py 2 --devices 4 -- \\
        python -m hmgr_jax.main --config configs/worlds.py --workdir runs/mine

    N              number of processes; process I gets ``--hosts 127.0.0.1:PORT,N,I`` at its end
    --devices D    each has D virtual CPU devices and nothing else (default: JAX's devices)
    --restarts R   start all of them again after a failure, at most R times (default 0)
    --grace S      seconds that the others have to end after one has failed (default 15)
    --dry-run      print the commands and start nothing

Every line is printed with the number of its process. SIGTERM and Ctrl-C are passed on to all, so
the run saves and ends; the same command resumes it. The exit code is the first one that is not 0
(128 + the signal for a killed process). A user error (exit code 2) is not retried. All processes
end with this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError

POLL_SECONDS = 0.05
USER_ERROR = 2
PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit code is the first one of the processes that is not 0."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Start, watch and restart the processes; returns the exit code."""
    own, command = split_command(arguments)
    parser = Parser(description=__doc__)
    parser.add_argument("processes", type=int, nargs="?")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--grace", type=float, default=15.0)
    parser.add_argument("--dry-run", action="store_true")
    flags = parser.parse(own)
    _check(flags.processes, flags.devices, flags.restarts, command)
    added = cpu_environment(flags.devices)
    if flags.dry_run:
        for line in hosts_commands(command, flags.processes):
            print(" ".join([*(f"{k}={v}" for k, v in added.items()), shlex.join(line)]))
        return 0
    return _repeat(command, flags.processes, added, flags.restarts, flags.grace)


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before ``--``, and the command after it (empty without ``--``)."""
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def cpu_environment(devices: int | None) -> dict[str, str]:
    """Environment for ``devices`` virtual CPU devices; empty for None."""
    if devices is None:
        return {}
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def hosts_commands(command: Sequence[str], processes: int) -> list[list[str]]:
    """The command of each process, with a free port for the coordinator."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        [*command, "--hosts", f"127.0.0.1:{port},{processes},{index}"] for index in range(processes)
    ]


def _check(processes: int | None, devices: int | None, restarts: int, command: list[str]) -> None:
    if processes is None or processes < 1:
        raise UserError("Give the number of processes, 1 or more, as: local.py 2 -- COMMAND.")
    if devices is not None and devices < 1:
        raise UserError(f"--devices expects 1 or more virtual CPU devices, not {devices}.")
    if restarts < 0:
        raise UserError(f"--restarts expects 0 or more, not {restarts}.")
    if not command:
        raise UserError("Give the command of each process after --, as: local.py 2 -- COMMAND.")
    if any(word.partition("=")[0] == "--hosts" for word in command):
        raise UserError("Leave --hosts out of the command: each process gets its own from here.")


def _repeat(
    command: Sequence[str], processes: int, added: Mapping[str, str], restarts: int, grace: float
) -> int:
    """Run all processes until they succeed, are stopped, or no restarts are left."""
    group = Group(added)
    for restart in range(restarts + 1):
        code = group.run(hosts_commands(command, processes), grace)
        if code in (0, USER_ERROR) or group.stopped or restart == restarts:
            break
        _say(f"restart {restart + 1} of {restarts}")
    return code


class Group:
    """Processes that end together; ``stopped`` after SIGTERM or Ctrl-C."""

    def __init__(self, added: Mapping[str, str]) -> None:
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **added}
        self.stopped = False
        self.alive: dict[int, subprocess.Popen[bytes]] = {}

    def run(self, commands: Sequence[Sequence[str]], grace: float) -> int:
        """Start one process per command and wait; returns the first exit code that is not 0."""
        readers: list[threading.Thread] = []
        stopping = {s: signal.signal(s, self._forward) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            for index, command in enumerate(commands):
                child = self.alive[index] = self._start(command)
                readers.append(threading.Thread(target=_copy, args=(index, child), daemon=True))
            # Threads start after the last fork: a fork among threads can deadlock.
            for reader in readers:
                reader.start()
            return self._wait(grace)
        finally:
            self._kill()
            for reader in readers:
                if reader.ident:
                    reader.join()
            for number, handler in stopping.items():
                signal.signal(number, handler)

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C of the terminal reaches them once, through here
            preexec_fn=_die_with_parent(os.getpid()),
        )

    def _wait(self, grace: float) -> int:
        """Wait until all have ended; after a failure the others have ``grace`` seconds."""
        first, deadline = 0, float("inf")
        while self.alive:
            for index, code in self._ended():
                if code == 0:
                    continue
                if not first:
                    first, deadline = code, time.monotonic() + grace
                _say(f"process {index} failed with exit code {_named(code)}")
            if time.monotonic() > deadline:
                late = ", ".join(map(str, self.alive))
                _say(f"process {late} did not end within {grace:g} s and is killed")
                self._kill()
            time.sleep(POLL_SECONDS)
        return first

    def _ended(self) -> list[tuple[int, int]]:
        """Number and exit code of the processes that ended since the last call."""
        ended = []
        for index, child in list(self.alive.items()):
            # Looked at before it is reaped: its number still names its group and nobody else's.
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            os.killpg(child.pid, signal.SIGKILL)
            del self.alive[index]  # before it is reaped: a signal may be passed on at any moment
            code = child.wait()
            ended.append((index, 128 - code if code < 0 else code))
        return ended

    def _forward(self, number: int, _: FrameType | None) -> None:
        """Pass a signal on to the processes, not to their helpers, which are needed for saving."""
        self.stopped = True
        for child in list(self.alive.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)  # send_signal would reap it, and _ended miss it

    def _kill(self) -> None:
        """Kill the remaining processes with all their children."""
        for child in list(self.alive.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self.alive.clear()


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """Make a child process end when this process is killed (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare


def _copy(index: int, child: subprocess.Popen[bytes]) -> None:
    """Print the output of a process line by line, with its number."""
    assert child.stdout is not None
    for line in child.stdout:
        text = line.decode(errors="replace").rstrip("\n")
        try:
            sys.stdout.write(f"[{index}] {text}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            pass  # nobody reads any more: the run itself goes on


def _named(code: int) -> str:
    """An exit code, with the name of its signal."""
    try:
        return f"{code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return str(code)


def _say(sentence: str) -> None:
    print(f"local: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
