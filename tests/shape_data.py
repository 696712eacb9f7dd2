"""A few objects as pictures, clouds and meshes, drawn without any renderer."""

from dataclasses import dataclass

import numpy as np

from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary

CLASSES, VIEWS, SIDE, POINTS, FACES = 4, 1, 16, 32, 24


@dataclass(frozen=True)
class Rows:
    """Arrays in memory as a source of items."""

    arrays: dict
    lengths: None = None

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def gather(self, items, length=None):
        return {name: x[items] for name, x in self.arrays.items()}


def shapes(rng, classes):
    """{modality: arrays} of an object of each class: a prototype of it, and noise."""
    fixed = np.random.default_rng(7)

    def noisy(*shape, spread):
        kind = fixed.standard_normal((CLASSES, *shape))[classes]
        return np.float32(kind + spread * rng.standard_normal(kind.shape))

    pictures = noisy(VIEWS, SIDE, SIDE, 3, spread=0.5)
    points = noisy(POINTS, 3, spread=0.1) / 2
    faces = noisy(FACES, 15, spread=0.1) / 2
    faces[..., 12:] /= np.linalg.norm(faces[..., 12:], axis=-1, keepdims=True)
    neighbours = fixed.integers(-1, FACES, (CLASSES, FACES, 3))[classes].astype(np.int32)
    return {
        "image": {"views": pictures},
        "point": {"points": points},
        "mesh": {"faces": faces, "neighbours": neighbours},
    }


def open_shapes(train=32, dev=8, test=16):
    """A data set of so many objects a split."""
    splits = {}
    for seed, (name, count) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        rng = np.random.default_rng(seed)
        classes = np.arange(count) % CLASSES
        numbers = np.arange(count, dtype=np.int32)
        sources = {m: Rows(arrays) for m, arrays in shapes(rng, classes).items()}
        labels = np.eye(CLASSES, dtype=np.uint8)[classes]
        splits[name] = Split(
            name=name,
            sources=sources,
            groups=dict.fromkeys(sources, numbers),
            rows=dict.fromkeys(sources, numbers),
            ids=dict.fromkeys(sources, tuple(f"{name}/{k}" for k in numbers)),
            labels=dict.fromkeys(sources, labels),
        )
    return DataSet("shapes", splits, Vocabulary(MARKS), "none")
