"""ResNets (He et al., CVPR 2016) in torchvision's form, up to the last feature map.

Images are [B, H, W, 3]. Parameter names follow torchvision (``layer1/block0/conv1`` is
layer1.0.conv1); `hmgr_jax.interop.resnet` maps its weights and timm's. Bottleneck blocks stride in
their 3x3 convolution.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, ValidRows
from hmgr_jax.shapes import Array, Float

KINDS: dict[str, tuple[bool, tuple[int, ...]]] = {
    "resnet10": (False, (1, 1, 1, 1)),
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
}
"""{name: (whether blocks are bottlenecks, blocks per stage)}; resnet10 is not in torchvision."""
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


def parts_within(path: str) -> dict[str, tuple[str, ...]]:
    """{stage: paths of its parameters} of a network at ``path``, to freeze stages by name."""
    stages = {name: (f"{path}/{name}",) for name in STAGES[1:]}
    return {"stem": (f"{path}/conv1", f"{path}/bn1"), **stages}


def channels(kind: str, width: int = 64) -> int:
    """Channels of the last feature map."""
    return width * 8 * (4 if KINDS[kind][0] else 1)


class Conv(nn.Module):
    """A square convolution without bias.

    With bfloat16 the result is rounded to bfloat16 after float32 accumulation.
    """

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32
    same: bool = False
    """Padded as TensorFlow's ``SAME`` instead of by half its size, as in PyTorch."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w features"]:
        """Convolve."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, jnp.float32)
        pad = (self.size - 1) // 2
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            "SAME" if self.same else ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None,
        )


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or a 3x3 between two 1x1 convolutions."""

    features: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], rows: ValidRows | None
    ) -> Float[Array, "B h w D"]:
        """Apply the block."""
        if self.bottleneck:
            layers = [(1, 1, self.features), (3, self.stride, self.features)]
            layers.append((1, 1, 4 * self.features))
        else:
            layers = [(3, self.stride, self.features), (3, 1, self.features)]
        out, y = layers[-1][2], x
        for number, (size, stride, features) in enumerate(layers, start=1):
            y = jax.nn.relu(y) if number > 1 else y
            y = Conv(features, size, stride, self.dtype, name=f"conv{number}")(y)
            y = BatchNorm(name=f"bn{number}")(y, rows)
        if self.stride > 1 or x.shape[-1] != out:
            x = Conv(out, 1, self.stride, self.dtype, name="downsample_conv")(x)
            x = BatchNorm(name="downsample_bn")(x, rows)
        return jax.nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width; the first one strides."""

    blocks: int
    features: int
    stride: int
    bottleneck: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], rows: ValidRows | None
    ) -> Float[Array, "B h w D"]:
        """Apply the blocks."""
        for number in range(self.blocks):
            stride = 1 if number else self.stride
            block = Block(self.features, stride, self.bottleneck, self.dtype, name=f"block{number}")
            x = block(x, rows)
        return x


class ResNet(nn.Module):
    """A ResNet without its classifier."""

    kind: str = "resnet50"
    width: int = 64
    """Channels of the stem."""
    small_stem: bool = False
    """A 3x3 convolution instead of the 7x7 one and the pool, for images below 100 pixels."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], rows: ValidRows | None
    ) -> Float[Array, "B h w C"]:
        """The last feature map, 1/32 of the image's height (1/16 with a small stem).

        With ``rows`` (training) batch norm uses and updates batch statistics; without, it uses the
        running statistics.
        """
        bottleneck, blocks = KINDS[self.kind]
        if rows is not None:  # invalid rows must be finite
            x = jnp.where(rows.valid[:, None, None, None], x, 0.0)
        size = 3 if self.small_stem else 7
        x = Conv(self.width, size, 2, self.dtype, name="conv1")(x)
        x = jax.nn.relu(BatchNorm(name="bn1")(x, rows))
        if not self.small_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for number, count in enumerate(blocks):
            features, stride = self.width * 2**number, 2 if number else 1
            name = STAGES[number + 1]
            x = Stage(count, features, stride, bottleneck, self.dtype, name=name)(x, rows)
        return x
