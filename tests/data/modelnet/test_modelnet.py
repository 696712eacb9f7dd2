"""ModelNet in the layouts that people have: joined by name, damage named, parts left out."""

import dataclasses
import hashlib
import json

import h5py
import numpy as np
import pytest
from modelnet_files import (
    CLASSES,
    POINTS,
    mesh_of,
    names,
    write_clouds,
    write_meshes,
    write_views,
)

from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.shapes3d.augment import Shaping
from hmgr_jax.data.shapes3d.mesh import face_features
from hmgr_jax.data.shapes3d.modelnet.joining import Folders
from hmgr_jax.data.shapes3d.modelnet.open import open_modelnet
from hmgr_jax.data.shapes3d.modelnet.prepared import object_file
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import listed

SMALL = Shaping(image_size=8, crop=16, points=32, faces=64, views=3)
WHERE = Folders(dev=0.25)


@pytest.fixture
def root(tmp_path):
    write_clouds(tmp_path / "modelnet40_ply_hdf5_2048")
    write_views(tmp_path / "ModelNet40-Images-180")
    write_meshes(tmp_path / "ModelNet40_Mesh")
    return tmp_path


def _opened(root, where=WHERE, **options):
    return open_modelnet(root, SMALL, where, **options)


def test_parts_are_joined_by_name(root):
    data = _opened(root)
    assert {role: len(split) for role, split in data.splits.items()} == {
        "train": 18, "dev": 6, "test": 6,
    }  # fmt: skip
    train, test = data.splits["train"], data.splits["test"]
    assert set(train.sources) == {"image", "point", "mesh"}
    assert list(test.ids["point"]) == names("test")
    of_train = {*train.ids["image"], *data.splits["dev"].ids["image"]}
    assert of_train == set(names("train"))
    for split in data.splits.values():
        kinds = [CLASSES[k] for k in split.labels["mesh"].argmax(1)]
        assert kinds == [name.split("/")[0] for name in split.ids["mesh"]]
        assert split.labels["image"].shape == (len(split), 3)
    dev = [name.split("/")[0] for name in data.splits["dev"].ids["point"]]
    assert sorted(dev) == sorted(2 * CLASSES)
    faces = train.sources["mesh"].gather(np.arange(18))["faces"]
    for name, found in zip(train.ids["mesh"], faces, strict=True):
        wanted = face_features(mesh_of(name))
        np.testing.assert_array_equal(found[: len(wanted)], wanted)


def test_views_are_spread_in_the_order_of_their_numbers(root):
    views = _opened(root).splits["test"].sources["image"].gather(np.array([4]))["views"]
    assert views.shape == (1, 3, 8, 8, 3)
    grey = (views * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])) * 255
    wanted = np.array([10, 10 + 15 * 4, 10 + 15 * 8]).reshape(1, 3, 1, 1, 1)
    np.testing.assert_allclose(grey, np.broadcast_to(wanted, grey.shape), atol=0.01)


def test_too_few_views_or_points_are_not_repeated(root):
    shaping = dataclasses.replace(SMALL, views=13, points=POINTS + 1)
    test = open_modelnet(root, shaping, WHERE, ["test"]).splits["test"]
    with pytest.raises(UserError, match=r"has 12 views where data\.objects\.views is 13"):
        test.sources["image"].gather(np.array([0]))
    with pytest.raises(UserError, match=rf"has {POINTS} points where data\.points is {POINTS + 1}"):
        test.sources["point"].gather(np.array([0]))


def test_an_object_whose_folder_of_views_is_empty_lacks_a_part(root):
    lacking = names("test")[4]
    for view in (root / "ModelNet40-Images-180" / lacking).iterdir():
        view.unlink()
    with pytest.warns(RuntimeWarning, match=rf"1 of 6 objects of test .*: {lacking}$"):
        data = _opened(root, Folders(dev=0.25, corrupt="skip"))
    assert lacking not in data.splits["test"].ids["image"]


