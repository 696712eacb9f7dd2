"""Several processes of one run: joined, agreed, and exchanging; all of it does nothing in one.

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
"""JAX's own; `peers` is quicker, and says more."""
EXCHANGED_BYTES = 64 * 2**20
"""Of all processes in one collective: what is exchanged passes through the devices' memory."""
SENTENCE = 2000


@contextlib.contextmanager
def joined(spec: str | None) -> Iterator[None]:
    """Be one process of a run of several while the block lasts.

    Args:
        spec: ``auto`` (what SLURM, a TPU pod or Kubernetes say in the environment), or
            ``HOST:PORT,N,I``: where process 0 listens, how many processes there are and which one
            this is. None is a run of one process.

    Where the block raises, the other processes are told why and end too, and this one leaves with
    an exit code of its own. To be entered before anything asks JAX for its devices.

    Raises:
        UserError: the others cannot be reached.
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
            f"{jax.process_count()} processes have {len(jax.devices())} devices together, of which "
            f"this one has {jax.local_device_count()}: give each of them as many as the others."
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
                f"--hosts is auto or HOST:PORT,N,I, such as 10.0.0.2:8476,4,0, not {spec!r}."
            )
        count, index = map(int, numbers)
        if not index < count or ":" not in address:
            raise UserError(f"--hosts expects HOST:PORT and a process from 0 to N - 1: {spec!r}.")
        seconds |= {"coordinator_address": address, "num_processes": count, "process_id": index}
        # What it would detect overrides nothing of this, but hides devices.
        seconds["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(**seconds)
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The processes of --hosts {spec} did not find one another ({line}): see that all of "
            "them were started, and that the address can be reached."
        ) from error


def stop_at_once() -> None:
    """Let SIGTERM end a process of several: where nothing is to be saved, JAX swallows it."""
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def share() -> tuple[int, int]:
    """(which process this is, how many there are)."""
    return jax.process_index(), jax.process_count()


def first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def of_first(value: bool) -> bool:
    """What the first process says, in all of them: a file may show later elsewhere."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def in_first(make: Callable[[], contextlib.AbstractContextManager[T]]) -> Iterator[T | None]:
    """Enter ``make()`` in the first process alone; if that refuses, all processes do.

    Raises:
        UserError: what the first process raised.
    """
    if jax.process_count() == 1:
        with make() as found:
            yield found
        return
    with contextlib.ExitStack() as stack:
        refused, found_here = "", None
        if first():
            try:
                found_here = stack.enter_context(make())
            except UserError as error:
                refused = str(error)
        told = multihost_utils.broadcast_one_to_all(_padded(refused))
        sentence = bytes(told).rstrip(b"\0").decode(errors="replace")
        if sentence:
            raise UserError(sentence)
        yield found_here


def _padded(sentence: str) -> np.ndarray:
    text = sentence.encode()[:SENTENCE]
    return np.frombuffer(text.ljust(SENTENCE, b"\0"), np.uint8)


def demand_same(**things: Any) -> None:
    """Refuse processes that differ in any of ``things``: arrays in trees, or text.

    Raises:
        UserError: names the thing and a process that has another one than the first.
    """
    if jax.process_count() == 1:
        return
    mine = np.stack([_digest(thing) for thing in things.values()])
    found = multihost_utils.process_allgather(mine)  # [processes, things, 32]
    for number, name in enumerate(things):
        for process, digest in enumerate(found[:, number]):
            if not np.array_equal(digest, found[0, number]):
                raise UserError(
                    f"Process {process} has another {name} than process 0: start all of them with "
                    "the same command, code and files."
                )


def _digest(tree: Tree) -> np.ndarray:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(leaf.encode() if isinstance(leaf, str) else np.asarray(leaf).tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def local_mesh(mesh: Mesh) -> Mesh:
    """The devices of ``mesh`` that are this process's."""
    if jax.process_count() == 1:
        return mesh
    mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    return Mesh(np.asarray(mine), mesh.axis_names, axis_types=mesh.axis_types)


def here(tree: Tree) -> Tree:
    """Arrays that every device of every process has, as this process has them."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def exchange(tree: Tree) -> Tree:
    """Host arrays [n, ...] of every process, of equal shapes, as [processes · n, ...]."""
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
