"""The JobSet (jobset.x-k8s.io/v1alpha2) of a run, with reasons for its fields.

A pod that ends with exit code 0 counts as successful, also when it was evicted and has only saved.
So the command runs under ``GUARD``, which turns "0, but no results.json" into exit code 75; the
pods' failure policy makes that, like every disruption by Kubernetes, a failure of the Job with the
reason PodFailurePolicy, and the JobSet restarts without counting. Other failures are counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

UNFINISHED = 75  # EX_TEMPFAIL: try again
PORT = 8476
WORKERS = "workers"
POOL = "cloud.google.com/gke-nodepool"

# Pod 0 runs process 0, which writes the results; elsewhere the file may show later.
GUARD = f"""\
interrupted=true
trap 'interrupted=true; kill -TERM "$child"' TERM INT
"$@" &
child=$!
while $interrupted; do
  code=0 interrupted=false
  wait "$child" || code=$?
  [ "$code" -gt 128 ] || break
done
if [ "$code" -ne 0 ] || [ "$SLICE.$JOB_COMPLETION_INDEX" != 0.0 ] || [ -e "$RESULTS" ]; then
  exit "$code"
fi
echo "saved but not finished: asking for a restart" >&2
exit {UNFINISHED}
"""


@dataclass(frozen=True)
class Job:
    """A run and its hardware; ``chips`` of a node (TPU or GPU), ``hosts`` of a slice.

    ``kind`` is "tpu" or "gpu", ``topology`` None for GPUs, one of ``claim`` and ``bucket`` None;
    ``grace`` in seconds.
    """

    kind: str
    name: str
    image: str
    accelerator: str
    topology: str | None
    chips: int
    hosts: int
    slices: int
    claim: str | None
    bucket: str | None
    mount: str
    service_account: str | None
    spot: bool
    restarts: int
    grace: int
    command: tuple[str, ...]
    workdir: str
    results: str


def manifest(job: Job) -> dict[str, Any]:
    """The JobSet as plain data for YAML."""
    metadata: dict[str, Any] = {"name": job.name}
    if job.kind == "tpu":
        # One slice is one node pool: all of its pods, and nobody else's.
        metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": POOL}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            # The headless service under which the pods find pod 0, before they are ready too.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": job.restarts,
                "rules": [
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": WORKERS, "replicas": job.slices, "template": {"spec": _slice(job)}}
            ],
        },
    }


def _slice(job: Job) -> dict[str, Any]:
    """One indexed Job with one pod per node; all pods end when one does."""
    return {
        "completionMode": "Indexed",
        "parallelism": job.hosts,
        "completions": job.hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "run",
                        "operator": "In",
                        "values": [UNFINISHED],
                    },
                },
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        "template": _pod(job),
    }


def _pod(job: Job) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace,
        "nodeSelector": _nodes(job),
    }
    if job.service_account:
        spec["serviceAccountName"] = job.service_account
    if job.spot:
        spec["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        ]
    if job.kind == "gpu":
        spec.setdefault("tolerations", []).append({"key": "nvidia.com/gpu", "operator": "Exists"})
    spec["containers"] = [_container(job)]
    spec["volumes"] = [
        {"name": "runs", **_volume(job)},
        # CUDA's and NCCL's shared memory; the default of 64 MiB is too little for many GPUs.
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    pod: dict[str, Any] = {"spec": spec}
    if job.bucket:
        pod["metadata"] = {"annotations": {"gke-gcsfuse/volumes": "true"}}
    return pod


def _nodes(job: Job) -> dict[str, str]:
    """Labels of suitable nodes."""
    if job.kind == "tpu":
        labels = {
            "cloud.google.com/gke-tpu-accelerator": job.accelerator,
            "cloud.google.com/gke-tpu-topology": str(job.topology),
        }
    else:
        labels = {"cloud.google.com/gke-accelerator": job.accelerator}
    return {**labels, "cloud.google.com/gke-spot": "true"} if job.spot else labels


def _container(job: Job) -> dict[str, Any]:
    amount = {"google.com/tpu" if job.kind == "tpu" else "nvidia.com/gpu": job.chips}
    slice_number = {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/job-index']"}
    return {
        "name": "run",
        "image": job.image,
        "command": ["bash", "-c", GUARD, "run"],
        "args": [*map(literal, job.command), *_hosts(job)],
        "env": [
            {"name": "RESULTS", "value": literal(f"{job.workdir}/{job.results}")},
            {"name": "SLICE", "valueFrom": {"fieldRef": slice_number}},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        "resources": {"requests": dict(amount), "limits": dict(amount)},
        "volumeMounts": [
            {"name": "runs", "mountPath": job.mount},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
    }


def _hosts(job: Job) -> list[str]:
    """``--hosts`` for each pod; Kubernetes fills in JOB_COMPLETION_INDEX, the number of the pod."""
    if job.hosts * job.slices == 1:
        return []
    if job.kind == "tpu":
        return ["--hosts", "auto"]
    # jax finds plain Kubernetes only with its client package and a role that may read pods.
    coordinator = f"{job.name}-{WORKERS}-0-0.{job.name}:{PORT}"
    return ["--hosts", f"{coordinator},{job.hosts},$(JOB_COMPLETION_INDEX)"]


def _volume(job: Job) -> dict[str, Any]:
    if job.claim:
        return {"persistentVolumeClaim": {"claimName": job.claim}}
    attributes = {"bucketName": job.bucket, "mountOptions": "implicit-dirs"}
    return {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}


def literal(word: str) -> str:
    """``word`` escaped, because Kubernetes replaces ``$(NAME)`` in commands."""
    return re.sub(r"\$(?=[$(])", "$$", word)
