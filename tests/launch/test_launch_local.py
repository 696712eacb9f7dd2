"""Several processes on one machine: what is printed, passed on, ended and started again."""

import re
import signal
import subprocess
import sys

import pytest
from launch_cases import LAUNCH, alive, local, one_error, surroundings, until

LOCAL = LAUNCH / "local.py"
# Every child gets --hosts at its end: NUMBER is the process's own, HOSTS all of it.
START = "import os, sys, time, signal, pathlib; HOSTS = sys.argv[-1]; NUMBER = HOSTS[-1]\n"


def child(code, *words):
    return ["--", sys.executable, "-c", START + code, *map(str, words)]


def background(*words):
    return subprocess.Popen(
        [sys.executable, str(LOCAL), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(None, {}),
    )


def test_lines_carry_the_number_of_their_process():
    code = "print(NUMBER, 'out'); print(HOSTS, file=sys.stderr); print('no end', end='')"
    done = local(3, *child(code))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    port = re.search(r"127\.0\.0\.1:(\d+),3,0", done.stdout).group(1)
    for i in range(3):
        mine = {line for line in lines if line.startswith(f"[{i}] ")}
        assert mine == {f"[{i}] 127.0.0.1:{port},3,{i}", f"[{i}] {i} out", f"[{i}] no end"}
    assert len(lines) == 9


@pytest.mark.parametrize("devices", [None, 3])
def test_virtual_devices_only_when_asked_for(devices, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "other")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    code = "e = os.environ; print(e['JAX_PLATFORMS'], e.get('JAX_NUM_CPU_DEVICES'))"
    done = local(1, *(["--devices", devices] if devices else []), *child(code))
    assert done.stdout == ("[0] cpu 3\n" if devices else "[0] other None\n")


@pytest.mark.slow
def test_jax_sees_that_many_devices():
    code = "import jax; print(jax.device_count(), jax.devices()[0].platform)"
    assert local(1, "--devices", 3, *child(code)).stdout == "[0] 3 cpu\n"


@pytest.mark.slow
def test_the_first_failure_is_named_and_the_others_may_end(tmp_path):
    """Process 1 fails; 0 and 2 notice that it is gone, one with another code, one without."""
    code = (
        "p = pathlib.Path(sys.argv[1]); new = p.with_suffix('.new')\n"
        "if NUMBER == '1': new.write_text(str(os.getpid())); new.rename(p); sys.exit(7)\n"
        "while not p.exists() or pathlib.Path('/proc', p.read_text()).exists(): time.sleep(0.02)\n"
        "print('peer is gone', flush=True); sys.exit(9 if NUMBER == '0' else 0)"
    )
    done = local(3, *child(code, tmp_path / "pid"))
    assert done.returncode == 7
    assert sorted(done.stdout.splitlines()) == ["[0] peer is gone", "[2] peer is gone"]
    assert done.stderr.splitlines() == [
        "local: process 1 failed with exit code 7",
        "local: process 0 failed with exit code 9",
    ]


@pytest.mark.slow
def test_who_does_not_end_is_killed_with_its_own_children(tmp_path):
    code = (
        "import subprocess; p = pathlib.Path(sys.argv[1]); new = p.with_suffix('.new')\n"
        "while NUMBER == '0':\n"
        "    time.sleep(0.02)\n"
        "    if p.exists(): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "helper = subprocess.Popen(['sleep', '60'])\n"
        "new.write_text(f'{os.getpid()} {helper.pid}'); new.rename(p); time.sleep(60)"
    )
    done = local(2, "--grace", 0.5, *child(code, tmp_path / "pids"))
    assert done.returncode == 128 + signal.SIGSEGV
    assert done.stderr.splitlines() == [
        "local: process 0 failed with exit code 139 (SIGSEGV)",
        "local: process 1 did not end within 0.5 s and is killed",
    ]
    assert not any(map(alive, (tmp_path / "pids").read_text().split()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_once_and_nothing_is_restarted(number, tmp_path):
    code = (
        "def save(number, _): print('saved at', number, flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save); signal.signal(signal.SIGINT, save)\n"
        "(pathlib.Path(sys.argv[1]) / NUMBER).touch(); time.sleep(60)"
    )
    parent = background(2, "--restarts", 3, *child(code, tmp_path))
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.send_signal(number)
    out, err = parent.communicate(timeout=30)
    assert (parent.returncode, err) == (0, "")
    assert sorted(out.splitlines()) == [f"[{i}] saved at {number.value}" for i in range(2)]


@pytest.mark.slow
def test_no_orphans_when_it_is_killed_itself(tmp_path):
    code = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = pathlib.Path(sys.argv[1]); (p / ('.' + NUMBER)).write_text(str(os.getpid()))\n"
        "(p / ('.' + NUMBER)).rename(p / NUMBER); time.sleep(60)"
    )
    parent = background(2, *child(code, tmp_path))
    until(lambda: len(list(tmp_path.glob("[01]"))) == 2)
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert all(map(alive, pids))
    parent.kill()
    parent.communicate(timeout=30)
    until(lambda: not any(map(alive, pids)), 5)


@pytest.mark.slow
@pytest.mark.parametrize(("restarts", "code", "says"), [(1, 5, 1), (2, 0, 2), (3, 0, 2)])
def test_restarts(restarts, code, says, tmp_path):
    """Fails twice and then succeeds, each time at a new address."""
    source = (
        "p = pathlib.Path(sys.argv[1]) / HOSTS; p.touch()\n"
        "sys.exit(0 if len(list(p.parent.iterdir())) > 2 else 5)"
    )
    done = local(1, "--restarts", restarts, *child(source, tmp_path))
    assert done.returncode == code
    again = [line for line in done.stderr.splitlines() if "restart" in line]
    assert again == [f"local: restart {i + 1} of {restarts}" for i in range(says)]


@pytest.mark.slow
def test_a_user_error_is_not_retried():
    done = local(1, "--restarts", 3, *child("sys.exit(2)"))
    assert (done.returncode, "restart" in done.stderr) == (2, False)


def test_dry_run_prints_the_commands_and_starts_nothing(tmp_path):
    file = tmp_path / "a file"
    done = local(2, "--devices", 4, "--dry-run", "--", "touch", file)
    assert done.returncode == 0
    lines = [re.sub(r":\d+,", ":PORT,", line) for line in done.stdout.splitlines()]
    start = "JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4"
    assert lines == [f"{start} touch '{file}' --hosts 127.0.0.1:PORT,2,{i}" for i in range(2)]
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give the number of processes"),
        ([0, "--", "true"], "Give the number of processes"),
        (["two", "--", "true"], "invalid int value: 'two'"),
        ([2], "Give the command of each process after --"),
        ([2, "--"], "Give the command of each process after --"),
        ([2, "--devices", 0, "--", "true"], "--devices expects 1 or more"),
        ([2, "--restarts", -1, "--", "true"], "--restarts expects 0 or more"),
        ([2, "--restart", 1, "--", "true"], "did you mean --restarts?"),
        ([2, "--", "true", "--hosts=auto"], "Leave --hosts out of the command"),
        ([2, "--", "no-such-command"], "The system refused no-such-command"),
    ],
)
def test_rejects_bad_arguments(words, sentence):
    one_error(local(*words), sentence)
