"""The TPU launcher against a gcloud that only pretends: preempted, failed, stopped, taken up."""

import shlex

import pytest
from fake_cloud import SHIPPED, Cloud
from launch_cases import LAUNCH, ROOT, call, one_error, until

FINISH = 'touch "$W/results.json"'
SAVE_WHEN_TOLD = "trap 'exit 0' TERM; touch started$I; while true; do sleep 0.02; done"


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    made.close()


def test_the_shipped_files_exist():
    line = next(x for x in (LAUNCH / "tpu_vm.sh").read_text().splitlines() if "SHIPPED=" in x)
    assert line == f"readonly SHIPPED=({' '.join(SHIPPED)})"
    assert all((ROOT / name).exists() for name in SHIPPED)


def test_a_run_from_nothing_to_its_results(cloud):
    done = cloud.run(FINISH, "--spot", "--setup", "touch mounted", "--create-flag", "--network=n")
    assert done.returncode == 0, done.stderr
    assert "finished: " in done.stderr
    where = "hmgr --quiet --zone=z"
    assert cloud.lines("calls")[:3] == [
        f"compute tpus queued-resources describe {where} --format=value\\(state.state\\)",
        f"compute tpus queued-resources create {where} --node-id=hmgr "
        "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot --network=n",
        f"compute tpus queued-resources describe {where} --format=value\\(state.state\\)",
    ]
    assert sorted(cloud.lines("runs")) == [
        f"run {i} --workdir {cloud.workdir} --hosts auto" for i in range(2)
    ]
    for worker in ("worker0", "worker1"):
        assert (cloud.folder / worker / "mounted").exists()
        assert (cloud.folder / worker / "hmgr_jax" / "configs").exists()
        assert (cloud.folder / worker / "hmgr_jax" / ".venv").exists()
    assert cloud.calls("queued-resources delete") == 0


def test_a_preempted_tpu_is_made_again_and_the_run_goes_on(cloud):
    """The first time, worker 1 loses the TPU while both save; the second time they finish."""
    preempted = (
        'if [[ -e second ]]; then touch "$W/results.json"; exit 0; fi\n'
        "if [[ $I == 1 ]]; then sleep 0.2; touch second; echo SUSPENDED >state; fi"
    )
    done = cloud.run(preempted)
    assert done.returncode == 0, done.stderr
    assert len(cloud.lines("runs")) == 4
    assert cloud.calls("queued-resources create") == 2
    assert cloud.calls("queued-resources delete") == 1
    assert cloud.calls("tpu-vm scp") == 2
    assert "going on (gone)" in done.stderr


def test_a_tpu_that_dies_with_an_error_was_preempted_too(cloud):
    """The processes of a slice fail when a peer is shut down; the state follows a little later."""
    code = (
        'if [[ -e second ]]; then touch "$W/results.json"; exit 0; fi\n'
        "if [[ $I == 1 ]]; then touch second; (sleep 0.3; echo SUSPENDED >state) & fi; exit 1"
    )
    done = cloud.run(code, "--poll", "0.3")
    assert done.returncode == 0, done.stderr
    assert cloud.calls("queued-resources create") == 2


def test_a_failed_run_is_not_retried(cloud):
    done = cloud.run("echo the reason; [[ $I == 0 ]] || exit 3")
    assert done.returncode == 3
    assert "the reason" in done.stderr
    assert "error: The run failed on 'hmgr' with exit code 3" in done.stderr
    assert len(cloud.lines("runs")) == 2
    assert cloud.calls("queued-resources create") == 1
    assert cloud.calls("queued-resources delete") == 0


def test_stopped_and_gone_on_with(cloud):
    running = cloud.background(SAVE_WHEN_TOLD)
    until(lambda: len(list(cloud.folder.glob("started?"))) == 2)
    status = cloud.act("status")
    assert (status.stdout, status.stderr) == ("running\nrunning\n", "tpu_vm: hmgr is ACTIVE\n")
    assert cloud.act("stop").returncode == 0
    _, said = running.communicate(timeout=30)
    assert (running.returncode, "stopped; the same command goes on" in said) == (0, True)
    assert cloud.act("status").stdout == "stopped 0\nstopped 0\n"
    assert cloud.run(FINISH).returncode == 0
    assert cloud.calls("queued-resources create") == 1


def test_a_run_that_goes_on_already_is_only_watched(cloud):
    first = cloud.background("until [[ -e go ]]; do sleep 0.02; done; " + FINISH)
    until(lambda: len(cloud.lines("runs")) == 2)
    first.kill()  # the machine that watched is lost; the workers go on
    first.communicate(timeout=30)
    second = cloud.background()
    until(lambda: cloud.calls("probe") >= 4)
    (cloud.folder / "go").touch()
    _, said = second.communicate(timeout=30)
    assert second.returncode == 0, said
    assert "running already" in said
    assert (len(cloud.lines("runs")), cloud.calls("tpu-vm scp")) == (2, 1)


