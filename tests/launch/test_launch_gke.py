"""The JobSet: kept to its schema, with the hosts, nodes and restarts that the run needs."""

import copy
import json
import re
import signal
import subprocess
import sys

import pytest
import yaml
from launch_cases import LAUNCH, ROOT, call, one_error, surroundings, until

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
sys.path.insert(0, str(ROOT))
from launch.gke_manifest import GUARD, literal  # noqa: E402

GKE = LAUNCH / "gke.py"
TPU = "tpu --name coco --image I --accelerator tpu-v5-lite-podslice --topology 4x4 --claim c"
GPU = "gpu --name coco --image I --accelerator nvidia-h100-80gb --gpus 8 --nodes 2 --claim c"
RUN = ["--", "python", "-m", "hmgr_jax.main", "--workdir", "/runs/coco"]
SCHEMA = jsonschema.Draft202012Validator(json.loads((LAUNCH / "jobset.schema.json").read_text()))


def manifest(line, *more, command=RUN):
    done = call(sys.executable, GKE, *line.split(), *more, *command)
    assert (done.returncode, done.stderr) == (0, "")
    read = yaml.safe_load(done.stdout)
    SCHEMA.validate(read)
    return read


@pytest.fixture(scope="module")
def good():
    return manifest(TPU)


def job(read):
    return read["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod(read):
    return job(read)["template"]["spec"]


def test_a_tpu_slice():
    read = manifest(TPU)
    assert job(read)["parallelism"] == job(read)["completions"] == 4
    assert pod(read)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    container = pod(read)["containers"][0]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["args"] == [*RUN[1:], "--hosts", "auto"]
    assert read["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    assert read["spec"]["replicatedJobs"][0]["replicas"] == 1


def test_gpu_nodes_find_pod_0_under_the_headless_service():
    read = manifest(GPU)
    assert read["spec"]["network"]["enableDNSHostnames"] is True
    assert job(read)["completions"] == 2
    container = pod(read)["containers"][0]
    assert container["resources"]["requests"] == {"nvidia.com/gpu": 8}
    # <jobset>-<replicated job>-<job>-<pod>.<jobset>
    assert container["args"][-2:] == [
        "--hosts",
        "coco-workers-0-0.coco:8476,2,$(JOB_COMPLETION_INDEX)",
    ]


@pytest.mark.parametrize("line", [TPU.replace("4x4", "2x2"), GPU.replace("nodes 2", "nodes 1")])
def test_one_node_is_one_process(line):
    assert pod(manifest(line))["containers"][0]["args"] == RUN[1:]


@pytest.mark.parametrize(
    ("topology", "chips", "nodes", "a_node"),
    [("1x1", None, 1, 1), ("2x4", "8", 1, 8), ("2x4", None, 2, 4), ("2x2x4", None, 4, 4)],
)
def test_nodes_of_a_topology(topology, chips, nodes, a_node):
    read = manifest(TPU.replace("4x4", topology), *(["--chips", chips] if chips else []))
    assert job(read)["parallelism"] == nodes
    assert pod(read)["containers"][0]["resources"]["limits"]["google.com/tpu"] == a_node


def test_several_slices_and_spot():
    read = manifest(TPU, "--slices", "3", "--spot", "--grace", "25", "--restarts", "7")
    assert read["spec"]["replicatedJobs"][0]["replicas"] == 3
    assert pod(read)["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod(read)["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert pod(read)["terminationGracePeriodSeconds"] == 25
    assert read["spec"]["failurePolicy"]["maxRestarts"] == 7


def test_a_preemption_restarts_without_counting():
    read = manifest(GPU)
    rule = read["spec"]["failurePolicy"]["rules"][0]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    saved, disrupted = job(read)["podFailurePolicy"]["rules"]
    assert saved["onExitCodes"] == {"containerName": "run", "operator": "In", "values": [75]}
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert pod(read)["restartPolicy"] == "Never"
    assert pod(read)["terminationGracePeriodSeconds"] == 120


def test_the_shared_volume_is_a_claim_or_a_bucket():
    claim = pod(manifest(TPU))
    assert claim["volumes"][0] == {"name": "runs", "persistentVolumeClaim": {"claimName": "c"}}
    assert claim["containers"][0]["volumeMounts"][0] == {"name": "runs", "mountPath": "/runs"}
    command = ["--", "python", "--workdir=/data/x"]
    more = ("--mount", "/data", "--service-account", "me")
    read = manifest(TPU.replace("--claim c", "--bucket b"), *more, command=command)
    assert pod(read)["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "b"
    assert pod(read)["serviceAccountName"] == "me"
    assert pod(read)["containers"][0]["env"][0] == {
        "name": "RESULTS",
        "value": "/data/x/results.json",
    }
    annotations = job(read)["template"]["metadata"]["annotations"]
    assert annotations == {"gke-gcsfuse/volumes": "true"}


def test_check_prints_whether_it_keeps_to_the_schema():
    done = call(sys.executable, GKE, *TPU.split(), "--check", *RUN)
    assert done.stdout == "The manifest keeps to jobset.schema.json.\n"


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (lambda m: m, "apiVersion", "jobset.x-k8s.io/v1alpha1"),
        (lambda m: m["spec"], "failurepolicy", {}),
        (lambda m: m["spec"]["failurePolicy"]["rules"][0], "action", "Restart"),
        (lambda m: m["spec"]["failurePolicy"]["rules"][0], "name", "a-dash"),
        (lambda m: job(m), "completionMode", "NonIndexed"),
        (lambda m: job(m), "parallelism", 0),
        (lambda m: job(m)["podFailurePolicy"]["rules"][0]["onExitCodes"], "values", [0]),
        (lambda m: pod(m), "restartPolicy", "OnFailure"),
        (lambda m: pod(m), "terminationGracePeriod", 1),
        (lambda m: pod(m)["nodeSelector"], "cloud.google.com/gke-spot", True),
        (lambda m: pod(m)["containers"][0]["env"][2], "value", 1),
        (lambda m: pod(m)["containers"][0]["resources"]["limits"], "google.com/gpu", 1),
        (lambda m: pod(m)["volumes"][0], "emptyDir", {}),
    ],
)
def test_the_schema_finds_what_is_wrong(place, key, value, good):
    wrong = copy.deepcopy(good)
    place(wrong)[key] = value
    assert not SCHEMA.is_valid(wrong)


def expanded(word):
    """What Kubernetes makes of a word of a command: $$ is $, and $(NAME) a variable's value."""
    return re.sub(r"\$(\$|\((\w+)\))", lambda m: "$" if m[1] == "$" else f"<{m[2]}>", word)


@pytest.mark.parametrize("word", ["plain", "$HOME", "$(HOME)", "$$(HOME)", "a$$b", "$$$", "$("])
def test_kubernetes_leaves_the_command_as_it_is(word):
    assert expanded(literal(word)) == word
    assert expanded(GUARD) == GUARD
    assert expanded("$(HOME)") == "<HOME>"


def guard(tmp_path, code, pod="0", part="0"):
    """Start what a pod runs: ``code`` under the guard."""
    return subprocess.Popen(
        ["bash", "-c", GUARD, "run", "bash", "-c", code],
        env=surroundings(
            None, {"RESULTS": tmp_path / "results.json", "JOB_COMPLETION_INDEX": pod, "SLICE": part}
        ),
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "pod", "part", "exit_code"),
    [
        ("touch results.json", "0", "0", 0),
        ("true", "0", "0", 75),
        ("true", "1", "0", 0),  # pod 0 tells
        ("true", "0", "1", 0),
        ("exit 3", "0", "0", 3),
        ("touch results.json; exit 3", "0", "0", 3),
        ("kill -KILL $$", "0", "0", 137),
    ],
)
def test_the_exit_code_of_a_pod(tmp_path, code, pod, part, exit_code):
    assert guard(tmp_path, code, pod, part).wait(timeout=30) == exit_code


@pytest.mark.slow
def test_an_evicted_pod_saves_and_asks_for_a_restart(tmp_path):
    code = "trap 'sleep 0.2; touch saved; exit 0' TERM; touch started; while :; do sleep 0.02; done"
    process = guard(tmp_path, code)
    until((tmp_path / "started").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "give tpu or gpu"),
        ("cpu", "kind is one of tpu, gpu, not 'cpu'"),
        ("tpu --name coco --image I --accelerator A", "--topology is needed for tpu"),
        ("gpu --name coco --image I", "--accelerator is needed for gpu"),
        (TPU.replace("coco", "Coco"), "--name expects at most 40 small letters"),
        (TPU.replace("4x4", "4by4"), "--topology expects sizes such as 4x4"),
        (f"{TPU} --chips 3", "16 chips of 4x4 do not divide into nodes of 3 chips"),
        (f"{TPU} --bucket b", "either --claim or --bucket"),
        (f"{TPU} --slices 0", "--slices expects 1 or more"),
        (f"{TPU} --restarts -1", "--restarts expects 0 or more"),
        (f"{TPU} --mount runs", "--mount expects an absolute path"),
        (f"{TPU} --topologie 4x4", "did you mean --topology?"),
        (TPU, "Give the command after --"),
        (f"{TPU} -- python", "needs a --workdir in /runs, where the shared volume is, not ''"),
        (f"{TPU} -- python --workdir /tmp/x", "not '/tmp/x'"),
        (f"{TPU} -- python --workdir /runs/../x", "not '/runs/../x'"),
        (f"{TPU} -- python --workdir=/runs/x --hosts auto", "Leave --hosts out"),
    ],
)
def test_rejects_bad_arguments(line, sentence):
    one_error(call(sys.executable, GKE, *line.split()), sentence)
