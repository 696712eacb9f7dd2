"""Augmentation of 3D objects: random crops, scales, rotations and jitter.

As in the training of the cross-modal center loss (Jing et al., CVPR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.pixels import MEAN, STD
from hmgr_jax.data.pictures.preprocessing import normalise_pixels
from hmgr_jax.data.shapes3d.mesh import JITTERED, fill_faces
from hmgr_jax.errors import UserError

SCALES, SHIFT = (2 / 3, 3 / 2), 0.2
"""Range of scales and shifts of a cloud, along each axis."""
JITTER, CLOUD_MOST, MESH_MOST = 0.01, 0.02, 0.05
"""Standard deviation and limits of the noise that is added to coordinates."""
TRAINED = 2
"""Views of an object in training."""


@dataclass(frozen=True)
class Shaping:
    """Sizes of the inputs of a network, and whether training augments them.

    Raises ``UserError`` for values out of range.
    """

    image_size: int = 112
    """Pixels per side."""
    points: int = 1024
    faces: int = 1024
    views: int = 4
    """Per object at evaluation; in training two random ones."""
    crop: int = 224
    """Pixels per side of the part of a view that is scaled to ``image_size``: the centre at
    evaluation, a random part in training."""
    flip: float = 0.5
    augment: bool = True
    """False: training uses unflipped centre crops, and clouds and meshes as stored."""
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        for name in ("image_size", "points", "faces"):
            _check_positive(f"data.{name}", getattr(self, name))
        for name in ("views", "crop"):
            _check_positive(f"data.objects.{name}", getattr(self, name))
        if not 0 <= self.flip <= 1:
            raise UserError(
                f"data.objects.flip must be a probability from 0 to 1, got {self.flip}: correct it."
            )

    def picture(self, view: Image.Image, rng: np.random.Generator | None = None) -> np.ndarray:
        """Crop a view at random or, without ``rng``, at its centre: uint8 [S, S, 3]."""
        width, height = view.size
        across, down = min(self.crop, width), min(self.crop, height)
        free = (width - across, height - down)
        flipped = False
        if rng is None:
            left, top = (round(x / 2) for x in free)
        else:
            left, top = (int(x * (room + 1)) for x, room in zip(rng.random(2), free, strict=True))
            flipped = bool(rng.random() < self.flip)
        box = (left, top, left + across, top + down)
        size = (self.image_size, self.image_size)
        found = np.asarray(view.resize(size, Image.Resampling.BILINEAR, box=box).convert("RGB"))
        return found[:, ::-1] if flipped else found

    def pixels(self, pictures: np.ndarray) -> np.ndarray:
        """Normalise uint8 [..., S, S, 3] to float32."""
        return normalise_pixels(pictures, self.mean, self.std)

    def cloud(self, points: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """float32 [P, 3]: the first points or, with ``rng``, random ones, augmented."""
        if rng is None:
            return points[: self.points]
        found = points[rng.integers(len(points), size=self.points)]
        return _augmented(found, rng) if self.augment else found

    def mesh(
        self, faces: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, *, train: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [F, 15] and neighbours int32 [F, 3] of F faces."""
        features, neighbours = fill_faces(*faces, self.faces, rng)
        if train and self.augment:
            features = features.copy()
            features[:, :JITTERED] += _jitter(rng, (len(features), JITTERED), MESH_MOST)
        return features.astype(np.float32), neighbours.astype(np.int32)


def _augmented(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scales, shifts = rng.uniform(*SCALES, (1, 3)), rng.uniform(-SHIFT, SHIFT, (1, 3))
    angle = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    about_y = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    # A sum of products: BLAS starts threads for a product this thin.
    moved = np.einsum("nd,ed->ne", points * scales + shifts, about_y)
    return (moved + _jitter(rng, points.shape, CLOUD_MOST)).astype(np.float32)


def _jitter(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> np.ndarray:
    found = rng.standard_normal(shape, np.float32) * np.float32(JITTER)
    return np.clip(found, -most, most)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}: correct it.")
