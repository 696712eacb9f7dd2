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
