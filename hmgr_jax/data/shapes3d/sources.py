"""The modalities of 3D objects as sources of the input pipeline: views, point clouds, meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from hmgr_jax.data.draws import FACES, POINTS, VIEWS, Draws
from hmgr_jax.data.shapes3d.augment import TRAINED, Shaping
from hmgr_jax.data.shapes3d.render import spread_views
from hmgr_jax.data.split import Items, Source, Split
from hmgr_jax.errors import UserError

MODALITIES = ("image", "point", "mesh")


class Objects(Protocol):
    """Objects of one split, each perhaps with views, a point cloud and a mesh."""

    modalities: tuple[str, ...]
    """`MODALITIES` of every object."""

    def __len__(self) -> int: ...

    def views(self, number: int) -> int:
        """Number of views of an object, in order around it."""
        ...

    def view(self, number: int, k: int) -> Image.Image:
        """Load a view, grey or in colour; ``UserError`` names an unreadable file."""
        ...

    def points(self, number: int) -> np.ndarray:
        """Points on the surface, float32 [n, 3], in random order, y up, in the unit ball."""
        ...

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [F, 15] and neighbours int32 [F, 3] of the faces (`shapes3d.mesh`)."""
        ...


Generator = np.random.Generator


class ObjectSource:
    """Base of the modalities: objects by index, read one by one."""

    lengths: np.ndarray | None = None

    def __init__(self, objects: Objects, shaping: Shaping) -> None:
        self.objects, self.shaping = objects, shaping

    def __len__(self) -> int:
        return len(self.objects)


class ViewSource(ObjectSource):
    """Items ``{"views": float32 [k, V, S, S, 3]}``, normalised.

    At evaluation V views spread around the object, in training two different ones (the same twice
    if there is only one).
    """

    @property
    def item_bytes(self) -> int:
        """Bytes of one item, by which prefetching is limited."""
        return self.shaping.views * self.shaping.image_size**2 * 3 * 4

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Centre crops of spread views; ``UserError`` if there are too few."""
        wanted = self.shaping.views

        def chosen(number: int, k: int) -> np.ndarray:
            found = self.objects.views(number)
            if found < wanted:
                raise UserError(
                    f"An object has {found} views where data.objects.views is {wanted}: lower it "
                    "(1, 2 or 4) and model.views_test, or render more."
                )
            places = spread_views(found, wanted).tolist()
            pictures = [self.shaping.picture(self.objects.view(number, p)) for p in places]
            return np.stack(pictures)

        return self._made(items, chosen)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Two random views, augmented."""

        def chosen(number: int, k: int) -> np.ndarray:
            rng, views = draws.generator(VIEWS, k), self.objects.views(number)
            first, step = int(rng.integers(views)), int(rng.integers(1, max(views, 2)))
            places = [(first + step * i) % views for i in range(TRAINED)]
            stream = rng if self.shaping.augment else None
            pictures = [self.shaping.picture(self.objects.view(number, p), stream) for p in places]
            return np.stack(pictures)

        return self._made(items, chosen)

    def _made(self, items: np.ndarray, make: Callable[[int, int], np.ndarray]) -> Items:
        numbers = np.asarray(items, np.int64).reshape(-1).tolist()
        return {"views": self.shaping.pixels(np.stack([make(n, k) for k, n in enumerate(numbers)]))}


class CloudSource(ObjectSource):
    """Items ``{"points": float32 [k, P, 3]}``: the first P points, in training random ones."""

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Stored points; ``UserError`` if there are too few."""
        return self._made(items, None)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Random points, augmented."""
        return self._made(items, draws)

    def _made(self, items: np.ndarray, draws: Draws | None) -> Items:
        numbers = np.asarray(items, np.int64).reshape(-1).tolist()
        streams = [draws.generator(POINTS, k) if draws else None for k in range(len(numbers))]
        clouds = [self.objects.points(n) for n in numbers]
        fewest = min((len(points) for points in clouds), default=self.shaping.points)
        if fewest < self.shaping.points:
            raise UserError(
                f"A cloud has {fewest} points where data.points is {self.shaping.points}: lower "
                "it, or prepare the clouds with more (--points)."
            )
        shaped = [self.shaping.cloud(x, rng) for x, rng in zip(clouds, streams, strict=True)]
        return {"points": np.stack(shaped)}


class MeshSource(ObjectSource):
    """Items ``{"faces": float32 [k, F, 15], "neighbours": int32 [k, F, 3]}``.

    Corners are absolute; a model makes them relative to the centres, which are jittered with them.
    At evaluation the repeated faces are always the same. Raises ``UserError`` if a mesh has more
    than F faces.
    """

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """Stored faces."""
        return self._made(items, lambda number, k: np.random.default_rng([FACES, number]), False)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Jittered faces."""
        return self._made(items, lambda number, k: draws.generator(FACES, k), True)

    def _made(
        self, items: np.ndarray, stream: Callable[[int, int], Generator], train: bool
    ) -> Items:
        numbers = np.asarray(items, np.int64).reshape(-1).tolist()
        made = [self._one(number, stream(number, k), train) for k, number in enumerate(numbers)]
        return {
            "faces": np.stack([features for features, _ in made]),
            "neighbours": np.stack([neighbours for _, neighbours in made]),
        }

    def _one(self, number: int, rng: Generator, train: bool) -> tuple[np.ndarray, np.ndarray]:
        faces = self.objects.faces(number)
        if len(faces[0]) > self.shaping.faces:
            raise UserError(
                f"A mesh has {len(faces[0])} faces where data.faces is {self.shaping.faces}: raise "
                "it, or prepare the meshes with fewer (--faces)."
            )
        return self.shaping.mesh(faces, rng, train=train)


SOURCES: dict[str, type[ViewSource] | type[CloudSource] | type[MeshSource]] = {
    "image": ViewSource,
    "point": CloudSource,
    "mesh": MeshSource,
}


def object_split(
    name: str,
    objects: Objects,
    ids: Sequence[str],
    classes: np.ndarray,
    count: int,
    shaping: Shaping,
) -> Split:
    """Make a split with all modalities of the objects, a row per object labelled by its class.

    Args:
        name: train, dev or test.
        objects: of the split.
        ids: ``class/name`` of each.
        classes: int [n], class of each.
        count: number of classes in all splits.
        shaping: sizes and augmentation.
    """
    number = np.arange(len(objects), dtype=np.int32)
    labels = np.eye(count, dtype=np.uint8)[np.asarray(classes, np.int64)]
    sources: dict[str, Source] = {m: SOURCES[m](objects, shaping) for m in objects.modalities}
    return Split(
        name=name,
        sources=sources,
        groups=dict.fromkeys(sources, number),
        rows=dict.fromkeys(sources, number),
        ids=dict.fromkeys(sources, tuple(ids)),
        labels=dict.fromkeys(sources, labels),
    )
