"""Rendered views of an object as one vector: a ResNet whose views share all layers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import Rows
from hmgr_jax.layers.normed import NormedLinear
from hmgr_jax.layers.resnet import ResNet
from hmgr_jax.shapes import Array, Float


class Views(nn.Module):
    """The mean over an object's views of ``ReLU(BN(CNN(view) W))``."""

    features: int = 512
    cnn: str = "resnet18"
    width: int = 64
    small_stem: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, views: Float[Array, "b V H W 3"], rows: Rows | None) -> Float[Array, "b D"]:
        """Encode; with ``rows`` (training) the norms see one view of every object after the other.

        So they do in the released code, which calls the network once for every view.
        """
        cnn = ResNet(self.cnn, self.width, self.small_stem, self.dtype, name="cnn")
        out = NormedLinear(self.features, dtype=self.dtype, name="out")
        count = views.shape[1]
        if rows is None:
            maps = cnn(views.reshape(-1, *views.shape[2:]), None)
            vectors = out(jnp.mean(maps, axis=(1, 2)), None)
            return jnp.mean(vectors.reshape(len(views), count, -1), axis=1)
        pooled = [jnp.mean(cnn(views[:, k], rows), axis=(1, 2)) for k in range(count)]
        found = [out(x, rows) for x in pooled]
        return sum(found[1:], start=found[0]) / count