def test_a_batch_for_training(root):
    train = _opened(root).splits["train"]
    batch = next(iter(batches(train, batch_size=6, seed=0, steps=1)))
    views = batch["image"]["views"]
    assert views.shape == (6, 2, 8, 8, 3)
    assert batch["point"]["points"].shape == (6, 32, 3)
    assert batch["mesh"]["neighbours"].shape == (6, 64, 3)
    assert (views[:, 0] != views[:, 1]).any(axis=(1, 2, 3)).all()


def test_modelnet10_and_the_other_dialect(root, tmp_path):
    other = tmp_path / "ten"
    write_clouds(other / "modelnet10_hdf5_2048", ten=True)
    write_meshes(other / "ModelNet10_Mesh", ("faces", "neighbors"))
    found, wanted = _opened(other), _opened(root)
    assert set(found.splits["test"].sources) == {"point", "mesh"}
    for role, split in found.splits.items():
        assert split.ids["mesh"] == wanted.splits[role].ids["mesh"]
        items = np.arange(len(split))
        for modality in ("point", "mesh"):
            got, want = (s.sources[modality].gather(items) for s in (split, wanted.splits[role]))
            for key, values in want.items():
                np.testing.assert_array_equal(got[key], values)
    assert found.fingerprint != wanted.fingerprint


def test_clouds_alone_and_meshes_alone(tmp_path):
    only = _opened(write_clouds(tmp_path / "only", listed=False))
    assert set(only.splits["train"].sources) == {"point"}
    assert only.splits["test"].ids["point"][:2] == ("0/test_00000", "1/test_00001")
    meshes = write_meshes(tmp_path / "m" / "ModelNet40_Mesh").parent
    found = _opened(meshes).splits["test"]
    assert set(found.sources) == {"mesh"}
    assert set(found.ids["mesh"]) == set(names("test"))
    assert [CLASSES[k] for k in found.labels["mesh"].argmax(1)] == [
        name.split("/")[0] for name in found.ids["mesh"]
    ]


def test_objects_that_lack_a_part(root):
    lacking = names("test")[4]
    (root / f"ModelNet40_Mesh/bed/test/{lacking.split('/')[1]}.npz").unlink()
    with pytest.raises(UserError, match=rf"no mesh of {lacking} \(1 of the 6 .* of test"):
        _opened(root)
    with pytest.warns(RuntimeWarning, match=rf"1 of 6 objects of test .*: {lacking}$"):
        data = _opened(root, Folders(dev=0.25, corrupt="skip"))
    left = [name for name in names("test") if name != lacking]
    assert list(data.splits["test"].ids["point"]) == left
    clouds = root / "modelnet40_ply_hdf5_2048"
    all_of = open_modelnet(clouds, SMALL, WHERE, ["test"]).splits["test"]
    np.testing.assert_array_equal(
        data.splits["test"].sources["point"].gather(np.array([4]))["points"],
        all_of.sources["point"].gather(np.array([5]))["points"],
    )


def _spoil(path, arrays):
    with h5py.File(path, "r") as file:
        kept = {name: file[name][()] for name in file}
    path.unlink()
    with h5py.File(path, "w") as file:
        for name, values in {**kept, **arrays}.items():
            if values is not None:
                file[name] = values


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"data": np.full((3, POINTS, 3), np.nan)}, "row 0 holds NaN"),
        ({"data": np.ones((3, POINTS, 2))}, r"has data \[3, 96, 2\]"),
        ({"label": np.zeros(2)}, r"label \[2\]"),
        ({"label": None}, "no data and label of clouds"),
        ({"label": np.array([2, 1, 0])}, "for other objects of"),
        ({"data": np.ones((3, 9, 3), np.float32)}, r"clouds of \[9, 96\] points"),
    ],
)
def test_spoilt_clouds(root, spoilt, said):
    _spoil(root / "modelnet40_ply_hdf5_2048/ply_data_test1.h5", spoilt)
    with pytest.raises(UserError, match=said):
        _opened(root)


def test_classes_that_share_a_label_are_not_one(root):
    folder = root / "modelnet40_ply_hdf5_2048"
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            labels = file["label"][()]
        _spoil(path, {"label": np.minimum(labels, 1)})
    with pytest.raises(UserError, match="same label for several of"):
        _opened(root)


