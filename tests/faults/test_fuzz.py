"""Damaged files give the same result, or a refusal in a sentence, in bounded time and memory."""

import json
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
from fuzz import COUNT, fuzz, note
from PIL import Image
from tiny_run import scan_folder

from hmgr_jax.data.features.sets import open_features
from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.captions_files import read_captions
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.files import manifest
from hmgr_jax.files.workdir import write_json_atomic
from hmgr_jax.interop.state_dict import read_weights
from hmgr_jax.preparation.file_store import FileStore
from hmgr_jax.preparation.h5_store import H5Store

sys.path.append(str(Path(__file__).parents[1] / "interop"))
from torch_files import save, save_legacy, tensors

NAMES = [f"i{k}" for k in range(6)]
STATE = {
    "fc.weight": np.arange(300, dtype=np.float32).reshape(20, 15),
    "fc.bias": np.ones(20, np.float32),
}


def _regions(k):
    return np.random.default_rng(k).random((4, 5)).astype(np.float32)


def _all_of(store):
    if missing := [name for name in NAMES if name not in store.ids]:
        raise UserError(f"There are no features of {missing[0]}.")  # as every plan does
    return [store.regions(NAMES), *(store.read(name) for name in NAMES)]


def _items(split):
    every = {m: np.arange(len(source)) for m, source in split.sources.items()}
    return {m: split.sources[m].gather(rows) for m, rows in every.items()}


def scan(root):
    """A folder in SCAN's layout."""
    scan_folder(root / "scan", images=(6, 4, 4))
    vocabulary = Vocabulary.build([["picture", "of", "words"]] * 4)

    def read():
        opened = open_scan(root / "scan", vocabulary=vocabulary)
        return [(split.ids, _items(split)) for split in opened.splits.values()]

    return read


def _prepared(root):
    """A folder in SCAN's layout with a manifest, and how it is read."""
    read = scan(root)
    folder = root / "scan"
    names = [path.name for path in folder.iterdir()]
    write_json_atomic(folder / manifest.MANIFEST, {"files": manifest.listed(folder, names)})
    return folder, read


def prepared_resumed(root):
    """A prepared folder, as a run that resumes compares it."""
    folder, read = _prepared(root)
    before = fingerprint(folder.iterdir(), folder)

    def resumed():
        found = read()
        if fingerprint(folder.iterdir(), folder) != before:
            raise UserError("The data is not the data that this run was trained on.")
        return found

    return resumed


def prepared_verified(root):
    """A prepared folder, checked by prepare --verify and read."""
    folder, read = _prepared(root)
    return lambda: (manifest.verify(folder), read())


def _picture(path, **options):
    pixels = np.add.outer(np.arange(30), np.arange(40))[..., None] * np.array([1, 2, 3])
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    return lambda: np.asarray(load_picture(path))


def picture_jpeg(root):
    """A JPEG."""
    return _picture(root / "a.jpg", quality=90)


def picture_png(root):
    """A PNG."""
    return _picture(root / "a.png")


def picture_webp(root):
    """A WebP."""
    return _picture(root / "a.webp", quality=90)


def npz(root):
    """Features in a .npz an image."""
    for k, name in enumerate(NAMES):
        with (root / f"{name}.npz").open("wb") as file:
            np.savez_compressed(file, x=_regions(k), num_boxes=4, bbox=np.zeros((4, 4), "f4"))
    return lambda: _all_of(FileStore(root, None, with_boxes=False))


def npy(root):
    """Features in a .npy an image."""
    for k, name in enumerate(NAMES):
        np.save(root / f"{name}.npy", _regions(k))
    return lambda: _all_of(FileStore(root, None))


def hdf5_images(root):
    """A dataset an image in HDF5."""
    with h5py.File(root / "x.h5", "w") as file:
        for k, name in enumerate(NAMES):
            file.create_dataset(name, data=_regions(k), compression="gzip" if k % 2 else None)
    return lambda: _all_of(H5Store(root / "x.h5", None))


def hdf5_rows(root):
    """All images in one dataset of HDF5."""
    with h5py.File(root / "x.h5", "w") as file:
        file["features"] = np.stack([_regions(k) for k in range(6)])
        file["ids"], file["num_boxes"] = NAMES, [4] * 6
    return lambda: _all_of(H5Store(root / "x.h5", None))


def _set():
    rng = np.random.default_rng(0)
    sizes = {"tr": 8, "vl": 3, "te": 5}
    found = {f"I_{role}": rng.random((n, 6)) for role, n in sizes.items()}
    found |= {f"T_{role}": rng.random((n, 3)) for role, n in sizes.items()}
    return found | {f"L_{role}": np.arange(n) % 2 for role, n in sizes.items()}


