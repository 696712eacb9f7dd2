"""ModelNet in small, in the layouts in which it is passed on."""

import json

import h5py
import numpy as np
from PIL import Image

from hmgr_jax.data.generated.solids.primitives import ball, box
from hmgr_jax.data.shapes3d.mesh import edge_neighbours, face_features, normalise, sample_points

CLASSES = ("airplane", "bed", "cup")
EACH = {"train": 8, "test": 2}
POINTS = 96


def names(split):
    """``class/object`` in an order that is not that of the classes."""
    first = 1 if split == "train" else 1 + EACH["train"]
    return [f"{kind}/{kind}_{first + k:04d}" for k in range(EACH[split]) for kind in CLASSES]


def mesh_of(name):
    return normalise(ball(1, 6, 4) if name.startswith("bed") else box((1, 2, 3)))


def write_clouds(root, *, ten=False, listed=True):
    """``ply_data_train0.h5`` and so on, or those of ModelNet10."""
    root.mkdir(parents=True)
    for split in ("train", "test"):
        own = names(split)
        labels = np.array([CLASSES.index(name.split("/")[0]) for name in own], np.uint8)
        rng = np.random.default_rng(len(own))
        clouds = np.stack([sample_points(mesh_of(n), POINTS, rng) for n in own])
        half = len(own) // 2
        for k, rows in enumerate((slice(0, half), slice(half, None))):
            stem = f"{split}{k}" if ten else f"ply_data_{split}{k}"
            with h5py.File(root / f"{stem}.h5", "w") as file:
                file["data"], file["label"] = clouds[rows], labels[rows][:, None]
            if listed:
                stem = f"{split}{k}" if ten else f"ply_data_{split}_{k}"
                (root / f"{stem}_id2file.json").write_text(
                    json.dumps([f"{name}.ply" for name in own[rows]])
                )
    return root


def write_views(root, count=12, size=20):
    """View k of an object is grey 10 + 15 k."""
    for name in {*names("train"), *names("test")}:
        (root / name).mkdir(parents=True)
        for k in range(count):
            grey = np.full((size, size), 10 + 15 * k, np.uint8)
            Image.fromarray(grey).save(root / name / f"{name.split('/')[1]}.{k}.png")
    return root


def write_meshes(root, dialect=("face", "neighbor_index")):
    for split in ("train", "test"):
        for name in names(split):
            kind, own = name.split("/")
            path = root / kind / split / f"{own}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            mesh = mesh_of(name)
            arrays = (face_features(mesh), edge_neighbours(mesh.faces))
            np.savez(path, **dict(zip(dialect, arrays, strict=True)))
    return root