def test_workers_that_were_restarted_start_together_again(cloud):
    """Worker 1 forgets its run, as after a reboot: 0, which waits for it, saves and both start."""
    code = f"if [[ -e second ]]; then {FINISH}; exit 0; fi; {SAVE_WHEN_TOLD}"
    running = cloud.background(code)
    until(lambda: len(list(cloud.folder.glob("started?"))) == 2)
    (cloud.folder / "second").touch()
    pids = cloud.folder / "worker1" / "hmgr_jax" / "run"
    call("kill", "-KILL", (pids / "keeper").read_text().strip(), (pids / "pid").read_text().strip())
    _, said = running.communicate(timeout=30)
    assert running.returncode == 0, said
    assert "going on (again)" in said
    assert len(cloud.lines("runs")) == 4
    assert cloud.calls("queued-resources create") == 1


def test_no_room_now_is_asked_for_again_but_not_for_ever(cloud):
    (cloud.folder / "machines").write_text("worker0")
    (cloud.folder / "next").write_text("FAILED\nSUSPENDED\n")
    assert cloud.run(FINISH).returncode == 0
    assert cloud.calls("queued-resources create") == 3
    assert cloud.act("delete").returncode == 0
    (cloud.folder / "next").write_text("FAILED\n" * 9)
    done = cloud.run(FINISH)
    assert done.returncode == 1
    assert "error: 'hmgr' failed 3 times in a row" in done.stderr


def test_a_refused_creation_ends_it(cloud):
    (cloud.folder / "refuse").touch()
    done = cloud.run(FINISH)
    assert done.returncode == 1
    assert "ERROR: quota" in done.stderr
    assert "error: Google refused to create 'hmgr'" in done.stderr


def test_a_run_that_never_finishes_is_not_started_for_ever(cloud):
    (cloud.folder / "machines").write_text("worker0")
    done = cloud.run("exit 0")
    assert done.returncode == 1
    assert "error: The run ended 3 times without" in done.stderr
    assert len(cloud.lines("runs")) == 3


def test_dry_run_prints_every_command_and_executes_none(cloud):
    done = cloud.run(FINISH, "--dry-run", "--setup", "mount it")
    assert done.returncode == 0, done.stderr
    words = [shlex.split(line) for line in done.stdout.splitlines() if line[0] != "#"]
    assert [w[3:5] if w[0] == "gcloud" else w[:1] for w in words] == [
        *[["queued-resources", verb] for verb in ("describe", "create", "describe")],
        ["tar"],
        ["tpu-vm", "scp"],
        *[["tpu-vm", "ssh"]] * 5,
        *[["queued-resources", verb] for verb in ("delete", "create")],
    ]
    remote = [w[-1].removeprefix("--command=") for w in words if w[4:5] == ["ssh"]]
    assert remote[0].endswith("tpu_worker.sh install")
    assert remote[1] == "mount it"
    run = f"bash {cloud.folder}/run.sh --workdir"
    assert shlex.split(remote[2])[2:] == [
        "start",
        *run.split(),
        str(cloud.workdir),
        "--hosts",
        "auto",
    ]
    assert shlex.split(remote[4]) == ["test", "-e", f"{cloud.workdir}/results.json"]
    assert not (cloud.folder / "calls").exists()


@pytest.mark.parametrize(
    ("action", "last"),
    [
        ("status", "probe; else echo none; fi"),
        ("logs", "tail -n 100 -F hmgr_jax/run/log"),
        ("stop", "bash hmgr_jax/launch/tpu_worker.sh stop"),
        ("delete", "--force"),
    ],
)
def test_dry_runs_of_the_other_actions(cloud, action, last):
    done = cloud.act(action, "--dry-run", "--project", "p")
    assert done.returncode == 0, done.stderr
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert words[-1][-1].endswith(last)
    assert all("--project=p" in line for line in words)
    assert not (cloud.folder / "calls").exists()


GOOD = "--dry-run --name hmgr --zone z --type t"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("create", "There is no action 'create'; known: run, status, logs, stop, delete."),
        ("run --name", "--name expects a value."),
        ("run --zones z", "There is no flag '--zones'"),
        ("status --name Big --zone z", "--name expects small letters"),
        ("status --name hmgr", "Give the zone of the TPU"),
        (f"run {GOOD} --poll soon -- a", "--poll expects seconds, not 'soon'"),
        (f"logs {GOOD} --worker x", "--worker expects the number of a worker"),
        (f"run {GOOD}", "Give the command after --"),
        ("run --name hmgr --zone z --dry-run -- a", "Give the accelerator type"),
        (f"run {GOOD} -- a --workdir runs/x", "absolute path on a file system that all workers"),
        (f"run {GOOD} -- a", "not ''"),
        (f"run {GOOD} -- a --workdir=/x --hosts auto", "Leave --hosts out"),
    ],
)
def test_rejects_bad_arguments(line, sentence):
    one_error(call("bash", LAUNCH / "tpu_vm.sh", *line.split()), sentence)


def test_without_gcloud(tmp_path):
    for name in ("bash", "mktemp", "rm", "dirname"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    words = ["/bin/bash", LAUNCH / "tpu_vm.sh", "status", "--name", "hmgr", "--zone", "z"]
    one_error(call(*words, PATH=tmp_path), "gcloud is not on the PATH")