def _open_set(path):
    opened = open_features(path)
    return [(split.labels, _items(split)) for split in opened.splits.values()]


def feature_set_h5(root):
    """A feature set in HDF5."""
    with h5py.File(root / "set.h5", "w") as file:
        for name, array in _set().items():
            file[name] = array
    return lambda: _open_set(root / "set.h5")


def feature_set_mat(root):
    """A feature set in a .mat."""
    scipy.io.savemat(root / "set.mat", _set(), do_compression=True)
    return lambda: _open_set(root / "set.mat")


def feature_set_pkl(root):
    """A feature set in pickles of arrays."""
    for number, (name, array) in enumerate(_set().items()):
        (root / f"{name}.pkl").write_bytes(pickle.dumps(array, number % 4))
    return lambda: _open_set(root)


def _weights(path):
    found = read_weights(path)
    return {name: np.array(x) for name, x in found.state.items()}


def pth(root):
    """Weights as torch.save writes them."""
    save(root / "a.pth", tensors(STATE))
    return lambda: _weights(root / "a.pth")


def pth_legacy(root):
    """Weights as torch.save wrote them before 1.6."""
    save_legacy(root / "a.pth", {"model": tensors(STATE), "epoch": 3})
    return lambda: _weights(root / "a.pth")


def weights_safetensors(root):
    """Weights in safetensors."""
    safetensors.numpy.save_file(STATE, root / "a.safetensors", {"about": "{}"})
    return lambda: _weights(root / "a.safetensors")


def weights_npz(root):
    """Weights in .npz."""
    np.savez(root / "a.npz", **STATE)
    return lambda: _weights(root / "a.npz")


def captions_csv(root):
    """Captions in a CSV."""
    rows = [f'{name}.jpg,"a dog, {k} cats",train' for k, name in enumerate(NAMES)]
    (root / "c.csv").write_text("\n".join(["image,caption,split", *rows]) + "\n")
    return lambda: read_captions([str(root / "c.csv")])[0]


def captions_jsonl(root):
    """Captions in JSON lines."""
    rows = [json.dumps({"image": f"{n}.jpg", "caption": ["a dog runs", "é 猫"]}) for n in NAMES]
    (root / "c.jsonl").write_text("\n".join(rows))
    return lambda: read_captions([str(root / "c.jsonl")])[0]


def _karpathy():
    return {
        "images": [
            {"filename": f"{n}.jpg", "cocoid": k, "split": "train", "sentences": [{"raw": "a dog"}]}
            for k, n in enumerate(NAMES)
        ]
    }


def captions_karpathy(root):
    """Captions in Karpathy's JSON."""
    (root / "c.json").write_text(json.dumps(_karpathy()))
    return lambda: read_captions([str(root / "c.json")])[0]


def vocabulary_json(root):
    """A vocabulary in SCAN's JSON."""
    Vocabulary.build([["a", "dog", "é"]] * 4).save(root / "v.json")
    return lambda: Vocabulary.load(root / "v.json").words


GROUPS = {
    read.__name__: read
    for read in (
        *(scan, prepared_resumed, prepared_verified, picture_jpeg, picture_png, picture_webp),
        *(npy, npz, hdf5_images, hdf5_rows, feature_set_h5, feature_set_mat, feature_set_pkl),
        *(pth, pth_legacy, weights_safetensors, weights_npz),
        *(captions_csv, captions_jsonl, captions_karpathy, vocabulary_json),
    )
}
CHECKED = {"prepared_resumed", "prepared_verified", "npz", "feature_set_mat", "pth", "weights_npz"}
CHECKED |= {"vocabulary_json"}
"""Groups with checksums, or that tell everything twice: no damage gives other values."""
EACH = 63
"""Damages of each group in the slow test."""
SLOW = {"feature_set_mat": 20}
"""Runs that take a process each, and how many times fewer of them there are."""


def _fuzz(name, root, count, seed=0):
    action = GROUPS[name](root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    count = -(-count // SLOW.get(name, 1))
    note(name, fuzz(files, action, values=name not in CHECKED, count=count, seed=seed))


@pytest.mark.parametrize("name", GROUPS)
def test_damaged_data_is_equal_or_refused(name, tmp_path):
    _fuzz(name, tmp_path, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_much_damaged_data_is_equal_or_refused(name, tmp_path):
    _fuzz(name, tmp_path, EACH, seed=1000)
