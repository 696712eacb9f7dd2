"""A run on GKE as a JobSet: prints the manifest for ``kubectl apply -f -``.

    python launch/gke.py tpu --name coco --image IMAGE --accelerator tpu-v5-lite-podslice \\
        --topology 4x4 --claim runs -- \\
        python -m hmgr_jax.main --config configs/coco.py --workdir /runs/coco
    python launch/gke.py gpu --name coco --image IMAGE --accelerator nvidia-h100-80gb \\
        --gpus 8 --nodes 2 --claim runs -- COMMAND...

    --name NAME          of the JobSet
    --image IMAGE        a container with this checkout as its folder, python and bash
    --accelerator A      node label gke-tpu-accelerator or gke-accelerator
    --topology 4x4       tpu: node label gke-tpu-topology of a slice
    --chips C            tpu: chips of a node (default 4, or all of a smaller slice)
    --slices S           tpu: slices of that topology (default 1)
    --gpus G             gpu: GPUs of a node, all for one process (default 1)
    --nodes N            gpu: nodes (default 1)
    --claim CLAIM        a PersistentVolumeClaim that all nodes can write (ReadWriteMany), or
    --bucket BUCKET      a Cloud Storage bucket with hierarchical namespace, through GCS FUSE
    --mount PATH         where that lies in the container (default /runs); --workdir must be in it
    --service-account S  Kubernetes service account (GCS FUSE needs one that may write the bucket)
    --spot               run on Spot nodes
    --restarts R         after at most R failures (default 20); preemptions do not count
    --grace S            seconds to save after SIGTERM (default 120; Spot nodes give about 25)
    --check              print nothing but whether the manifest keeps to launch/jobset.schema.json

``--hosts`` is added to the command: ``auto`` on TPU, the address of pod 0 on GPU nodes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it need not be installed

from hmgr_jax.command import Parser, guarded
from hmgr_jax.errors import UserError
from launch.gke_manifest import Job, manifest
from launch.local import split_command

SCHEMA = Path(__file__).with_name("jobset.schema.json")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


class Dumper(yaml.SafeDumper):
    """Write YAML strings of several lines as blocks, without escapes."""


def _text(dumper: Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else "")


Dumper.add_representer(str, _text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for invalid options."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Print or check the manifest of the command line; returns the exit code."""
    own, command = split_command(arguments)
    parser = _parser()
    flags = parser.parse(own)
    if flags.help:
        print(__doc__)
        return 0
    if flags.kind is None:
        raise UserError("The kind of nodes is missing: give tpu or gpu, as in gke.py tpu.")
    for name in ("name", "image", "accelerator", *(["topology"] if flags.kind == "tpu" else [])):
        if not getattr(flags, name):
            raise UserError(f"--{name} is needed for {flags.kind}; --help shows the command line.")
    text = yaml.dump(manifest(_job(flags, command)), Dumper=Dumper, sort_keys=False, width=100)
    if flags.check:
        check(text)
        print(f"The manifest keeps to {SCHEMA.name}.")
    else:
        print(text, end="")
    return 0


def check(text: str) -> None:
    """Compare a manifest with the schema of the parts of JobSet that are used here.

    Raises:
        UserError: it does not fit, or jsonschema is not installed.
    """
    try:
        import jsonschema
    except ImportError as error:
        raise UserError("--check needs jsonschema: pip install jsonschema.") from error
    found = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(
        yaml.safe_load(text)
    )
    for problem in found:
        raise UserError(f"The manifest is wrong at {problem.json_path}: {problem.message}.")


def _parser() -> Parser:
    parser = Parser()
    parser.add_argument("kind", nargs="?", choices=("tpu", "gpu"))
    for name in ("name", "image", "accelerator", "topology", "claim", "bucket"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--service-account")
    parser.add_argument("--mount", default="/runs")
    parser.add_argument("--chips", type=int)
    for name, value in (("slices", 1), ("gpus", 1), ("nodes", 1), ("restarts", 20), ("grace", 120)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--spot", action="store_true")
    parser.add_argument("--check", action="store_true")
    return parser


def _job(flags: Any, command: list[str]) -> Job:
    """Check the flags and convert them to a job."""
    if not NAME.fullmatch(flags.name):
        raise UserError(
            f"--name expects at most 40 small letters, digits and dashes, not {flags.name!r}."
        )
    for name in ("slices", "gpus", "nodes", "grace"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} expects 1 or more, not {getattr(flags, name)}.")
    if flags.restarts < 0:
        raise UserError(f"--restarts expects 0 or more, not {flags.restarts}.")
    if not flags.mount.startswith("/"):
        raise UserError(f"--mount expects an absolute path such as /runs, not {flags.mount!r}.")
    if bool(flags.claim) == bool(flags.bucket):
        raise UserError("Give either --claim or --bucket: the file system of --workdir.")
    if flags.kind == "tpu":
        chips, hosts = slice_shape(flags.topology, flags.chips)
    else:
        chips, hosts = flags.gpus, flags.nodes
    return Job(
        kind=flags.kind,
        name=flags.name,
        image=flags.image,
        accelerator=flags.accelerator,
        topology=flags.topology if flags.kind == "tpu" else None,
        chips=chips,
        hosts=hosts,
        slices=flags.slices if flags.kind == "tpu" else 1,
        claim=flags.claim,
        bucket=flags.bucket,
        mount=flags.mount,
        service_account=flags.service_account,
        spot=flags.spot,
        restarts=flags.restarts,
        grace=flags.grace,
        command=tuple(command),
        workdir=_workdir(command, flags.mount),
        results="seeds.json" if any(w.startswith("--seeds") for w in command) else "results.json",
    )


def slice_shape(topology: str, chips: int | None) -> tuple[int, int]:
    """Chips of a node and nodes of a slice, for a topology such as ``4x4`` or ``2x2x4``.

    Raises:
        UserError: the topology is invalid, or does not divide into nodes of ``chips`` chips.
    """
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}", topology):
        raise UserError(f"--topology expects sizes such as 4x4 or 2x2x4, not {topology!r}.")
    total = 1
    for size in topology.split("x"):
        total *= int(size)
    chips = min(4, total) if chips is None else chips
    if chips < 1 or total % chips:
        raise UserError(f"{total} chips of {topology} do not divide into nodes of {chips} chips.")
    return chips, total // chips


def _workdir(command: list[str], mount: str) -> str:
    """The ``--workdir`` of the command, which must lie in ``mount``."""
    if not command:
        raise UserError("Give the command after --, as: gke.py ... -- python -m hmgr_jax.main ...")
    found = ""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == "--workdir":
            found = following
        elif word.startswith("--workdir="):
            found = word.partition("=")[2]
        elif word.partition("=")[0] == "--hosts":
            raise UserError("Leave --hosts out of the command: it is added here.")
    if not Path(found).is_relative_to(mount) or ".." in Path(found).parts:
        raise UserError(
            f"The command needs a --workdir in {mount}, where the shared volume is, not {found!r}."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
