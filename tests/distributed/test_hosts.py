"""``--hosts``: refused addresses, and modes that run in one process."""

import pytest
import tiny_run


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("here", "--hosts must be auto or HOST:PORT,N,I"),
        ("127.0.0.1:1,2,2", "a process from 0 to N - 1"),
        ("127.0.0.1,2,1", "HOST:PORT"),
    ],
)
def test_rejects_a_misspelt_address(tmp_path, capsys, spec, expected):
    assert tiny_run.run(tmp_path, "--hosts", spec) == 2
    assert expected in capsys.readouterr().err


def test_encoding_rejects_hosts(tmp_path, capsys):
    assert tiny_run.run(tmp_path, "--mode=encode", "--hosts", "auto") == 2
    assert "--hosts is for --mode=train and --mode=evaluate, not" in capsys.readouterr().err
