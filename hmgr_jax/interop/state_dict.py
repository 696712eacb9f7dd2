"""Files of weights: names and arrays from PyTorch, safetensors and npz files; safetensors out."""

from __future__ import annotations

import contextlib
import mmap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy for safetensors)
import numpy as np
import safetensors
import safetensors.numpy

from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npz
from hmgr_jax.files.reading import readable
from hmgr_jax.files.workdir import sync, temporary_for
from hmgr_jax.interop.torch_files import PICKLE, LegacyPickle, Saved, TorchZip
from hmgr_jax.interop.torch_pickle import Namespace, Tensor

NESTED = ("model", "state_dict")
"""Keys under which training scripts save the state_dict beside other things."""
CRITERION = "criterion"
"""The key of a separate state_dict of the loss; its names get this prefix."""
CONFIG = "config"
"""The key of grouped options in PCME's release."""
PREFIX = "module."
"""DataParallel's prefix of every name."""
AGAIN = "it is cut short or damaged, get the file again."
_PICKLE = b"\x80"  # first byte of a pickle of protocol 2 and later
_LARGEST_HEADER = 100_000_000  # bytes of a safetensors header


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights."""

    state: dict[str, np.ndarray]
    """Arrays by name, in the types of the file; they may be read-only views."""
    options: dict[str, Any] = field(default_factory=dict)
    """Plain values of the ``argparse.Namespace`` saved as ``opt`` (SCAN's family), or of the groups
    saved as ``config``, with names such as ``model.embed_dim``."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The texts in the header of a safetensors file."""


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The state_dict in a file, {name: array}; see ``read_weights``."""
    return read_weights(path).state


def read_weights(path: str | Path) -> Weights:
    """Read PyTorch's formats, old and new (.pth, .pt, .pth.tar), .safetensors or .npz.

    The format is recognised by the first bytes. A state_dict inside a checkpoint (``{"model": ...,
    "opt": ..., "epoch": ...}``) is found, and DataParallel's prefix ``module.`` is dropped.

    Raises:
        UserError: no such file, another format, a damaged file, or a pickle of anything but tensors
            and plain values (nothing in it is run).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no file of weights {path}: correct the path.")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        weights = _read_zip(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        weights = _read_safetensors(path)
    elif head[257:262] == b"ustar":
        raise UserError(
            f"{path} is a tar, as PyTorch 0.1 wrote its files, or an archive: unpack the archive, "
            "or load the file with PyTorch and save its state_dict again."
        )
    elif head.startswith(_PICKLE):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            weights = _weights_of(LegacyPickle(whole, path), path)
    else:
        raise UserError(
            f"{path} is no file of weights that is known (it begins with {head[:8]!r}): give a "
            "PyTorch file, .safetensors or .npz."
        )
    if not weights.state:
        raise UserError(f"{path} holds no tensors: give a file of weights.")
    if all(name.startswith(PREFIX) for name in weights.state):
        state = {name.removeprefix(PREFIX): x for name, x in weights.state.items()}
        return Weights(state, weights.options, weights.metadata)
    return weights


def write(path: str | Path, state: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; raises `UserError` rather than replace a file."""
    path = Path(path)
    check_free(path)
    arrays = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in state.items()}
    with temporary_for(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, dict(metadata))
        except safetensors.SafetensorError as error:
            what = f"{path} could not be written ({error})"
            raise UserError(f"{what}: make room on the disk.") from None
        sync(temporary)
        check_free(path)
        temporary.rename(path)


def check_free(path: Path) -> None:
    """Raise `UserError` if ``path`` exists or its folder does not."""
    if not path.parent.is_dir():
        raise UserError(
            f"{path} cannot be written because there is no folder {path.parent}: make it, or "
            "correct the path."
        )
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten: give another name, or move it.")


def _read_zip(path: Path) -> Weights:
    with contextlib.ExitStack() as stack:
        with readable(path, "weights", AGAIN):
            archive = stack.enter_context(zipfile.ZipFile(path))
        names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return Weights(read_npz(path, "give arrays of plain numbers."))
        if not any(name.endswith(f"/{PICKLE}") for name in names):
            raise UserError(
                f"{path} is a zip file, but neither PyTorch's nor numpy's: unpack it and give "
                "what is in it."
            )
        return _weights_of(TorchZip(archive, path), path)


def _weights_of(saved: Saved, path: Path) -> Weights:
    """The tensors and options in the saved object."""
    node: Any = saved.root
    root = node if isinstance(node, dict) else {}
    given, learnt = root.get("opt"), root.get(CRITERION)
    while isinstance(node, dict) and not any(isinstance(x, Tensor) for x in node.values()):
        inner = next((node[key] for key in NESTED if key in node), None)
        if inner is node or inner is None:
            break
        node = inner
    if not isinstance(node, dict) or not all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in node.items()
    ):
        raise UserError(
            f"{path} holds no state_dict ({_kind(node)}), neither alone nor under "
            f"{' or '.join(map(repr, NESTED))}: save model.state_dict(), a mapping of names to "
            "tensors."
        )
    if isinstance(learnt, dict) and node is not root:
        of_loss = {f"{CRITERION}.{n}": x for n, x in learnt.items() if isinstance(x, Tensor)}
        node = {**node, **of_loss}
    options = given.values if isinstance(given, Namespace) else _flat(root.get(CONFIG))
    plain = {k: v for k, v in options.items() if isinstance(v, str | int | float | bool)}
    return Weights({name: saved.array(x) for name, x in node.items()}, plain)


def _flat(config: Any) -> dict[str, Any]:
    """Grouped options by ``group.option``."""
    groups = config.items() if isinstance(config, dict) else ()
    return {
        f"{group}.{name}": value
        for group, options in groups
        if isinstance(options, dict)
        for name, value in options.items()
    }


def _kind(node: Any) -> str:
    if isinstance(node, dict):
        other = [str(name) for name, x in node.items() if not isinstance(x, Tensor)][:3]
        return f"among its keys are {', '.join(other) or 'none'}"
    return f"it is a {type(node).__name__}"


def _read_safetensors(path: Path) -> Weights:
    with readable(path, "safetensors", AGAIN):
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        return Weights(safetensors.numpy.load_file(path), metadata=metadata)
