"""Generated solids in three modalities, made on the spot or kept in a folder; their pipeline."""

import pickle

import numpy as np
import pytest

from hmgr_jax.data.generated.solids import CLASSES
from hmgr_jax.data.generated.solids.open import Solids, open_solids
from hmgr_jax.data.pipeline import batches, eval_batches
from hmgr_jax.data.shapes3d.augment import CLOUD_MOST, MESH_MOST, SCALES, SHIFT, Shaping
from hmgr_jax.data.split import Varied
from hmgr_jax.errors import UserError

SMALL = Shaping(image_size=16, crop=16, points=64, faces=320, views=2)
FEW = {"train": 24, "dev": 12, "test": 12, "views": 3}


@pytest.fixture(scope="module")
def opened():
    return open_solids(Solids(**FEW), SMALL)


def _step(split, step, **changed):
    stream = batches(split, batch_size=8, seed=1, steps=step + 1, start=step, **changed)
    return next(iter(stream))


def _same(a, b):
    for modality in ("image", "point", "mesh", "row"):
        for name, values in a[modality].items():
            np.testing.assert_array_equal(values, b[modality][name])


def test_items_and_labels(opened):
    assert list(opened.splits) == ["train", "dev", "test"]
    train = opened.splits["train"]
    assert train.visual == "image"
    assert len(train) == 24
    found = {m: source.gather(np.array([5, 0])) for m, source in train.sources.items()}
    assert {m: {k: (v.shape, v.dtype.name) for k, v in of.items()} for m, of in found.items()} == {
        "image": {"views": ((2, 2, 16, 16, 3), "float32")},
        "point": {"points": ((2, 64, 3), "float32")},
        "mesh": {"faces": ((2, 320, 15), "float32"), "neighbours": ((2, 320, 3), "int32")},
    }
    for modality in train.sources:
        np.testing.assert_array_equal(train.labels[modality].argmax(1), np.arange(24) % 12)
        np.testing.assert_array_equal(train.groups[modality], np.arange(24))
    assert train.ids["mesh"][13] == f"{CLASSES[1]}/{CLASSES[1]}_000013"
    assert all(isinstance(source, Varied) for source in train.sources.values())


def test_modalities_are_of_one_object(opened):
    """The box around the cloud is that of the mesh, and the picture shows something dark."""
    sources = opened.splits["test"].sources
    items = np.arange(12)
    points = sources["point"].gather(items)["points"]
    corners = sources["mesh"].gather(items)["faces"][..., 3:12].reshape(12, -1, 3)
    np.testing.assert_allclose(np.linalg.norm(corners, axis=2).max(1), 1, atol=1e-5)
    low, high = corners.min(1), corners.max(1)
    assert (points >= low[:, None] - 1e-5).all()
    assert (points <= high[:, None] + 1e-5).all()
    assert (np.ptp(points, axis=1) > 0.7 * (high - low)).mean() > 0.9
    views = sources["image"].gather(items)["views"]
    assert (views.min(axis=(1, 2, 3, 4)) < 0).all()
    assert np.allclose(views[:, :, 0, 0, 0], (1 - 0.485) / 0.229)  # white corners


def test_a_batch_is_a_function_of_seed_and_step(opened):
    train = opened.splits["train"]
    first = _step(train, 4)
    _same(first, _step(train, 4, threads=1))
    _same(first, next(iter(batches(train, batch_size=8, seed=1, steps=9, start=4))))
    halves = [_step(train, 4, process=(p, 2)) for p in range(2)]
    _same(first, {m: {k: np.concatenate([h[m][k] for h in halves]) for k in first[m]}
                  for m in first})  # fmt: skip
    other = _step(train, 5)
    for modality, name in (("image", "views"), ("point", "points"), ("mesh", "faces")):
        assert not np.array_equal(first[modality][name], other[modality][name])
    again = pickle.loads(pickle.dumps(train))
    _same(first, _step(again, 4))


