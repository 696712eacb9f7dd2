"""Embeddings of the detected object and attribute classes of the regions of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hmgr_jax.layers.linear import Linear, uniform
from hmgr_jax.shapes import Array, Float


class ClassVectors(nn.Module):
    """A table with a vector per class; row 0 is for regions without a class (id -1)."""

    classes: int
    features: int

    @nn.compact
    def __call__(self, ids: Array) -> Float[Array, "B R E"]:
        """Look up ids [B, R] from -1 to ``classes`` - 1; other ids give NaN."""
        shape = (self.classes + 1, self.features)
        table = self.param("vectors", uniform(0.1), shape, jnp.float32)
        return table.at[ids.astype(jnp.int32) + 1].get(mode="fill", fill_value=jnp.nan)


class ClassEmbedding(nn.Module):
    """[E_object[object]; E_attribute[attribute]] W, with one table per entry of ``classes``."""

    classes: Mapping[str, int]
    """{input: number of classes}; if the input is missing, no region has a class."""
    class_features: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, items: Mapping[str, Array]) -> Float[Array, "B R D"]:
        """The semantic embedding of every region."""
        none = jnp.full(items["regions"].shape[:2], -1, jnp.int32)
        found = [
            ClassVectors(count, self.class_features, name=name)(items.get(name, none))
            for name, count in self.classes.items()
        ]
        out = Linear(self.features, use_bias=False, dtype=self.dtype, name="out")
        return out(jnp.concatenate(found, axis=-1))
