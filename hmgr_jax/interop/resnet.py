"""Weights of ResNets by torchvision's names, which timm shares, from a local file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.layouts import batch_norm, convolution
from hmgr_jax.interop.names import Names, to_params
from hmgr_jax.interop.state_dict import read
from hmgr_jax.layers.resnet import KINDS
from hmgr_jax.shapes import Tree

PARAMS, STATS = "params", "stats"
_CLASSIFIER = ("fc.weight", "fc.bias")


def names(
    kind: str,
    path: str = "",
    stem: tuple[str, str] = ("conv1", "bn1"),
    layers: str = "layer{}",
    first: int = 1,
) -> Names:
    """Official names of parameters and statistics, ours under ``params/`` and ``stats/``.

    Args:
        kind: one of `KINDS`.
        path: of the network within both, as ``cnn/``.
        stem: what the official code calls its first convolution and norm.
        layers: the same for its stages, the first of which has the number ``first``.
        first: that number.
    """
    bottleneck, blocks = KINDS[kind]
    found = [convolution(stem[0], f"{PARAMS}/{path}conv1"), *_norm(stem[1], f"{path}bn1")]
    for number, count in enumerate(blocks, start=1):
        for block in range(count):
            official = f"{layers.format(number + first - 1)}.{block}"
            ours = f"{path}layer{number}/block{block}"
            for i in range(1, 4 if bottleneck else 3):
                found.append(convolution(f"{official}.conv{i}", f"{PARAMS}/{ours}/conv{i}"))
                found += _norm(f"{official}.bn{i}", f"{ours}/bn{i}")
            short = f"{official}.downsample"
            found.append(convolution(f"{short}.0", f"{PARAMS}/{ours}/downsample_conv"))
            found += _norm(f"{short}.1", f"{ours}/downsample_bn")
    return tuple(found)


def _norm(official: str, path: str) -> Names:
    return batch_norm(official, f"{PARAMS}/{path}", f"{STATS}/{path}")


def weights_of(
    names_: Names, state: Mapping[str, np.ndarray], params: Tree, stats: Tree
) -> dict[str, Any]:
    """``{"params", "stats"}`` of a network from an official state_dict.

    Raises:
        UserError: weights of another network.
    """
    state = {n: x for n, x in state.items() if not n.endswith("num_batches_tracked")}
    return to_params(names_, state, {PARAMS: params, STATS: stats})  # type: ignore[no-any-return]


def read_backbone(path: str | Path, kind: str, params: Tree, stats: Tree) -> dict[str, Any]:
    """``{"params", "stats"}`` of a ResNet without its classifier from a .pth or .safetensors file.

    Args:
        path: weights as torchvision or timm save them.
        kind: one of `KINDS`.
        params: which parameters there are, their shapes and types.
        stats: the same of running statistics.

    Raises:
        UserError: no such file, no file of weights, or weights of another network.
    """
    state = {n: x for n, x in read(path).items() if n not in _CLASSIFIER}
    try:
        return weights_of(names(kind), state, params, stats)
    except UserError as error:
        raise UserError(f"{path} does not fit model.cnn, which is {kind}: {error}") from None
