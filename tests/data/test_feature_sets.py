"""Feature sets in the files and layouts that people have, and what is refused."""

import pickle

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from hmgr_jax.data.features import mat
from hmgr_jax.data.features.array_pickle import read_array_pickle
from hmgr_jax.data.features.sets import Layout, open_features
from hmgr_jax.data.open import open_data
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.training.config import recipe

SIZES = {"tr": 8, "vl": 3, "te": 5}
CLASSES = 4


def arrays(names=("I_{}", "T_{}", "L_{}"), roles=("tr", "vl", "te"), column=True):
    """Images, texts and labels 1 to 4 under the names of one release."""
    found = {}
    for role, count in zip(roles, SIZES.values(), strict=True):
        rng = np.random.default_rng(count)
        found[names[0].format(role)] = rng.normal(size=(count, 6))
        found[names[1].format(role)] = rng.random((count, 2))
        labels = 1 + np.arange(count) % CLASSES
        found[names[2].format(role)] = labels[:, None] if column else labels
    return found


def refused(sentence, root, error=UserError, **options):
    with pytest.raises(error, match=sentence) as found:
        open_features(root, **options)
    assert "\n" not in str(found.value)


def test_pairs_labels_and_features(tmp_path):
    stored = arrays()
    np.savez(tmp_path / "set.npz", **stored)
    opened = open_features(tmp_path / "set.npz")
    assert opened.name == "set"
    for role, key in zip(("train", "dev", "test"), SIZES, strict=True):
        split = opened.splits[role]
        assert len(split) == SIZES[key]
        numbers = np.array([2, 0, 2])
        for side, letter in (("image", "I"), ("text", "T")):
            found = split.sources[side].gather(numbers)["features"]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, np.float32(stored[f"{letter}_{key}"][numbers]))
            np.testing.assert_array_equal(split.groups[side], np.arange(len(split)))
            assert split.labels[side].shape == (SIZES[key], CLASSES)  # dev and test have fewer
            wanted = np.eye(CLASSES)[np.arange(SIZES[key]) % CLASSES]
            np.testing.assert_array_equal(split.labels[side], wanted)


def _save_h5(path, found):
    with h5py.File(path, "w") as file:
        for name, array in found.items():
            file[name] = array


