"""Layouts of weights: PyTorch's layers and ours."""

from __future__ import annotations

import numpy as np

from hmgr_jax.interop.names import Arrays, Entry, same

PARAMS, STATS = "params", "stats"


def linear(official: str, path: str, *, weight: str = "weight") -> tuple[Entry, Entry]:
    """A ``Linear``: PyTorch's weight is [out, in], our kernel [in, out]."""
    kernel = Entry((f"{official}.{weight}",), (f"{path}/kernel",), _transposed, _transposed)
    return kernel, same(f"{official}.bias", f"{path}/bias")


def linear_without_bias(official: str, path: str) -> Entry:
    """A ``Linear`` without bias."""
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
    """PyTorch adds two biases in every gate; the second is redundant except in the new gate."""
    size = inputs.shape[0] // 3
    gates, more = inputs[: 2 * size], hidden[: 2 * size]
    # Adding 0 would change -0.0.
    merged = np.where(more == 0, gates, gates + more)
    return np.concatenate([merged, inputs[2 * size :]]), hidden[2 * size :]


def _two_biases(inputs: np.ndarray, hidden: np.ndarray) -> Arrays:
    """All of the reset and update gates' bias in ``bias_ih``, zeros in ``bias_hh``."""
    zeros = np.zeros(2 * hidden.shape[0], hidden.dtype)
    return inputs, np.concatenate([zeros, hidden])


def weight_norm(official: str, path: str) -> tuple[Entry, ...]:
    """A ``Linear`` with ``weight_norm(..., dim=None)``: the direction (our kernel) and a length."""
    names = (f"{official}.weight_g",), (f"{path}/scale",)
    scale = Entry(*names, outward=lambda x: (x.reshape(()),))
    return (*linear(official, path, weight="weight_v"), scale)


def convolution(official: str, path: str) -> Entry:
    """A ``Conv2d`` without bias: PyTorch's is [out, in, h, w], our kernel [h, w, in, out]."""
    return Entry(
        (f"{official}.weight",),
        (f"{path}/kernel",),
        lambda x: (x.transpose(2, 3, 1, 0),),
        lambda x: (x.transpose(3, 2, 0, 1),),
    )


def batch_norm(official: str, path: str) -> tuple[Entry, ...]:
    """A ``BatchNorm``: gain and bias below ``params/``, running moments below ``stats/``."""
    return (
        same(f"{official}.weight", f"{PARAMS}/{path}/scale"),
        same(f"{official}.bias", f"{PARAMS}/{path}/bias"),
        same(f"{official}.running_mean", f"{STATS}/{path}/mean"),
        same(f"{official}.running_var", f"{STATS}/{path}/variance"),
    )


def pointwise(official: str, path: str, axes: int = 1) -> Entry:
    """A convolution of size 1 with ``axes`` axes: PyTorch [out, in, 1, ...], ours [in, out]."""
    return Entry(
        (f"{official}.weight",),
        (f"{path}/kernel",),
        lambda x: (x.reshape(x.shape[:2]).T,),
        lambda x: (x.T.reshape(*x.shape[::-1], *(1,) * axes),),
    )
