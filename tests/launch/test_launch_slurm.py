"""The SLURM job against a pretended srun and scontrol: what is put back, and what is not."""

import pytest
from launch_cases import LAUNCH, call, executable, one_error

JOB = {"SLURM_JOB_ID": 77, "SLURM_JOB_NUM_NODES": 2, "SLURM_NTASKS": 2}


@pytest.fixture
def job(tmp_path):
    """Run the job; srun ends with ``code`` and, if ``finishes``, writes the results before."""
    fake, workdir = tmp_path / "bin", tmp_path / "a run"
    calls = tmp_path / "calls"
    calls.touch()
    workdir.mkdir()

    def run(*words, code=0, finishes=False, state="RUNNING", **environment):
        write = f"touch '{workdir}/results.json'\n" if finishes else ""
        record = f'echo "$(basename "$0") ${{JAX_LOCAL_DEVICE_IDS-}} $*" >>{calls}\n'
        executable(fake / "srun", f"{record}{write}exit {code}\n")
        executable(
            fake / "scontrol",
            f'[[ $1 != show ]] || exec echo "JobId=$3 JobState={state} Reason=None"\n{record}',
        )
        command = ["--", "python", "-m", "hmgr_jax.main", "--workdir", workdir]
        done = call(
            *["bash", LAUNCH / "slurm.sh", *words, *command], path=fake, **{**JOB, **environment}
        )
        return done, calls.read_text().replace(str(workdir), "W").splitlines()

    return run


SRUN = "--kill-on-bad-exit=1 --label python -m hmgr_jax.main --workdir W"


def test_saved_but_not_finished_is_put_back(job):
    done, calls = job()
    assert done.returncode == 0
    assert calls == [
        f"srun  --ntasks=2 --ntasks-per-node=1 {SRUN} --hosts auto",
        "scontrol  requeue 77",
    ]
    assert "back into the queue" in done.stderr


def test_finished_is_not_put_back(job):
    done, calls = job(finishes=True)
    assert (done.returncode, len(calls)) == (0, 1)
    assert "finished: " in done.stderr


def test_failed_is_not_put_back(job):
    done, calls = job(code=9)
    assert (done.returncode, len(calls)) == (9, 1)
    assert "failed with exit code 9" in done.stderr


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED"])
def test_a_job_ended_by_slurm_or_the_user_is_not_requeued(job, state):
    done, calls = job(state=state)
    assert (done.returncode, len(calls)) == (0, 1)
    assert "stopped from outside" in done.stderr


def test_not_put_back_for_ever(job):
    _, calls = job("--max-requeues", "3", SLURM_RESTART_COUNT=2)
    assert calls[-1] == "scontrol  requeue 77"
    done, calls = job("--max-requeues", "3", SLURM_RESTART_COUNT=3)
    assert (done.returncode, len(calls)) == (2, 3)
    assert "put back 3 times and has not finished" in done.stderr


@pytest.mark.parametrize(
    ("environment", "srun"),
    [
        (
            {"SLURM_NTASKS": 1, "SLURM_JOB_NUM_NODES": 1},
            f"srun  --ntasks=1 --ntasks-per-node=1 {SRUN}",
        ),
        (
            {"SLURM_NTASKS": 8, "SLURM_NTASKS_PER_NODE": 4, "SLURM_GPUS_ON_NODE": 4},
            f"srun  --ntasks=8 --ntasks-per-node=4 {SRUN} --hosts auto",
        ),
        (  # jax would give each task one GPU only
            {"SLURM_NTASKS": 2, "SLURM_GPUS_ON_NODE": 4},
            f"srun 0,1,2,3 --ntasks=2 --ntasks-per-node=1 {SRUN} --hosts auto",
        ),
    ],
)
def test_a_task_a_gpu_or_a_node(job, environment, srun):
    assert job(finishes=True, **environment)[1] == [srun]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SLURM_NTASKS": 4, "SLURM_GPUS_ON_NODE": 4}, "2 tasks a node do not fit its 4 GPUs"),
        ({"SLURM_NTASKS": 3}, "3 tasks on 2 nodes are not the same number on each"),
        ({"SLURM_GPUS_PER_TASK": 1}, "Give --gpus-per-node instead of --gpus-per-task"),
    ],
)
def test_arrangements_that_jax_would_get_wrong(job, environment, sentence):
    done, calls = job(**environment)
    one_error(done, sentence)
    assert calls == []


def test_dry_run_prints_all_commands_and_executes_none(job):
    done, calls = job("--dry-run")
    assert (done.returncode, calls) == (0, [])
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "srun --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --label python"
    )
    assert first.endswith("a\\ run --hosts auto ")
    assert second == "scontrol requeue 77 "


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give the command after --"),
        (["--"], "Give the command after --"),
        (["--max-requeues", "x", "--", "a"], "--max-requeues expects a number, not 'x'"),
        (["--nodes=2", "--", "a"], "There is no flag '--nodes=2'"),
        (["--", "python", "-m", "hmgr_jax.main"], "The command needs --workdir"),
        (["--", "python", "--workdir=a", "--hosts=auto"], "Leave --hosts out"),
    ],
)
def test_rejects_bad_arguments(words, sentence):
    one_error(call("bash", LAUNCH / "slurm.sh", *words), sentence)


def test_the_signal_goes_to_the_tasks_and_not_to_the_batch_shell():
    lines = (LAUNCH / "slurm.sh").read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert "#SBATCH --signal=TERM@120" in options
    assert "#SBATCH --requeue" in options
    # sbatch stops reading them at the first line that is no comment.
    first_code = next(i for i, line in enumerate(lines) if line and line[0] != "#")
    assert all(lines.index(option) < first_code for option in options)
