"""Several processes of one run: join them, compare them, exchange arrays; no-ops in one process.

Every process makes the same calls in the same order. The workdir is shared by all of them; its
small files are written by the first process.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hmgr_jax.errors import UserError
from hmgr_jax.shapes import Tree

T = TypeVar("T")
JOIN_SECONDS = 300
HEARTBEAT_SECONDS = 60
"""Of JAX's own watch; `peers` detects a lost process sooner and names it."""
EXCHANGED_BYTES = 64 * 2**20
"""Bytes of all processes in one collective: exchanged arrays pass through device memory."""
SENTENCE = 2000


@contextlib.contextmanager
def joined(spec: str | None) -> Iterator[None]:
    """Join a run of several processes for the duration of the block.

    ``spec`` is ``auto`` (read from the environment of SLURM, a TPU pod or Kubernetes), or
    ``HOST:PORT,N,I``: the address of process 0, the number of processes and the number of this one.
    None is a run of one process. If the block raises, the other processes receive the reason and
    end too. Enter it before anything asks JAX for its devices. Raises `UserError` if the other
    processes cannot be reached.
    """
    if spec is None:
        yield
        return
    _initialize(spec)
    if jax.process_count() == 1:
        yield
        return
    from hmgr_jax.distributed.peers import Peers

    if len(jax.devices()) != jax.process_count() * jax.local_device_count():
        raise UserError(
            f"The {jax.process_count()} processes have {len(jax.devices())} devices in total and "
            f"this one has {jax.local_device_count()}: give every process the same number."
        )
    peers = Peers(jax.process_index(), jax.process_count())
    try:
        yield
    except BaseException as error:
        peers.fail(error)
    peers.leave()
    jax.distributed.shutdown()


def _initialize(spec: str) -> None:
    seconds: dict[str, Any] = {
        "initialization_timeout": JOIN_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if spec != "auto":
        address, *numbers = spec.split(",")
        if len(numbers) != 2 or not all(n.isascii() and n.isdigit() for n in numbers):
            raise UserError(
                f"--hosts must be auto or HOST:PORT,N,I (such as 10.0.0.2:8476,4,0), got {spec!r}."
            )
        count, index = map(int, numbers)
        if not index < count or ":" not in address:
            raise UserError(
                f"--hosts must name HOST:PORT and a process from 0 to N - 1, got {spec!r}."
            )
        seconds |= {"coordinator_address": address, "num_processes": count, "process_id": index}
        # Detection would override nothing here, but it hides devices.
        seconds["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(**seconds)
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The processes of --hosts {spec} did not connect ({line}): check that all of them "
            "were started and that the address can be reached."
        ) from error


def stop_at_once() -> None:
    """Restore SIGTERM's default in a run of several processes, where JAX intercepts it."""
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def process_share() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    return jax.process_index(), jax.process_count()


def is_first() -> bool:
    """Whether this process writes and prints (process 0)."""
    return jax.process_index() == 0


def broadcast_from_first(value: bool) -> bool:
    """The value of the first process, in every process: a file may appear later on other hosts."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def enter_on_first(make: Callable[[], contextlib.AbstractContextManager[T]]) -> Iterator[T | None]:
    """Enter ``make()`` in the first process only; every process raises its UserError."""
    if jax.process_count() == 1:
        with make() as found:
            yield found
        return
    with contextlib.ExitStack() as stack:
        refused, found_here = "", None
        if is_first():
            try:
                found_here = stack.enter_context(make())
            except UserError as error:
                refused = str(error)
        text = refused.encode()[:SENTENCE].ljust(SENTENCE, b"\0")
        received = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
        sentence = bytes(received).rstrip(b"\0").decode(errors="replace")
        if sentence:
            raise UserError(sentence)
        yield found_here


def check_same(**things: Any) -> None:
    """Raise `UserError` unless all processes have equal ``things`` (trees of arrays, or texts)."""
    if jax.process_count() == 1:
        return
    mine = np.stack([_digest(thing) for thing in things.values()])
    found = multihost_utils.process_allgather(mine)  # [processes, things, 32]
    for number, name in enumerate(things):
        for process, digest in enumerate(found[:, number]):
            if not np.array_equal(digest, found[0, number]):
                raise UserError(
                    f"Process {process} has a different {name} from process 0: start all processes "
                    "with the same command, code and files."
                )


def _digest(tree: Tree) -> np.ndarray:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_replicated or leaf.is_fully_addressable
        ):
            continue  # each process has another part
        found.update(leaf.encode() if isinstance(leaf, str) else np.asarray(leaf).tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def local_mesh(mesh: Mesh) -> Mesh:
    """The part of ``mesh`` on devices of this process."""
    if jax.process_count() == 1:
        return mesh
    mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    return Mesh(np.asarray(mine), mesh.axis_names, axis_types=mesh.axis_types)


def local_arrays(tree: Tree) -> Tree:
    """Global arrays as whole arrays of this process; those that are split become host arrays."""
    if jax.process_count() == 1:
        return tree

    def whole(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        if x.is_fully_replicated:
            return x.addressable_data(0)
        if x.is_fully_addressable:
            return x
        parts = sorted(x.addressable_shards, key=lambda part: part.index[0].start)
        return _exchange(np.concatenate([np.asarray(part.data) for part in parts]))

    return jax.tree.map(whole, tree)


def exchange(tree: Tree) -> Tree:
    """Concatenate host arrays [n, ...] of equal shape over the processes: [processes · n, ...]."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [_exchange(np.asarray(leaf)) for leaf in leaves])


def _exchange(x: np.ndarray) -> np.ndarray:
    an_item = max(1, x[:1].nbytes)
    count = jax.process_count()
    size = max(1, EXCHANGED_BYTES // (an_item * count))
    found = np.empty((count, *x.shape), x.dtype)
    for i in range(0, len(x), size):
        found[:, i : i + size] = multihost_utils.process_allgather(x[i : i + size])
    return found.reshape(-1, *x.shape[1:])
