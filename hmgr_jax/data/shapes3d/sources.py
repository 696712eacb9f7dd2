"""The three modalities of objects as sources of the input pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from hmgr_jax.data.draws import FACES, POINTS, VIEWS, Draws
from hmgr_jax.data.shapes3d.augment import TRAINED, Shaping
from hmgr_jax.data.shapes3d.render import spread
from hmgr_jax.data.split import Items, Source, Split
from hmgr_jax.errors import UserError

MODALITIES = ("image", "point", "mesh")


class Objects(Protocol):
    """Objects of one split; each may have pictures, a point cloud and a mesh."""

    modalities: tuple[str, ...]
    """Those of `MODALITIES` that every object has."""

    def __len__(self) -> int: ...

    def views(self, number: int) -> int:
        """How many pictures there are of an object, taken around it in this order."""
        ...

    def view(self, number: int, k: int) -> Image.Image:
        """One of them, grey or in colours; ``UserError`` names one that cannot be read."""
        ...

    def points(self, number: int) -> np.ndarray:
        """Points on its surface, float32 [n, 3], in random order, y up, in the unit ball."""
        ...

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [F, 15] and neighbours int32 [F, 3] of its faces.

        See `hmgr_jax.data.shapes3d.mesh`.
        """
        ...


class ChosenObjects:
    """Some of the objects, in another order."""

    def __init__(self, objects: Objects, chosen: np.ndarray) -> None:
        self._objects, self._chosen = objects, np.asarray(chosen, np.int64)
        self.modalities = objects.modalities

    def __len__(self) -> int:
        return len(self._chosen)

    def views(self, number: int) -> int:
        """As of the object that is meant."""
        return self._objects.views(int(self._chosen[number]))

    def view(self, number: int, k: int) -> Image.Image:
        """As of the object that is meant."""
        return self._objects.view(int(self._chosen[number]), k)

    def points(self, number: int) -> np.ndarray:
        """As of the object that is meant."""
        return self._objects.points(int(self._chosen[number]))

    def faces(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """As of the object that is meant."""
        return self._objects.faces(int(self._chosen[number]))


Generator = np.random.Generator


class ObjectSource:
    """What the modalities have in common: objects by number, each read for itself."""

    lengths: np.ndarray | None = None

    def __init__(self, objects: Objects, shaping: Shaping) -> None:
        self.objects, self.shaping = objects, shaping

    def __len__(self) -> int:
        return len(self.objects)


class ViewSource(ObjectSource):
    """Items ``{"views": float32 [k, V, S, S, 3]}``, normalised.

    At evaluation they are V views spread around the object, in training two different ones (the
    same twice where there is only one).
    """

    @property
    def item_bytes(self) -> int:
        """Size of one item: batches of pictures are large, so fewer are read ahead."""
        return self.shaping.views * self.shaping.image_size**2 * 3 * 4

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The middle of views that are spread around; ``UserError`` where there are too few."""
        wanted = self.shaping.views

        def chosen(number: int, k: int) -> np.ndarray:
            found = self.objects.views(number)
            if found < wanted:
                raise UserError(
                    f"An object has {found} views where data.objects.views is {wanted}: lower it "
                    "(1, 2 or 4) and model.views_test, or render more."
                )
            places = spread(found, wanted).tolist()
            pictures = [self.shaping.picture(self.objects.view(number, p)) for p in places]
            return np.stack(pictures)

        return self._made(items, chosen)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Two views as the seed, the step and the row say."""

        def chosen(number: int, k: int) -> np.ndarray:
            rng, views = draws.generator(VIEWS, k), self.objects.views(number)
            first, step = int(rng.integers(views)), int(rng.integers(1, max(views, 2)))
            places = [(first + step * i) % views for i in range(TRAINED)]
            stream = rng if self.shaping.augment else None
            return np.stack([self.shaping.picture(self.objects.view(number, p), stream)
                             for p in places])  # fmt: skip

        return self._made(items, chosen)

    def _made(self, items: np.ndarray, make: Callable[[int, int], np.ndarray]) -> Items:
        numbers = np.asarray(items, np.int64).reshape(-1).tolist()
        return {"views": self.shaping.pixels(np.stack([make(n, k) for k, n in enumerate(numbers)]))}


class CloudSource(ObjectSource):
    """Items ``{"points": float32 [k, P, 3]}``: the first P points, in training P drawn ones."""

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """As stored; ``UserError`` where there are too few."""
        return self._made(items, None)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Drawn, scaled, turned and trembling as the seed, the step and the row say."""
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

    Corners are absolute; a model makes them relative to the centres, which tremble in training as
    they do. At evaluation it is always the same faces that are repeated. Raises ``UserError`` where
    a mesh has more than F faces.
    """

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """As stored."""
        return self._made(items, lambda number, k: np.random.default_rng([FACES, number]), False)

    def draw(self, items: np.ndarray, draws: Draws, length: int | None = None) -> Items:
        """Trembling as the seed, the step and the row say."""
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
    """A split of all modalities that the objects have.

    Args:
        name: train, dev or test.
        objects: where they are read from.
        ids: ``class/name`` of each.
        classes: int [n], which of the classes each belongs to.
        count: how many classes there are in all splits.
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
