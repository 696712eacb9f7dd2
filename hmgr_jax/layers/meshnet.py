"""MeshNet (Feng et al., AAAI 2019): an encoder of the faces of a mesh.

centres [B, F, 3] -> spatial [B, F, 64]
corners relative to the centre [B, F, 9], normals [B, F, 3], neighbours [B, F, 3]
  -> rotate convolution [B, F, 64], kernel correlation [B, F, 64], normals -> structural [B, F, 131]
two mesh convolutions -> spatial [B, F, 256], then 512; structural the same
fusion [B, F, 1024] -> joined [B, F, 1792] -> [B, F, 1024] -> maximum -> [B, D]
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hmgr_jax.layers.batch_norm import BatchNorm, ValidRows
from hmgr_jax.layers.edges import (
    NeighbourMax,
    NormedLinear,
    NormedLinears,
    as_torch,
    gathered,
)
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import largest
from hmgr_jax.shapes import Array, Float, Int

DIRECTIONS = 4
"""Unit vectors per kernel, and faces compared with it: a face and its three neighbours."""
SIGMA = 0.2
"""σ of the kernel correlation."""


class Faces(NamedTuple):
    """The faces of a batch of meshes."""

    centers: Float[Array, "b F 3"]
    corners: Float[Array, "b F 9"]
    """The three corners, relative to the centre."""
    normals: Float[Array, "b F 3"]
    neighbours: Int[Array, "b F 3"]
    """Indices of faces that share an edge, padded to three with the face's own index."""


class FaceRotateConv(nn.Module):
    """One MLP on each of the three pairs of corners, mean over pairs, then a second MLP."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, corners: Float[Array, "b F 9"], rows: ValidRows | None
    ) -> Float[Array, "b F D"]:
        """Convolve; in training batch norm reads one pair of every face at a time."""
        half = self.width // 2
        pair = NormedLinears((half, half), use_bias=True, dtype=self.dtype, name="pair")
        turned = jnp.concatenate([corners, corners[..., :3]], axis=-1)
        found = [pair(turned[..., at : at + 6], rows) for at in (0, 3, 6)]
        sizes = (self.width, self.width)
        fusion = NormedLinears(sizes, use_bias=True, dtype=self.dtype, name="fusion")
        return fusion((found[0] + found[1] + found[2]) / 3.0, rows)


class FaceKernelCorrelation(nn.Module):
    """Similarity of the normals of a face and its neighbours to learned kernel directions."""

    kernels: int

    @nn.compact
    def __call__(self, faces: Faces, rows: ValidRows | None) -> Float[Array, "b F K"]:
        """``exp(-|n - k|² / 2σ²)``, the mean over all pairs of a normal and a direction.

        |n - k|² is |n|² + 1 - 2 n·k, where |n| is 0 for a face without area, which has no normal.
        """
        shape = (self.kernels, DIRECTIONS)
        polar = self.param("polar", nn.initializers.uniform(math.pi), shape, jnp.float32)
        around = self.param("around", nn.initializers.uniform(2 * math.pi), shape, jnp.float32)
        x, y = jnp.sin(polar) * jnp.cos(around), jnp.sin(polar) * jnp.sin(around)
        directions = jnp.stack([x, y, jnp.cos(polar)], axis=-1).reshape(-1, 3)
        normals = faces.normals.reshape(-1, 3)
        squares = jnp.sum(normals * normals, axis=1, keepdims=True)
        far = squares + 1.0 - 2.0 * einsum("nc,kc->nk", normals, directions)
        near = jnp.exp(-jnp.maximum(far, 0.0) / (2.0 * SIGMA**2))
        of_face = jnp.sum(near.reshape(-1, *shape), axis=2)
        of_face = of_face.reshape(*faces.normals.shape[:2], self.kernels)
        # Each normal is compared once; neighbouring faces look up the result.
        total = of_face + jnp.sum(gathered(of_face, faces.neighbours), axis=2)
        return jax.nn.relu(BatchNorm(name="norm")(total / DIRECTIONS**2, rows))


class MeshConv(nn.Module):
    """Combines spatial and structural vectors; gathers structural ones from neighbours."""

    spatial: int
    """Size of the spatial output."""
    structural: int
    """Size of the structural output."""
    gathering: int
    """Size of the vectors gathered from neighbours."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        spatial: Float[Array, "b F S"],
        structural: Float[Array, "b F T"],
        neighbours: Int[Array, "b F 3"],
        rows: ValidRows | None,
    ) -> tuple[Float[Array, "b F V"], Float[Array, "b F W"]]:
        """The spatial and the structural vectors after the convolution."""
        both = jnp.concatenate([spatial, structural], axis=-1)
        combine = NormedLinear(self.spatial, use_bias=True, dtype=self.dtype, name="combine")
        size = structural.shape[-1]
        kernel = self.param("kernel", as_torch, (2 * size, self.gathering), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.gathering,), jnp.float32)
        sides = jnp.concatenate([kernel[size:], kernel[:size]], axis=1)
        flat = einsum("nc,cd->nd", structural.reshape(-1, size), sides, dtype=self.dtype)
        other, own = jnp.split(flat.reshape(*structural.shape[:2], -1), 2, axis=-1)
        own = own + bias[None, None, :]
        found = NeighbourMax(name="edges")(other, own, neighbours, rows)
        aggregate = NormedLinear(self.structural, use_bias=True, dtype=self.dtype, name="aggregate")
        return combine(both, rows), aggregate(found, rows)


class MeshNet(nn.Module):
    """The encoder, to vectors of length ``features``."""

    features: int = 512
    width: int = 64
    """Channels of the descriptors; those of later layers are multiples."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, faces: Faces, rows: ValidRows | None) -> Float[Array, "b D"]:
        """Encode; the result does not depend on the order of faces."""
        w, dtype = self.width, self.dtype
        spatial = NormedLinears((w, w), True, dtype, name="spatial")(faces.centers, rows)
        rotated = FaceRotateConv(w, dtype, name="rotate")(faces.corners, rows)
        correlated = FaceKernelCorrelation(w, name="correlate")(faces, rows)
        joined = jnp.concatenate([rotated, correlated, faces.normals], axis=-1)
        size = joined.shape[-1]
        structural = NormedLinears((size, size), True, dtype, name="structural")(joined, rows)
        first = MeshConv(4 * w, 4 * w, size, dtype, name="conv1")
        near, structural = first(spatial, structural, faces.neighbours, rows)
        second = MeshConv(8 * w, 8 * w, 4 * w, dtype, name="conv2")
        far, structural = second(near, structural, faces.neighbours, rows)
        both = jnp.concatenate([far, structural], axis=-1)
        fused = NormedLinear(16 * w, True, dtype=dtype, name="fusion")(both, rows)
        every = jnp.concatenate([near, far, fused], axis=-1)
        every = NormedLinear(16 * w, True, dtype=dtype, name="join")(every, rows)
        whole = largest(every)
        return NormedLinear(self.features, dtype=dtype, name="out")(whole, rows)
