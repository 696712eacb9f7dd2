"""What all commands do with warnings."""

import subprocess
import sys
import warnings

import pytest

from hmgr_jax import command


@pytest.mark.parametrize(("seconds", "times"), [(1.0, 1), (100.0, 2)])
@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_a_warning_of_long_ago_is_repeated_at_the_end(monkeypatch, capsys, seconds, times):
    clock = iter([0.0, seconds, seconds])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))

    def run(_):
        warnings.warn("2 of 3 words are unknown", RuntimeWarning, stacklevel=1)
        return 0

    assert command.guarded(run, ["command"]) == 0
    assert capsys.readouterr().err.count("warning: 2 of 3 words are unknown") == times


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("~/x", "/me/x"),
        ("~", "~"),
        ("--in=~/x", "--in=/me/x"),
        ("--config.data.root=~/x", "--config.data.root=/me/x"),
        ("train=~/a.csv", "train=/me/a.csv"),
        ("--encoder=clip=~/clip", "--encoder=clip=/me/clip"),
        ("a~/x", "a~/x"),
        ("~ a dog", "~ a dog"),
        ("a dog =~/ a cat", "a dog =~/ a cat"),
        ("--query=a dog=~", "--query=a dog=~"),
        ("backup~", "backup~"),
    ],
)
def test_the_home_of_the_user_is_expanded_in_every_argument(monkeypatch, given, expanded):
    monkeypatch.setenv("HOME", "/me")
    seen = []
    assert command.guarded(lambda found: seen.extend(found) or 0, ["command", given]) == 0
    assert seen == [expanded]


@pytest.mark.parametrize("lines", [3, 100_000])
@pytest.mark.parametrize("flush", [False, True])
def test_output_that_nobody_reads_ends_the_command_in_silence(lines, flush):
    program = (
        "import sys, time\nfrom hmgr_jax import command\n"
        "def run(_):\n"
        f"    for line in range({lines}):\n        print(line, flush={flush})\n"
        "        time.sleep(0.5 if line == 0 else 0)\n"
        "    return 0\n"
        "sys.exit(command.guarded(run, ['command']))"
    )
    command = [sys.executable, "-c", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == b""
    assert process.returncode == 141


def test_a_broken_pipe_to_something_else_is_told(capsys):
    def run(_):
        raise BrokenPipeError(32, "Broken pipe")

    assert command.guarded(run, ["command"]) == 2
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("deep"), AttributeError("é\nb")])
def test_a_fault_of_the_program_is_a_sentence_and_its_traceback_a_file(
    error, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command.tempfile, "tempdir", str(tmp_path))

    def run(_):
        raise error

    assert command.guarded(run, ["command", "--option"]) == command.FAULT
    (line,) = capsys.readouterr().err.splitlines()
    (kept,) = tmp_path.iterdir()
    assert line.startswith("error: This is a fault of the program")
    assert str(kept) in line
    assert "--option" in kept.read_text()
    assert "Traceback" in kept.read_text()


def test_want_of_memory_is_no_fault_of_the_program(capsys):
    def run(_):
        raise MemoryError

    assert command.guarded(run, ["command"]) == 2
    assert "The memory is not enough" in capsys.readouterr().err