def test_an_object_looks_different_every_time(opened):
    """The same row in two epochs: other views, points and tremors, but the same neighbours."""
    train = opened.splits["train"]
    seen = []
    for step in range(6):
        batch = _step(train, step)
        seen += [(int(item), k, batch) for k, item in enumerate(batch["row"]["item"])]
    twice = [[(k, b) for item, k, b in seen if item == wanted] for wanted in range(24)]
    for (i, a), (j, b) in twice:
        assert not np.array_equal(a["image"]["views"][i], b["image"]["views"][j])
        assert not np.allclose(a["point"]["points"][i], b["point"]["points"][j])
        same = np.abs(a["mesh"]["faces"][i, :32] - b["mesh"]["faces"][j, :32])
        assert 0 < same[:, :12].max() <= 2 * MESH_MOST + 1e-6
        assert not same[:, 12:].any()
        np.testing.assert_array_equal(
            a["mesh"]["neighbours"][i, :32], b["mesh"]["neighbours"][j, :32]
        )


def test_augmented_clouds_keep_to_their_ranges():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (4000, 3)).astype(np.float32)
    shaping = Shaping(points=4000)
    heights, radii = [], []
    for _ in range(60):
        found = shaping.cloud(points, rng)
        assert found.dtype == np.float32
        heights.append((np.ptp(found[:, 1]) / 2, found[:, 1].mean()))
        radii.append(np.linalg.norm(found[:, [0, 2]], axis=1).max())
    scale, shift = np.array(heights).T
    slack = CLOUD_MOST + 0.01
    assert SCALES[0] - slack < scale.min() < 0.8
    assert 1.3 < scale.max() < SCALES[1] + slack
    assert np.abs(shift).max() < SHIFT + 0.1
    assert max(radii) < np.sqrt(2) * (SCALES[1] + SHIFT) + slack
    ends = np.array([[1.0, 0, 0], [-1.0, 0, 0]], np.float32)
    angles = []
    for _ in range(60):
        found = shaping.cloud(ends, rng)
        across = found[np.argmax(found[:, 0])] - found[np.argmin(found[:, 0])]
        angles.append(np.arctan2(across[2], across[0]))
    assert np.ptp(angles) > 0.9 * np.pi  # all of the circle: which end is which is not known
    still = Shaping(points=6, augment=False)
    assert {tuple(p) for p in still.cloud(points, rng)} <= {tuple(p) for p in points}
    np.testing.assert_array_equal(still.cloud(points[:9]), points[:6])


def test_two_views_are_different_and_crops_move(opened):
    images = opened.splits["train"].sources["image"]
    pairs = [_step(opened.splits["train"], s)["image"]["views"] for s in range(3)]
    assert all(not np.array_equal(pair[0], pair[1]) for batch in pairs for pair in batch)
    view = images.objects.view(3, 0)
    assert view.size == (18, 18)
    rng = np.random.default_rng(0)
    crops = {SMALL.picture(view, rng).tobytes() for _ in range(200)}
    assert len(crops) == 3 * 3 * 2  # places and flips
    np.testing.assert_array_equal(SMALL.picture(view)[..., 0], np.asarray(view)[1:17, 1:17])
    assert Shaping(image_size=8, crop=99).picture(view).shape == (8, 8, 3)


def test_kept_solids_are_the_same(opened, tmp_path):
    kept = [open_solids(Solids(**FEW, folder=str(tmp_path / "kept")), SMALL) for _ in range(2)]
    assert kept[0].fingerprint == opened.fingerprint
    for data in kept:
        _same(_step(data.splits["train"], 2), _step(opened.splits["train"], 2))
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:-500])
    with pytest.raises(UserError, match=r"solids_dev_.*makes it again"):
        open_solids(Solids(**FEW, folder=str(tmp_path / "kept")), SMALL)


def test_every_object_is_evaluated_once(opened):
    source = opened.splits["test"].sources["mesh"]
    seen = [i for items, valid, _ in eval_batches(source, 5) for i in items[valid].tolist()]
    assert seen == list(range(12))
    one, other = (source.gather(np.array([3, 7])), source.gather(np.array([7])))
    np.testing.assert_array_equal(one["faces"][1], other["faces"][0])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": -1}, "data.solids.seed"),
        ({"views": 0}, "data.solids.views"),
        ({"dev": 3}, "data.solids.dev is 3"),
    ],
)
def test_impossible_sizes(changed, said):
    with pytest.raises(UserError, match=said):
        Solids(**changed)
    with pytest.raises(UserError, match=r"data\.faces is 100"):
        open_solids(Solids(), Shaping(faces=100))
    with pytest.raises(UserError, match=r"data\.points must be at least 1, got 0"):
        Shaping(points=0)
    with pytest.raises(UserError, match=r"data\.objects\.flip must be .* got 2"):
        Shaping(flip=2)
