"""A gcloud that only pretends: TPU workers are folders here, ssh is bash with that folder as home.

The state of the queued resource is the file ``state``; a creation makes it PROVISIONING, then what
the next line of ``next`` says (ACTIVE without one). Everything that was called is in ``calls``.
"""

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from launch_cases import LAUNCH, ROOT, alive, call, executable, surroundings

SHIPPED = (
    *("pyproject.toml", "setup.py", "README.md", "LICENSE"),
    *("hmgr_jax", "configs", "benchmarks", "launch"),
)

GCLOUD = """
cd "$FAKE"
printf '%q ' "$@" | sed 's/ $/\\n/' >>calls
homes() { if [[ "$*" == *--worker=all* ]]; then echo worker*; else echo worker0; fi; }
case "$3 $4" in
    "queued-resources create")
        [[ ! -e refuse ]] || { echo "ERROR: quota" >&2; exit 1; }
        echo PROVISIONING >state
        mkdir $(cat machines) ;;
    "queued-resources describe")
        [[ -e state ]] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
        cat state
        if [[ $(cat state) == PROVISIONING ]]; then
            { head -n 1 next 2>/dev/null | grep . || echo ACTIVE; } >state
            sed -i 1d next 2>/dev/null || true
        fi ;;
    "queued-resources delete") rm -rf state worker? ;;
    "tpu-vm scp") for home in $(homes "$@"); do cp "$5" "$home/${6#*:}"; done ;;
    "tpu-vm ssh")
        [[ -e state && $(cat state) == ACTIVE ]] || { echo "ssh: no route" >&2; exit 255; }
        code=0
        for home in $(homes "$@"); do
            for last; do :; done
            (cd "$home" && HOME=$PWD bash -c "${last#--command=}") || code=$?
        done
        exit $code ;;
esac
"""


class Cloud:
    """The pretended cloud in ``folder``, and tpu_vm.sh in it."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        self.workdir = folder / "shared run"
        self.workdir.mkdir()
        executable(self.bin / "gcloud", GCLOUD)
        for name in SHIPPED:  # a checkout that is quick to pack and unpack
            (folder / "checkout" / name).mkdir(parents=True)
        for script in LAUNCH.glob("*.sh"):
            shutil.copy(script, folder / "checkout" / "launch")
        executable(self.bin / "uv", '[[ $1 != venv ]] || mkdir "${@: -1}"\n')
        (folder / "run.sh").write_text("")
        (folder / "machines").write_text("worker0 worker1")
        self.processes = []

    def words(self, action, *more, run=True):
        """The command line of tpu_vm.sh; the command that is run is ``run.sh``."""
        options = ["--name", "hmgr", "--zone", "z", "--poll", "0.05", *more]
        command = ["bash", self.folder / "run.sh", "--workdir", self.workdir]
        extra = ["--type", "v5litepod-16", *options, "--", *command] if run else options
        return ["bash", str(self.folder / "checkout/launch/tpu_vm.sh"), action, *map(str, extra)]

    def run(self, code="", *more):
        """``tpu_vm.sh run`` to its end, each worker running ``code`` (bash, $I its number)."""
        self.code(code)
        return call(*self.words("run", *more), path=self.bin, FAKE=self.folder)

    def code(self, code):
        """What each worker runs: told to save, it ends with exit code 0."""
        prologue = f"cd {shlex.quote(str(self.folder))}; I=${{HOME: -1}}; W='{self.workdir}'\n"
        (self.folder / "run.sh").write_text(f"{prologue}echo run $I $* >>runs\n{code}\n")

    def background(self, code=None):
        """The same, going on while the test does; without ``code`` that of the last time."""
        if code is not None:
            self.code(code)
        process = subprocess.Popen(
            self.words("run"),
            env=surroundings(self.bin, {"FAKE": str(self.folder)}),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def close(self):
        """End what a test that failed has left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)
        for file in self.folder.glob("worker?/hmgr_jax/run/*"):
            if file.name in ("keeper", "pid") and alive(file.read_text().strip()):
                os.kill(int(file.read_text()), signal.SIGKILL)

    def act(self, action, *more):
        """Another action of tpu_vm.sh."""
        return call(*self.words(action, *more, run=False), path=self.bin, FAKE=self.folder)

    def calls(self, part):
        """How often gcloud was called with ``part``."""
        return sum(part in line for line in self.lines("calls"))

    def lines(self, name):
        """Lines of a file, none if there is no such file."""
        path = Path(self.folder / name)
        return path.read_text().splitlines() if path.exists() else []
