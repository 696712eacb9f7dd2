"""EfficientNet-Lite (Tan and Le, ICML 2019; without squeeze-and-excitation, with ReLU6).

Images are [B, H, W, 3] of `pixels`. Convolutions are padded as TensorFlow's ``SAME``. The map has
1280 channels and 1/32 of the image's size, rounded up. `hmgr_jax.interop.efficientnet` reads the
released weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, ValidRows
from hmgr_jax.layers.linear import Linear
from hmgr_jax.layers.resnet import Conv
from hmgr_jax.shapes import Array, Float, Num


@dataclass(frozen=True)
class Kind:
    """A network of the family."""

    width: float
    """Factor on the channels."""
    depth: float
    """Factor on the blocks of a stage."""
    size: int
    """Side of the images of its training, in pixels."""


KINDS = {
    "efficientnet_lite0": Kind(1.0, 1.0, 224),
    "efficientnet_lite1": Kind(1.0, 1.1, 240),
    "efficientnet_lite2": Kind(1.1, 1.2, 260),
}
STEM, CHANNELS, CLASSES = 32, 1280, 1000
"""Channels of the first and the last map, and ImageNet's classes."""
EPSILON = 1e-3
_STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of an inverted residual block."""

    kernel: int
    stride: int
    expansion: int
    """Factor on the incoming channels between the pointwise convolutions."""
    features: int


def blocks(kind: str) -> list[BlockSizes]:
    """The blocks of a network; those of the first and the last stage are not repeated."""
    of, found = KINDS[kind], []
    for stage, (count, kernel, stride, expansion, channels) in enumerate(_STAGES):
        features = _in_eights(channels * of.width)
        count = count if stage in (0, len(_STAGES) - 1) else math.ceil(count * of.depth)
        for number in range(count):
            found.append(BlockSizes(kernel, 1 if number else stride, expansion, features))
    return found


def _in_eights(channels: float) -> int:
    """The nearest multiple of 8, at least 90% of ``channels``."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


def pixels(image: Num[Array, "*batch H W 3"]) -> Float[Array, "*batch H W 3"]:
    """Pixels 0..255 as the networks were trained with: ``(x - 127) / 128``."""
    return (jnp.asarray(image, jnp.float32) - 127.0) / 128.0


class Depthwise(nn.Module):
    """A square filter for each channel, padded as ``SAME``; the result has the type ``dtype``."""

    size: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Filter the channels."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", init, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return filter_channels(x, kernel[:, :, 0], self.stride)


def filter_channels(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], stride: int
) -> Float[Array, "B h w C"]:
    """A depthwise convolution, ``SAME``, as a sum of shifted products.

    On CPU it is twenty times faster than XLA's convolution with a group a channel.
    """
    size, (height, width) = len(kernel), x.shape[1:3]
    pads = jax.lax.padtype_to_pads((height, width), (size, size), (stride, stride), "SAME")
    wide = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    last_row, last = (-(-side // stride) * stride - stride for side in (height, width))
    total = jnp.float32(0.0)
    for i in range(size):
        for j in range(size):
            seen = wide[:, i : i + last_row + 1 : stride, j : j + last + 1 : stride]
            tap = kernel[i, j].astype(jnp.float32)[None, None, None]
            total = total + seen.astype(jnp.float32) * tap
    return total.astype(x.dtype)


class Block(nn.Module):
    """Expand, filter each channel, project; the input is added where the shape is the same."""

    sizes: BlockSizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], rows: ValidRows | None
    ) -> Float[Array, "B h w D"]:
        """Apply the block."""
        s, y = self.sizes, x
        inner = x.shape[-1] * s.expansion
        if s.expansion > 1:
            y = Conv(inner, 1, 1, self.dtype, name="expand")(y)
            y = jax.nn.relu6(_norm("expand_bn")(y, rows))
        y = Depthwise(s.kernel, s.stride, self.dtype, name="depthwise")(y)
        y = jax.nn.relu6(_norm("depthwise_bn")(y, rows))
        y = _norm("project_bn")(Conv(s.features, 1, 1, self.dtype, name="project")(y), rows)
        return x + y if x.shape == y.shape else y


def _norm(name: str) -> BatchNorm:
    return BatchNorm(epsilon=EPSILON, name=name)


class EfficientNet(nn.Module):
    """An EfficientNet-Lite without its classifier."""

    kind: str = "efficientnet_lite2"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], rows: ValidRows | None = None
    ) -> Float[Array, "B h w C"]:
        """The last feature map after ReLU6, at 1/32 of the image's size.

        With ``rows`` (training) batch norm uses and updates batch statistics; without, it uses the
        running statistics.
        """
        if rows is not None:  # invalid rows must be finite
            x = jnp.where(rows.valid[:, None, None, None], x, 0.0)
        x = Conv(STEM, 3, 2, self.dtype, same=True, name="stem")(x)
        x = jax.nn.relu6(_norm("stem_bn")(x, rows))
        for number, sizes in enumerate(blocks(self.kind)):
            x = Block(sizes, self.dtype, name=f"block{number}")(x, rows)
        x = Conv(CHANNELS, 1, 1, self.dtype, name="head")(x)
        return jax.nn.relu6(_norm("head_bn")(x, rows))


class Classifier(nn.Module):
    """An EfficientNet-Lite with ImageNet's classifier."""

    kind: str = "efficientnet_lite2"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        """Logits of ImageNet's classes."""
        found = EfficientNet(self.kind, self.dtype, name="cnn")(x)
        return Linear(CLASSES, dtype=self.dtype, name="fc")(jnp.mean(found, axis=(1, 2)))
