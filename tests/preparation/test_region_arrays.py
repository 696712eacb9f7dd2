"""The arrays of one image: the axis of the regions, and how many there are."""

import numpy as np
import pytest
from preparing import boxes, values

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.file_store import FileStore
from hmgr_jax.preparation.h5_store import H5Store
from hmgr_jax.preparation.region_arrays import read_regions

FEW = values(1, 4)
PADDED = np.concatenate([FEW, np.zeros((3, 6), np.float32)])


@pytest.mark.parametrize(
    ("arrays", "name"),
    [
        ({"x": FEW, "bbox": boxes(4)}, None),
        ({"x": FEW.T, "bbox": boxes(4)}, None),
        ({"x": FEW.T, "num_bbox": np.array(4)}, None),
        ({"x": FEW, "num_bbox": np.array([4])}, None),
        ({"x": FEW}, "x"),
        ({"x": FEW.T}, "x.T"),
        ({"features": FEW.T, "boxes": boxes(4)}, None),
        ({"features": FEW.astype(">f8")}, None),
        ({"features": PADDED, "num_boxes": np.int64(4)}, None),
        ({"features": PADDED, "num_boxes": np.int64(4), "boxes": boxes(4)}, None),
    ],
)
def test_regions_are_found(arrays, name):
    found = read_regions(arrays, name, "a.npz", with_boxes=True)
    np.testing.assert_array_equal(found["ims"], FEW)
    assert found["ims"].dtype == np.float32
    if "boxes" in found:
        np.testing.assert_allclose(found["boxes"], boxes(4))


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"x": FEW}, "cannot be told apart: give --array x for"),
        ({"x": FEW, "num_bbox": np.array(5)}, "cannot be told apart"),
        ({"features": FEW, "num_boxes": np.array(5)}, "counts 5 regions"),
        ({"features": FEW, "num_boxes": np.array(0)}, "counts 0 regions"),
        ({"features": FEW, "num_boxes": np.array([2, 2])}, "where the number of regions"),
        ({"features": FEW, "num_boxes": np.array(3)}, "values other than 0 after its 3 true"),
    ],
)
def test_rejects_regions_that_are_unclear(arrays, part):
    with pytest.raises(UserError) as error:
        read_regions(arrays, None, "a.npz", with_boxes=True)
    assert part in str(error.value)


def test_files_are_counted_without_reading_them(tmp_path):
    np.savez(tmp_path / "a.npz", x=FEW.T, bbox=boxes(4), num_bbox=4)
    np.savez(tmp_path / "b.npz", x=PADDED, bbox=np.pad(boxes(4), ((0, 3), (0, 0))), num_bbox=4)
    np.savez(tmp_path / "c.npz", features=PADDED, num_boxes=np.array([4]))
    store = FileStore(tmp_path, None)
    assert store.regions(["a", "b", "c"]).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(store.read("b")["ims"], FEW)


def _write(path, **arrays):
    h5py = pytest.importorskip("h5py", reason="h5py, the extra h5, is not installed")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    (path.parent / "ids.txt").write_text("p\nq\n")
    return path


def test_counts_of_padded_rows_are_read(tmp_path):
    both = np.stack([PADDED, np.zeros_like(PADDED)])
    both[1, 0] = 1
    path = _write(tmp_path / "a.h5", ids=[7, 8], features=both, num_boxes=[4, 1])
    store = H5Store(path, None)
    assert store.regions(["7", "8"]).tolist() == [4, 1]
    np.testing.assert_array_equal(store.read("7")["ims"], FEW)


def test_the_layout_of_ban_is_read_with_a_file_of_ids(tmp_path):
    spatial = np.concatenate([np.concatenate([boxes(1), boxes(4)]), np.ones((5, 2))], axis=1)
    arrays = {
        "image_features": np.concatenate([values(2, 1), FEW]),
        "pos_boxes": [[1, 5], [0, 1]],
        "spatial_features": spatial,
        "image_bb": 100 * spatial[:, :4],
    }
    path = _write(tmp_path / "ban.hdf5", **arrays)
    store = H5Store(path, None, tmp_path / "ids.txt")
    assert store.regions(["p", "q"]).tolist() == [4, 1]
    np.testing.assert_array_equal(store.read("p")["ims"], FEW)
    np.testing.assert_allclose(store.read("p")["boxes"], boxes(4))
    with pytest.raises(UserError, match="give --ids a file with one id per image"):
        H5Store(path, None)
    path = _write(tmp_path / "bad.hdf5", **arrays | {"pos_boxes": [[1, 5], [0, 6]]})
    with pytest.raises(UserError, match=r"pos_boxes \[0, 6\] of image 1 .* rows of 5"):
        H5Store(path, None, tmp_path / "ids.txt")
