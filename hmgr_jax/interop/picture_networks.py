"""Pretrained networks that describe the cells of a picture, from local files.

A specification names a network and the place of its weights: ``efficientnet_lite2`` (the extra
``cnn``; or a file), ``resnet50=FILE`` (torchvision's or timm's), ``clip=DIR`` and ``siglip=DIR``
(folders as transformers saves them). ``patches`` needs no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hmgr_jax.data.pictures import patches
from hmgr_jax.data.pictures.pixels import MEAN, STD
from hmgr_jax.data.pictures.preprocessing import Preprocessing
from hmgr_jax.errors import UserError
from hmgr_jax.files.digests import sha256
from hmgr_jax.interop import clip, clip_inputs, clip_weights, efficientnet, resnet
from hmgr_jax.interop.transformers_folder import CONFIG, weight_files
from hmgr_jax.layers.efficientnet import CHANNELS, EfficientNet
from hmgr_jax.layers.efficientnet import KINDS as LITE
from hmgr_jax.layers.resnet import KINDS as RESNETS
from hmgr_jax.layers.resnet import ResNet, channels
from hmgr_jax.shapes import Array, Tree

STRIDE = 32
"""Pixels of a cell of a CNN's last map."""
LITE_SIDE, RESNET_SIDE = 320, 224
"""Sides of the CNNs' pictures; the whole picture is stretched to a square."""
KINDS = (
    *(patches.NAME, *LITE, *(f"{name}=FILE" for name in RESNETS if name != "resnet10")),
    *("clip=DIR", "siglip=DIR"),
)


@dataclass(frozen=True, eq=False)
class Network:
    """A network without its head."""

    kind: str
    place: str | None
    """Absolute path of the weights; None where they are installed or not needed."""
    weights: Mapping[str, str]
    """{name of a file: its sha256}."""
    preprocessing: Preprocessing
    side: int
    """Cells in a row of its map."""
    size: int
    """Numbers per cell."""
    variables: Tree
    cells: Callable[[Tree, Array], Array]
    """(variables, pixels [B, S, S, 3]) -> map [B, side, side, size]."""
    covered: float = 1.0
    """Share of the pixels of a row that cells cover; the rest at the end is cut off."""
    positive: bool = True
    """Whether no number is negative, so that square roots can be taken."""
    traced: bool = True
    """Whether ``cells`` is compiled; otherwise it runs in numpy."""


def read_network(specification: str, grid: int) -> Network:
    """The network of a specification; the patches are ``grid`` in a row.

    Raises `UserError` if the network is unknown, or its weights are missing or of another one.
    """
    kind, _, place = specification.partition("=")
    asks = {known.partition("=")[0]: known for known in KINDS}
    if kind not in asks or (kind == patches.NAME and place):
        raise UserError(f"There is no encoder {specification!r}: choose from {', '.join(KINDS)}.")
    if "=" in asks[kind] and not place:
        raise UserError(f"The encoder {kind} names no weights: give {asks[kind]}.")
    if kind == patches.NAME:
        return _patches(grid)
    if kind in LITE:
        return _lite(kind, place)
    return _resnet(kind, Path(place)) if kind in RESNETS else _tower(kind, Path(place))


def _patches(grid: int) -> Network:
    def cells(_: Tree, pixels: Array) -> Any:
        found = [patches.describe_patches(picture, grid) for picture in pixels]
        return jnp.asarray(np.stack(found).reshape(len(found), grid, grid, -1))

    how = patches.preprocessing_of(grid)
    return Network(patches.NAME, None, {}, how, grid, patches.SIZE, {}, cells, traced=False)


def _lite(kind: str, place: str) -> Network:
    file = Path(place) if place else efficientnet.installed(kind)
    net = EfficientNet(kind)
    variables = efficientnet.read_backbone(file, kind, **_template(net))
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    how = Preprocessing(LITE_SIDE, None, int(Image.Resampling.BICUBIC), mean, std)
    where = str(file.resolve()) if place else None
    return _cnn(kind, where, file, how, CHANNELS, variables, net)


def _resnet(kind: str, file: Path) -> Network:
    net = ResNet(kind)
    variables = resnet.read_backbone(file, kind, **_template(net))
    how = Preprocessing(RESNET_SIDE, None, int(Image.Resampling.BILINEAR), MEAN, STD)
    return _cnn(kind, str(file.resolve()), file, how, channels(kind), variables, net)


def _template(net: nn.Module) -> dict[str, Tree]:
    """Shapes of ``params`` and ``stats``."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    found = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, None), image)
    return {name: found[name] for name in ("params", "stats")}


def _cnn(
    kind: str,
    place: str | None,
    file: Path,
    how: Preprocessing,
    size: int,
    variables: Tree,
    net: nn.Module,
) -> Network:
    def cells(variables: Tree, pixels: Array) -> Any:
        return net.apply(variables, pixels, None)

    digests = {file.name: sha256(file)}
    return Network(kind, place, digests, how, how.size // STRIDE, size, variables, cells)


def _tower(kind: str, folder: Path) -> Network:
    towers = clip.read_towers(folder)
    if towers.kind != kind:
        raise UserError(f"{folder} holds a {towers.kind}, not a {kind}: give {towers.kind}=DIR.")
    how, params = (
        clip_inputs.read_preprocessing(folder, towers),
        clip_weights.read_params(folder, towers),
    )
    net, sizes = towers.modules()[0], towers.image

    def cells(variables: Tree, pixels: Array) -> Any:
        seen: Any = net.apply({"params": variables}, pixels)
        return seen.patches.reshape(len(pixels), sizes.grid, sizes.grid, -1)

    files = folder / CONFIG, *weight_files(folder, clip.ADVICE)[1]
    return Network(
        kind,
        str(folder.resolve()),
        {file.name: sha256(file) for file in files},
        how,
        sizes.grid,
        sizes.encoder.width,
        params["image"],
        cells,
        covered=sizes.grid * sizes.patch / sizes.image,
        positive=False,
    )
