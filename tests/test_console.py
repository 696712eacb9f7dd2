"""The console script: its sub-commands are the modules, with the same options."""

import pytest

from hmgr_jax.__main__ import MODES, MODULES, main


@pytest.mark.parametrize("name", [*MODES, *MODULES])
def test_every_sub_command_shows_its_own_options(name, capsys):
    assert main(["hmgr-jax", name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: hmgr-jax {name} ")


def test_without_a_sub_command_all_are_listed(capsys):
    assert main(["hmgr-jax"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in [*MODES, *MODULES])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("trian", "There is no command 'trian': choose from train, evaluate, encode, explain,"),
        ("evaluate", "--mode=evaluate needs a trained run: give its folder as --workdir."),
        ("evaluate --seeds 0", "--seeds is for --mode=train, not for --mode=evaluate"),
        ("prepare fodler", "There is no preparation 'fodler': choose from scan,"),
        ("search query a", "--index is missing"),
    ],
)
def test_rejects_invalid_command_lines_in_one_sentence(line, sentence, capsys):
    assert main(["hmgr-jax", *line.split()]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {sentence}")
