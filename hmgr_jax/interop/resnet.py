"""Weights of ResNets by torchvision's names, which timm shares, from a local file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.layouts import PARAMS, STATS, batch_norm, convolution
from hmgr_jax.interop.names import Names, to_params
from hmgr_jax.interop.state_dict import read
from hmgr_jax.layers.resnet import KINDS
from hmgr_jax.shapes import Tree

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
        path: prefix of the network within both, such as ``cnn/``.
        stem: official names of the first convolution and norm.
        layers: official name of a stage, with {} for its number.
        first: number of the first stage.
    """
    bottleneck, blocks = KINDS[kind]
    found = [convolution(stem[0], f"{PARAMS}/{path}conv1"), *batch_norm(stem[1], f"{path}bn1")]
    for number, count in enumerate(blocks, start=1):
        for block in range(count):
            official = f"{layers.format(number + first - 1)}.{block}"
            ours = f"{path}layer{number}/block{block}"
            for i in range(1, 4 if bottleneck else 3):
                found.append(convolution(f"{official}.conv{i}", f"{PARAMS}/{ours}/conv{i}"))
                found += batch_norm(f"{official}.bn{i}", f"{ours}/bn{i}")
            short = f"{official}.downsample"
            found.append(convolution(f"{short}.0", f"{PARAMS}/{ours}/downsample_conv"))
            found += batch_norm(f"{short}.1", f"{ours}/downsample_bn")
    return tuple(found)


def weights_of(
    names_: Names, state: Mapping[str, np.ndarray], params: Tree, stats: Tree
) -> dict[str, Any]:
    """``{"params", "stats"}`` of a network from its official state_dict."""
    state = {n: x for n, x in state.items() if not n.endswith("num_batches_tracked")}
    return to_params(names_, state, {PARAMS: params, STATS: stats})  # type: ignore[no-any-return]


def read_backbone(path: str | Path, kind: str, params: Tree, stats: Tree) -> dict[str, Any]:
    """``{"params", "stats"}`` of a ResNet without its classifier from a .pth or .safetensors file.

    Args:
        path: weights as torchvision or timm save them.
        kind: one of `KINDS`.
        params: which parameters there are, their shapes and types.
        stats: the same for running statistics.

    Raises:
        UserError: no file of weights, or weights of another network.
    """
    state = {n: x for n, x in read(path).items() if n not in _CLASSIFIER}
    try:
        return weights_of(names(kind), state, params, stats)
    except UserError as error:
        raise UserError(f"{path} does not fit {kind}: {error}") from None
