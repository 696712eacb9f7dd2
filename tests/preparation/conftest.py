"""Refusals of the command: one sentence, and nothing left at ``--out``."""

import pytest
from preparing import prepare


@pytest.fixture
def refused(capsys):
    """Run the command, demand exit code 2 and one sentence with ``parts``."""

    def check(parts, *arguments):
        capsys.readouterr()
        assert prepare(*arguments) == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning: ")]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        for part in [parts] if isinstance(parts, str) else parts:
            assert part in lines[0]
        return lines[0]

    return check