def test_missing_and_damaged_files_are_named(root, tmp_path):
    clouds = root / "modelnet40_ply_hdf5_2048"
    list_file = clouds / "ply_data_train_1_id2file.json"
    text = list_file.read_text()
    list_file.write_text(json.dumps(json.loads(text)[1:]))
    with pytest.raises(UserError, match=r"names 11 objects but ply_data_train1\.h5 has 12"):
        _opened(root)
    list_file.unlink()
    with pytest.raises(UserError, match=r"lacks id2file\.json files of train"):
        _opened(root)
    list_file.write_text(text)
    (clouds / "ply_data_test0.h5").write_bytes(b"no")
    with pytest.raises(UserError, match=r"ply_data_test0\.h5 cannot be read as HDF5"):
        _opened(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds neither"):
        _opened(tmp_path / "empty")
    (tmp_path / "raw/bed/train").mkdir(parents=True)
    (tmp_path / "raw/bed/train/bed_0001.off").write_text("OFF")
    with pytest.raises(UserError, match=r"holds OFF files.*prepare modelnet --source"):
        _opened(tmp_path / "raw")
    with pytest.raises(UserError, match="There is no folder"):
        _opened(tmp_path / "none")
    with pytest.raises(UserError, match=r"which data\.objects\.meshes names"):
        _opened(root, Folders(meshes="nowhere"))
    (root / "Other_Mesh").mkdir()
    with pytest.raises(
        UserError, match=r"ModelNet40_Mesh and Other_Mesh: name one of them as data\.objects"
    ):
        _opened(root)
    with pytest.raises(UserError, match=r"data\.objects\.dev must be .* got 1\.5"):
        _opened(root, Folders(dev=1.5))


ROWS = np.zeros((4, 3), int)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"vertices": ROWS}, "holds vertices where face and neighbor_index"),
        ({"face": np.zeros((4, 15)), "neighbor_index": ROWS[:3]}, r"neighbours \[3, 3\]"),
        ({"face": np.full((4, 15), np.inf), "neighbor_index": ROWS}, "NaN or inf"),
        ({"face": np.zeros((4, 15)), "neighbor_index": ROWS + 4}, "names neighbour 4"),
        ({"face": np.zeros((99, 15)), "neighbor_index": np.zeros((99, 3), int)}, "has 99 faces"),
        (None, "cannot be read as .npy or .npz"),
    ],
)
def test_spoilt_meshes_and_views(root, arrays, said):
    name = names("test")[0]
    path = root / f"ModelNet40_Mesh/airplane/test/{name.split('/')[1]}.npz"
    path.write_bytes(b"PK no") if arrays is None else np.savez(path, **arrays)
    test = _opened(root).splits["test"]
    with pytest.raises(UserError, match=said):
        test.sources["mesh"].gather(np.array([0]))
    view = next((root / "ModelNet40-Images-180" / name).glob("*.4.png"))
    view.write_bytes(view.read_bytes()[:40])
    with pytest.raises(UserError, match=view.name):
        test.sources["image"].gather(np.array([0]))


@pytest.fixture
def prepared(tmp_path):
    """A prepared folder of objects that opening does not read."""
    objects = {split: names(split) for split in ("train", "test")}
    files = [object_file(tmp_path, split, name) for split, of in objects.items() for name in of]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    found = listed(tmp_path, [path.relative_to(tmp_path).as_posix() for path in files])
    described = {"classes": CLASSES, "views": 3, "objects": objects, "files": found}
    (tmp_path / "manifest.json").write_text(json.dumps(described))
    return tmp_path, files


def test_a_replaced_object_of_a_prepared_folder_changes_the_fingerprint(prepared):
    root, files = prepared
    plain = _opened(root).fingerprint
    assert plain == hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    files[3].write_bytes(files[3].read_bytes()[::-1])
    assert _opened(root).fingerprint != plain


def test_an_object_that_the_manifest_lists_and_is_gone_is_refused(prepared):
    root, files = prepared
    files[-1].unlink()
    with pytest.raises(UserError, match=rf"lacks 1 of the 6 objects of test .*{files[-1].name}"):
        _opened(root)
