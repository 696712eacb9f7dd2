"""What all commands do with warnings."""

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
