"""Arrays of feature sets by names that people give, and files that hold more than features."""

import h5py
import numpy as np
import pytest

from hmgr_jax.data.features.sets import Layout, open_features
from hmgr_jax.errors import FoundNonFinite, UserError

SIZES = {"train": 8, "dev": 3, "test": 5}


@pytest.fixture
def stored():
    """Pictures, articles and kinds of all 16 pairs, and ``split``."""
    rng = np.random.default_rng(0)
    return {
        "pictures": rng.normal(size=(16, 6)),
        "articles": rng.random((16, 2)),
        "kinds": np.arange(16) % 4,
        "split": np.repeat(list(SIZES), list(SIZES.values())),
    }


def by_split(stored, names=("I_{}", "T_{}", "L_{}")):
    """The same, an array a split."""
    found = {}
    for role, short in zip(SIZES, ("tr", "vl", "te"), strict=True):
        rows = stored["split"] == role
        for name, whole in zip(names, ("pictures", "articles", "kinds"), strict=True):
            found[name.format(short)] = stored[whole][rows]
    return found


def test_names_of_arrays_of_all_pairs_need_a_split(tmp_path, stored):
    np.savez(tmp_path / "set.npz", **stored)
    layout = Layout(image="pictures", text="articles", labels="kinds")
    opened = open_features(tmp_path / "set.npz", layout=layout)
    for role, size in SIZES.items():
        rows = np.flatnonzero(stored["split"] == role)
        source = opened.splits[role].sources["image"]
        np.testing.assert_allclose(
            source.gather(np.arange(size))["features"], stored["pictures"][rows], rtol=1e-6
        )
        np.testing.assert_array_equal(
            opened.splits[role].labels["text"].argmax(axis=1), stored["kinds"][rows]
        )
    del stored["split"]
    np.savez(tmp_path / "none.npz", **stored)
    with pytest.raises(UserError, match=r"image is pictures, one array .*write {}"):
        open_features(tmp_path / "none.npz", layout=layout)


@pytest.mark.parametrize("name", ["kind_{}", "kind_{split}", "{_kind", "kind"])
@pytest.mark.parametrize("whole", [True, False])
def test_labels_that_are_named_must_be_there(tmp_path, stored, name, whole):
    np.savez(tmp_path / "set.npz", **(stored if whole else by_split(stored)))
    sides = {"image": "pictures", "text": "articles"} if whole else {}
    with pytest.raises(UserError, match="does not have such an array for every split"):
        open_features(tmp_path / "set.npz", layout=Layout(labels=name, **sides))


@pytest.mark.parametrize("name", ["{split}_pictures", "{_pictures"])
def test_braces_are_letters(tmp_path, stored, name):
    np.savez(tmp_path / "set.npz", **by_split(stored))
    with pytest.raises(UserError, match=r"data\.features\.image"):
        open_features(tmp_path / "set.npz", layout=Layout(image=name))


def test_labels_of_texts_alone_are_those_of_pairs(tmp_path, stored):
    np.savez(tmp_path / "set.npz", **by_split(stored, ("I_{}", "T_{}", "{}_txt_lab")))
    opened = open_features(tmp_path / "set.npz")
    assert opened.splits["train"].labels["image"].shape == (8, 4)


def test_labels_of_ones_own_are_not_compared_with_others(tmp_path, stored):
    both = by_split(stored) | {
        f"{k}_txt_lab": np.ones(n) for k, n in zip(("tr", "vl", "te"), (8, 3, 5), strict=True)
    }
    np.savez(tmp_path / "set.npz", **both)
    opened = open_features(tmp_path / "set.npz", layout=Layout(labels="L_{}"))
    assert opened.splits["train"].labels["text"].shape == (8, 4)


def test_labels_that_are_no_numbers(tmp_path, stored):
    found = by_split(stored)
    found["L_tr"] = np.where(np.arange(8) == 3, np.nan, 1.0)
    np.savez(tmp_path / "set.npz", **found)
    with pytest.raises(FoundNonFinite, match=r"labels L_tr .* hold NaN"):
        open_features(tmp_path / "set.npz")


def test_files_that_hold_more(tmp_path, stored):
    found = by_split(stored)
    np.savez(tmp_path / "set.npz", **found, names=np.array([{"a": 1}, None], object))
    assert len(open_features(tmp_path / "set.npz").splits["train"]) == 8
    with h5py.File(tmp_path / "set.h5", "w") as file:
        for name, array in found.items():
            file[f"data/{name}"] = array
    layout = Layout(image="data/I_{}", text="data/T_{}", labels="data/L_{}")
    assert len(open_features(tmp_path / "set.h5", layout=layout).splits["test"]) == 5
    with pytest.raises(UserError, match="found data/I_te, data/I_tr"):
        open_features(tmp_path / "set.h5")
    (tmp_path / "set.mat").write_bytes((tmp_path / "set.h5").read_bytes())
    with pytest.raises(UserError, match=r"HDF5 without MATLAB's header, .*name it \.h5"):
        open_features(tmp_path / "set.mat")
