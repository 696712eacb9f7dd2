"""Checkpoints of processes that are killed, fail, run out of disk, or are two."""

import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from checkpoint_cases import flip, largest_file

pytestmark = pytest.mark.slow

SAVER = """
    import os, signal, sys
    import jax, numpy as np
    jax.config.update("jax_platforms", "cpu")
    from pathlib import Path
    from hmgr_jax.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(Path(sys.argv[1]))
    def save(step, size):
        data = np.random.default_rng(0).bytes(4 * size)  # cannot be compressed
        checkpoints.save(step, {"w": np.frombuffer(data, np.int32)}, {"at": step}, float(step))
"""


def run(script, *arguments, **options):
    program = textwrap.dedent(SAVER) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        **options,
    )


def test_killed_while_saving_the_step_before_restores(opened, folder):
    done = run(
        """
        save(1, 10)
        save(2, 40_000_000)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        folder,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any("tmp" in x.name for x in folder.iterdir()), "killed too late to test anything"
    checkpoints = opened()
    state, meta, step = checkpoints.restore({"w": np.zeros(10, np.int32)})
    assert (step, meta, checkpoints.steps()) == (1, {"at": 1}, [1])
    assert state["w"].tobytes() == np.random.default_rng(0).bytes(40)
    checkpoints.save(3, {"w": np.full(10, 2, np.int32)}, {}, 2.0)
    assert checkpoints.restore({"w": np.zeros(10, np.int32)})[2] == 3
    assert sorted(x.name for x in folder.iterdir()) == ["1", "3"]


def test_killed_after_the_commit_the_step_is_unverified_and_restores(opened, folder):
    done = run(
        """
        from hmgr_jax.files import digests
        digests.write = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        save(1, 10)
        checkpoints.wait()
        """,
        folder,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.warns(RuntimeWarning, match="not verified"):
        assert opened().restore({"w": np.zeros(10, np.int32)})[2] == 1


def test_a_process_that_ends_with_an_error_finishes_its_save(opened, folder):
    done = run(
        """
        with checkpoints:
            save(1, 4_000_000)
            raise SystemExit(3)
        """,
        folder,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert (folder.parent / "digests" / "1.json").exists()
    assert opened().restore({"w": np.zeros(4_000_000, np.int32)})[2] == 1


def test_a_full_disk_is_reported_and_keeps_older_steps(opened, folder):
    done = run(
        """
        import resource
        save(1, 10)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        save(2, 1 << 20)
        from hmgr_jax.errors import UserError
        try:
            checkpoints.wait()
        except UserError as error:
            print(error)
        print(checkpoints.steps(), checkpoints.best_step())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        save(3, 10)
        checkpoints.close()
        """,
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "A checkpoint of 4.2 MB could not be written to" in done.stdout
    assert "run the same command to resume; the steps [1] are complete" in done.stdout
    assert done.stdout.endswith("[1] 1\n")
    assert opened().steps() == [1, 3]


PAIR = """
    import sys, jax, numpy as np
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    folder, address, process, newest = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # Not to standard output, where the transport writes lines of its own in between.
    said = open(sys.argv[5], "w", buffering=1)
    jax.distributed.initialize(address, num_processes=2, process_id=process)
    from pathlib import Path
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from hmgr_jax.training.checkpoint import Checkpoints

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())
    def state(value):
        rows = np.full((50, 30), value, np.float32)
        return {"w": jax.make_array_from_process_local_data(everywhere, rows)}

    with Checkpoints(Path(folder)) as checkpoints:
        restored = checkpoints.steps() and checkpoints.restore(state(0))
        if restored:
            value = float(restored[0]["w"].addressable_data(0)[0, 0])
            print("restored", restored[2], value, file=said)
        for step in range(newest - 1, newest + 1):
            checkpoints.save(step, state(step), {}, float(-step))
        checkpoints.wait()
        print(checkpoints.steps(), checkpoints.best_step(), file=said)
"""


def run_two(folder, newest):
    """Run PAIR in two processes; the lines that each of them said, and their standard errors."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    said = [folder.parent / f"said_{newest}_{process}" for process in range(2)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = textwrap.dedent(PAIR)
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", program, folder, address, str(i), str(newest), said[i]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for i in range(2)
    ]
    try:
        ended = [process.communicate(timeout=100) for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], ended
    return [file.read_text().splitlines() for file in said], "".join(err for _, err in ended)


@pytest.mark.slow
def test_two_processes_save_and_agree_on_what_is_damaged(folder):
    out, _ = run_two(folder, newest=2)
    assert out == [["[1, 2] 1"]] * 2
    file = largest_file(folder / "2")
    flip(file)
    out, errors = run_two(folder, newest=3)
    assert out == [["restored 1 1.0", "[1, 2, 3] 1"]] * 2
    assert f"{file} does not match its sha256" in errors
    assert "process 0 names the file" in errors
    assert (folder / "2.damaged").is_dir()