def _save_mat_73(path, found):
    """As MATLAB writes version 7.3: HDF5 behind 512 bytes of its own, arrays by columns."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in found.items():
            file[name] = array.T
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))


def _save_npz(path, found):
    np.savez(path, **found)


FORMATS = {
    "set.npz": _save_npz,
    "set.mat": scipy.io.savemat,
    "new.mat": _save_mat_73,
    "set.h5": _save_h5,
    "set.hdf5": _save_h5,
}
NAMES = {
    "INRIA": (("{}_img", "{}_txt", "{}_img_lab"), ("tr", "val", "te")),
    "DSCMR": (("{}_img", "{}_txt", "{}_img_lab"), ("train", "valid", "test")),
    "MRL": (("{}_imgs_deep", "{}_texts", "{}_imgs_labels"), ("train", "valid", "test")),
    "ACMR": (("{}_img_feats", "{}_txt_vecs", "{}_labels"), ("train", "val", "test")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(name, tmp_path):
    FORMATS[name](tmp_path / name, arrays())
    _save_npz(tmp_path / "plain.npz", arrays())
    found, plain = open_features(tmp_path / name), open_features(tmp_path / "plain.npz")
    _assert_same(found, plain)


@pytest.mark.parametrize("release", NAMES)
def test_names_of_releases(release, tmp_path):
    names, roles = NAMES[release]
    _save_npz(tmp_path / "named.npz", arrays(names, roles, column=False))
    _save_npz(tmp_path / "plain.npz", arrays())
    _assert_same(open_features(tmp_path / "named.npz"), open_features(tmp_path / "plain.npz"))


def test_a_folder_of_files(tmp_path):
    folder = tmp_path / "pascal"
    folder.mkdir()
    for name, array in arrays(("{}_img", "{}_txt", "{}_img_lab"), ("train", "val", "test")).items():
        scipy.io.savemat(folder / f"{name}.mat", {name: array})
    (folder / "readme.txt").write_text("to be ignored")
    _save_npz(tmp_path / "plain.npz", arrays())
    _assert_same(open_features(folder), open_features(tmp_path / "plain.npz"))
    np.save(folder / "train_img.npy", np.ones((8, 6)))
    refused("train_img.npy and .*train_img.mat both hold an array train_img", folder)


def test_wikipedia_as_it_was_released(tmp_path):
    stored = arrays(column=False)
    labels = {key: stored.pop(f"L_{key}") for key in SIZES}
    scipy.io.savemat(tmp_path / "raw_features.mat", stored)
    for key, name in (("tr", "train"), ("te", "test")):
        lines = [f"t{i}\tpicture{i}\t{label}\n" for i, label in enumerate(labels[key])]
        (tmp_path / f"{name}set_txt_img_cat.list").write_text("".join(lines))
    del stored["I_vl"], stored["T_vl"]
    scipy.io.savemat(tmp_path / "raw_features.mat", stored)
    opened = open_features(tmp_path, layout=Layout(valid=2))
    np.testing.assert_array_equal(
        opened.splits["train"].labels["image"].argmax(axis=1) + 1, labels["tr"]
    )
    lists = tmp_path / "testset_txt_img_cat.list"
    lists.write_text(lists.read_text() + "one more\n")
    refused("testset_txt_img_cat.list:6 is 'one more'", tmp_path, layout=Layout(valid=2))


def _assert_same(found, wanted):
    for role, split in wanted.splits.items():
        everything = np.arange(len(split))
        for side, source in split.sources.items():
            np.testing.assert_array_equal(
                found.splits[role].sources[side].gather(everything)["features"],
                source.gather(everything)["features"],
            )
            np.testing.assert_array_equal(found.splits[role].labels[side], split.labels[side])


def test_dev_are_the_first_pairs_of_test(tmp_path):
    stored = {k: v for k, v in arrays().items() if not k.endswith("vl")}
    _save_npz(tmp_path / "set.npz", stored)
    refused(r"no dev pairs.* of the 5 test pairs", tmp_path / "set.npz")
    refused("no dev pairs", tmp_path / "set.npz", layout=Layout(valid=5))
    for test, rows in (("rest", [2, 3, 4]), ("all", [0, 1, 2, 3, 4])):
        opened = open_features(tmp_path / "set.npz", layout=Layout(valid=2, test=test))
        for role, wanted in (("dev", [0, 1]), ("test", rows)):
            split = opened.splits[role]
            assert list(split.ids["text"]) == [f"test/{row:06d}" for row in wanted]
            found = split.sources["image"].gather(np.arange(len(split)))["features"]
            np.testing.assert_array_equal(found, np.float32(stored["I_te"][wanted]))


def test_several_labels_and_sparse_bags(tmp_path):
    stored = arrays()
    for key, count in SIZES.items():
        stored[f"L_{key}"] = (np.random.default_rng(count).random((count, 7)) < 0.3).astype(float)
        stored[f"T_{key}"] = scipy.sparse.csc_matrix(stored[f"T_{key}"])
    scipy.io.savemat(tmp_path / "set.mat", stored)
    opened = open_features(tmp_path / "set.mat")
    np.testing.assert_array_equal(opened.splits["train"].labels["text"], stored["L_tr"])
    texts = opened.splits["train"].sources["text"].gather(np.arange(8))["features"]
    np.testing.assert_array_equal(texts, np.float32(stored["T_tr"].toarray()))


def test_without_labels(tmp_path):
    stored = {k: v for k, v in arrays().items() if not k.startswith("L")}
    _save_npz(tmp_path / "set.npz", stored)
    assert open_features(tmp_path / "set.npz").splits["test"].labels == {}
    _save_npz(tmp_path / "some.npz", stored | {"L_tr": np.ones(8)})
    refused("labels of train but none of dev", tmp_path / "some.npz")


def test_a_negative_label_is_no_class(tmp_path):
    stored = arrays() | {"L_tr": np.array([3, 1, -1, 3, -1, 1, 1, 3])}
    _save_npz(tmp_path / "set.npz", stored)
    train = open_features(tmp_path / "set.npz").splits["train"].labels["image"]
    unlabelled = stored["L_tr"] < 0
    assert not train[unlabelled].any()
    assert (train[~unlabelled].sum(axis=1) == 1).all()
    assert train.shape[1] == CLASSES


def test_labels_of_objects_are_refused_and_those_of_text_are_read(tmp_path):
    stored = arrays()
    words = {key: of.astype(str) for key, of in stored.items() if key.startswith("L_")}
    _save_npz(tmp_path / "text.npz", stored | words)
    with h5py.File(tmp_path / "text.h5", "w") as file:
        for key, of in stored.items():
            file[key] = words[key].astype(object) if key in words else of
    np.savez(tmp_path / "objects.npz", **stored | {"L_te": stored["L_te"].astype(object)})
    found = [open_features(tmp_path / name).splits["test"] for name in ("text.npz", "text.h5")]
    np.testing.assert_array_equal(*(split.labels["text"] for split in found))
    refused(r"L_te .* holds Python objects or cells", tmp_path / "objects.npz")


def test_one_array_for_all_splits(tmp_path):
    parts = arrays()
    whole = {
        name: np.concatenate([parts[f"{letter}_{key}"] for key in SIZES])
        for name, letter in (("img", "I"), ("txt", "T"), ("label", "L"))
    }
    whole["split"] = np.repeat(["train", "held", "test"], list(SIZES.values()))
    whole["image_id"] = np.array([f"picture{i}" for i in range(16)])
    whole["text_id"] = np.array([f"article{i}" for i in range(16)])
    _save_npz(tmp_path / "set.npz", whole)
    opened = open_features(tmp_path / "set.npz", splits={"dev": "held"})
    _save_npz(tmp_path / "plain.npz", parts)
    _assert_same(opened, open_features(tmp_path / "plain.npz"))
    assert list(opened.splits["dev"].ids["text"]) == ["article8", "article9", "article10"]
    named = {"split": np.where(whole["split"] == "train", "learn", whole["split"])}
    _save_npz(tmp_path / "named.npz", whole | named)
    refused(
        "no row of train, found held, learn, test: set data.splits.train", tmp_path / "named.npz"
    )
    _save_npz(tmp_path / "short.npz", whole | {"split": whole["split"][1:]})
    refused("split of .* has 15 rows but img has 16", tmp_path / "short.npz")


def test_names_of_ones_own(tmp_path):
    stored = arrays(("{}_pictures", "{}_words", "{}_topics"), ("train", "dev", "test"))
    _save_npz(tmp_path / "own.npz", stored)
    refused(
        r"holds no image features of train: expected one of I_train, .*found train_pictures, "
        r"train_words.*data.features.image",
        tmp_path / "own.npz",
    )
    config = recipe("own", "gpldan")
    config.data.source, config.data.root = "features", str(tmp_path / "own.npz")
    for side, name in (("image", "pictures"), ("text", "words"), ("labels", "topics")):
        config.data.features[side] = f"{{}}_{name}"
    _save_npz(tmp_path / "plain.npz", arrays())
    _assert_same(open_data(config.data), open_features(tmp_path / "plain.npz"))


def test_a_mat_without_the_arrays_lists_those_it_has(tmp_path):
    scipy.io.savemat(tmp_path / "set.mat", {"fc7": np.ones((3, 4)), "bow": np.ones((3, 2))})
    refused(
        r"holds no image features of train: expected one of I_tr?a?i?n?, .*found fc7, bow",
        tmp_path / "set.mat",
    )
    scipy.io.savemat(tmp_path / "none.mat", {})
    refused("found no array", tmp_path / "none.mat")


def _without_a_row(name):
    return lambda found: found | {name: found[name][1:]}


def _with(name, value):
    return lambda found: found | {name: value}


BAD = {
    "labels of another length": (_without_a_row("L_tr"), "L_tr have 7 rows but I_tr has 8"),
    "texts of another length": (_without_a_row("T_te"), "I_te has 5 rows but T_te has 4"),
    "another size": (_with("I_te", np.ones((5, 7))), "different sizes, 6 in train.* 7 in test"),
    "one number an item": (_with("T_tr", np.ones(8)), r"T_tr .* float64 \[8\] where numbers"),
    "counts as labels": (_with("L_vl", np.full((3, 4), 2)), "different classes"),
    "no classes": (
        lambda found: found | {f"L_{k}": np.full((n, 4), 3) for k, n in SIZES.items()},
        "values up to 3: give one class per row",
    ),
    "labels of texts": (
        lambda found: found | {"tr_txt_lab": found["L_tr"][::-1]},
        "images and texts of train .* have different labels",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arrays_are_refused(what, tmp_path):
    change, sentence = BAD[what]
    _save_npz(tmp_path / "set.npz", change(arrays()))
    refused(sentence, tmp_path / "set.npz")


def test_bad_files_are_refused(tmp_path):
    refused("There is no .*set.npz: give data.root the file", tmp_path / "set.npz")
    refused("holds no file that ends in .mat, .npz", tmp_path)
    for name in FORMATS:
        (tmp_path / name).write_bytes(b"not what it says" * 20)
        refused(f"{name} cannot be read as .*copy (it|the file) again", tmp_path / name)
    stored = arrays()
    stored["T_tr"][4, 1] = np.nan
    _save_npz(tmp_path / "set.npz", stored)
    refused("row 4 of T_tr .* NaN", tmp_path / "set.npz", error=FoundNonFinite)


def test_pickles_of_acmr(tmp_path):
    stored = arrays(("{}_img_feats", "{}_txt_vecs", "{}_labels"), ("train", "val", "test"))
    folder = tmp_path / "acmr"
    folder.mkdir()
    for protocol, (name, array) in enumerate(stored.items()):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(array, protocol % 6))
    _save_npz(tmp_path / "plain.npz", arrays())
    _assert_same(open_features(folder), open_features(tmp_path / "plain.npz"))
    (folder / "train_labels.pkl").write_bytes(pickle.dumps(["one", {"two": 2}][1:]))
    refused("train_labels.pkl holds a list where one array", folder)
    (folder / "train_labels.pkl").write_bytes(pickle.dumps(print))
    refused("train_labels.pkl asks for builtins.print, .*nothing was run", folder)


def test_nuswide_as_it_was_released(tmp_path):
    rng = np.random.default_rng(0)
    wanted = {}
    for name, count in (("Train", 6), ("Test", 5)):
        parts = {
            f"Low_Level_Features/{name}_CH.dat": rng.random((count, 3)),
            f"Low_Level_Features/{name}_Normalized_CORR.dat": rng.random((count, 2)),
            f"NUS_WID_Tags/{name}_Tags1k.dat": rng.integers(0, 2, (count, 4)),
            f"Groundtruth/TrainTestLabels/Labels_sky_{name}.txt": rng.integers(0, 2, (count, 1)),
            f"Groundtruth/TrainTestLabels/Labels_animal_{name}.txt": np.ones((count, 1)),
        }
        for file, array in parts.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(tmp_path / file, array)
        wanted[name] = list(parts.values())
    opened = open_features(tmp_path, layout=Layout(valid=2, test="all"))
    for name, role in (("Train", "train"), ("Test", "test")):
        split, numbers = opened.splits[role], np.arange(len(wanted[name][0]))
        found = split.sources["image"].gather(numbers)["features"]
        np.testing.assert_allclose(found, np.concatenate(wanted[name][:2], axis=1), rtol=1e-6)
        texts = split.sources["text"].gather(numbers)["features"]
        np.testing.assert_array_equal(texts, wanted[name][2])
        labels = np.concatenate([wanted[name][4], wanted[name][3]], axis=1)  # by name of concept
        np.testing.assert_array_equal(split.labels["image"], labels)
    np.savetxt(tmp_path / "Low_Level_Features" / "Train_EDH.dat", np.ones((4, 2)))
    refused("Train_EDH.dat has 4 rows but .*Train_CH.dat has 6", tmp_path)
    (tmp_path / "NUS_WID_Tags" / "Test_Tags1k.dat").unlink()
    (tmp_path / "Low_Level_Features" / "Train_EDH.dat").unlink()
    refused("holds no NUS_WID_Tags/Test_Tags1k.dat", tmp_path)


def test_folders_of_sckr(tmp_path):
    rng = np.random.default_rng(0)
    stored = {}
    for role, count in (("train", 4), ("test", 3)):
        for side, shape in (("image", (5,)), ("text", (6, 2))):
            names = [f"places_{k}_{k % 3}" for k in range(count)]
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / f"{side}_{role}.txt").write_text("".join(f"{role}{n}\n" for n in names))
            for name in names:
                stored[side, role, name] = rng.random(shape).astype(np.float32)
                np.save(tmp_path / side / f"{role}{name}.npy", stored[side, role, name])
    split = open_features(tmp_path, layout=Layout(valid=1)).splits["train"]
    np.testing.assert_array_equal(split.labels["text"].argmax(axis=1), [0, 1, 2, 0])
    found = split.sources["text"].gather(np.array([2]))["features"][0]
    np.testing.assert_array_equal(found, stored["text", "train", "places_2_2"].reshape(-1))
    lines = tmp_path / "text_train.txt"
    lines.write_text("\n".join(lines.read_text().split()[::-1]) + "\n")
    refused("pair items of different labels", tmp_path, layout=Layout(valid=1))
    (tmp_path / "image" / "trainplaces_3_0.npy").unlink()
    refused("image_train.txt names trainplaces_3_0, but there is no", tmp_path)


def test_wikipedia(real_data):
    opened = open_features(real_data / "wikipedia.npz", layout=Layout(valid=231))
    assert {role: len(split) for role, split in opened.splits.items()} == {
        "train": 2173,
        "dev": 231,
        "test": 462,
    }
    assert opened.splits["train"].labels["image"].sum(axis=0).min() > 50
    assert opened.splits["test"].labels["text"].shape == (462, 10)


def test_a_mat_that_brings_scipy_down_is_refused(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("import os; os.abort()")
    monkeypatch.setattr(mat.mat_child, "__file__", str(tmp_path / "child.py"))
    scipy.io.savemat(tmp_path / "set.mat", arrays())
    refused(r"set\.mat cannot be read as \.mat \(scipy broke down .*signal 6", tmp_path / "set.mat")


def test_variables_of_a_mat_may_have_any_name(tmp_path):
    stored = {
        name: np.full((1, k + 1), k) for k, name in enumerate(("file", "args", "names", "a0"))
    }
    scipy.io.savemat(tmp_path / "set.mat", stored | {"cells": np.array([{}], object)})
    found = mat.read_mat(tmp_path / "set.mat")
    assert found.pop("cells") is None
    assert list(found) == list(stored)
    for name, array in stored.items():
        np.testing.assert_array_equal(found[name], array)


def test_pickles_of_lists_are_arrays_and_others_are_refused(tmp_path):
    path, row = tmp_path / "a.pkl", [1.0] * 200
    for stored in ([1, 2], [[1, 2], [3, 4]], (np.ones(2), np.zeros(2)), np.array(["a", "bc"])):
        path.write_bytes(pickle.dumps(stored, 4))
        np.testing.assert_array_equal(read_array_pickle(path), np.asarray(stored))
    for stored in ([1, "a", None], [[1], [[2]]], {"a": 1}, [row] * 200, np.array([{}], object)):
        path.write_bytes(pickle.dumps(stored, 4))
        with pytest.raises(UserError, match=r"a\.pkl "):
            read_array_pickle(path)
