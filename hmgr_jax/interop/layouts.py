"""How layers of PyTorch hold their weights, and how ours do."""

from __future__ import annotations

import numpy as np

from hmgr_jax.interop.names import Arrays, Entry, same


def linear(official: str, path: str, *, weight: str = "weight") -> tuple[Entry, Entry]:
    """A ``Linear``: PyTorch's weight is [out, in], our kernel [in, out]."""
    kernel = Entry((f"{official}.{weight}",), (f"{path}/kernel",), _transposed, _transposed)
    return kernel, same(f"{official}.bias", f"{path}/bias")


def linear_without_bias(official: str, path: str) -> Entry:
    """The same of a ``Linear`` that has no bias."""
    return linear(official, path)[0]


def bidirectional_gru(official: str, path: str) -> tuple[Entry, ...]:
    """A ``BiGRU`` of one layer; both hold the gates in the order reset, update, new."""
    directions = (("", "forward"), ("_reverse", "backward"))
    return tuple(e for suffix, name in directions for e in _gru(official, suffix, f"{path}/{name}"))


def _gru(official: str, suffix: str, path: str) -> tuple[Entry, ...]:
    def name(kind: str) -> str:
        return f"{official}.{kind}_l0{suffix}"

    inputs, hidden = f"{path}/inputs/kernel", f"{path}/hidden_kernel"
    return (
        Entry((name("weight_ih"),), (inputs,), _transposed, _transposed),
        Entry((name("weight_hh"),), (hidden,), _transposed, _transposed),
        Entry(
            (name("bias_ih"), name("bias_hh")),
            (f"{path}/inputs/bias", f"{path}/hidden_bias"),
            _merged_biases,
            _two_biases,
        ),
    )


def _transposed(x: np.ndarray) -> Arrays:
    return (x.T,)


def _merged_biases(inputs: np.ndarray, hidden: np.ndarray) -> Arrays:
    """PyTorch adds two biases in every gate; only the new gate's second one is not redundant."""
    size = inputs.shape[0] // 3
    gates, more = inputs[: 2 * size], hidden[: 2 * size]
    # Where nothing is added the bits stay, those of -0.0 too.
    merged = np.where(more == 0, gates, gates + more)
    return np.concatenate([merged, inputs[2 * size :]]), hidden[2 * size :]


def _two_biases(inputs: np.ndarray, hidden: np.ndarray) -> Arrays:
    """All of the reset and update gates' bias in ``bias_ih``, zeros in ``bias_hh``."""
    zeros = np.zeros(2 * hidden.shape[0], hidden.dtype)
    return inputs, np.concatenate([zeros, hidden])


def weight_norm(official: str, path: str) -> tuple[Entry, ...]:
    """A ``Linear`` under ``weight_norm(..., dim=None)``: a direction and one length for all of it.

    Our kernel is the direction, ``scale`` the length.
    """
    scale = Entry((f"{official}.weight_g",), (f"{path}/scale",), outward=_number)
    return (*linear(official, path, weight="weight_v"), scale)


def _number(x: np.ndarray) -> Arrays:
    return (x.reshape(()),)


def convolution(official: str, path: str) -> Entry:
    """A ``Conv2d`` without bias: PyTorch's is [out, in, h, w], our kernel [h, w, in, out]."""
    return Entry((f"{official}.weight",), (f"{path}/kernel",), _to_last, _to_first)


def _to_last(x: np.ndarray) -> Arrays:
    return (x.transpose(2, 3, 1, 0),)


def _to_first(x: np.ndarray) -> Arrays:
    return (x.transpose(3, 2, 0, 1),)


def batch_norm(official: str, params: str, stats: str) -> tuple[Entry, ...]:
    """A ``BatchNorm``: gain and bias at ``params``, running moments at ``stats``."""
    return (
        same(f"{official}.weight", f"{params}/scale"),
        same(f"{official}.bias", f"{params}/bias"),
        same(f"{official}.running_mean", f"{stats}/mean"),
        same(f"{official}.running_var", f"{stats}/variance"),
    )


def pointwise(official: str, path: str, axes: int = 1) -> Entry:
    """A convolution of size 1 over so many axes: PyTorch's is [out, in, 1, ...], ours [in, out]."""

    def inward(x: np.ndarray) -> Arrays:
        return (x.reshape(x.shape[:2]).T,)

    def outward(x: np.ndarray) -> Arrays:
        return (x.T.reshape(*x.shape[::-1], *(1,) * axes),)

    return Entry((f"{official}.weight",), (f"{path}/kernel",), inward, outward)
