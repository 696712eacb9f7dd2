"""Karpathy's JSON joined by id with features in one .npy, a file an image, or HDF5."""

import os

import numpy as np
import pytest
from preparing import REGIONS, boxes, captions_of, check, check_ragged, karpathy, prepare, values

from hmgr_jax.preparation.file_store import FileStore

NUMBERS = [4, 2, 0, 5, 1, 3]


def one_npy(root, names):
    root.mkdir()
    np.save(root / "all_ims.npy", np.stack([values(n) for n in names]))
    np.save(root / "all_boxes.npy", np.stack([boxes()] * len(names)))
    (root / "all_ids.txt").write_text("".join(f"{name}\n" for name in names.values()))
    return root / "all_ims.npy"


def npz_files(root, names):
    root.mkdir()
    for n, name in names.items():
        np.savez(
            root / f"{name}.npz",
            x=values(n),
            bbox=boxes(REGIONS, 40, 20),
            image_w=40,
            image_h=20,
            info=np.array({"pickled": True}, object),
        )
    return root


def npy_files(root, names):
    root.mkdir()
    for n, name in names.items():
        np.save(root / f"{name}.npy", values(n))
    return root


def _h5(path):
    h5py = pytest.importorskip("h5py", reason="h5py, the extra h5, is not installed")
    return h5py.File(path, "w")


def h5_rows(root, names):
    with _h5(root.with_suffix(".h5")) as file:
        file["features"] = np.stack([values(n) for n in names])
        file["ids"] = [str(name).encode() for name in names.values()]
        file["boxes"] = np.stack([boxes()] * len(names))
    return root.with_suffix(".h5")


def h5_images(root, names):
    with _h5(root.with_suffix(".hdf5")) as file:
        for n, name in names.items():
            file[f"{name}_features"] = values(n)
            file[f"{name}_boxes"] = boxes()
    return root.with_suffix(".hdf5")


def h5_groups(root, names):
    with _h5(root.with_suffix(".hdf")) as file:
        for n, name in names.items():
            file[f"{name}/features"] = values(n)
            file[f"{name}/boxes"] = boxes()
    return root.with_suffix(".hdf")


def ragged_npy(root, names):
    """One array with the file of counts that ``prepare`` writes."""
    root.mkdir()
    rows = np.zeros((len(names), 6, 6), np.float32)
    true = np.zeros((len(names), 6, 4), np.float32)
    for i, n in enumerate(names):
        rows[i, : n + 1], true[i, : n + 1] = values(n, n + 1), boxes(n + 1)
    np.save(root / "all_ims.npy", rows)
    np.save(root / "all_boxes.npy", true)
    np.save(root / "all_counts.npy", np.asarray([n + 1 for n in names]))
    (root / "all_ids.txt").write_text("".join(f"{name}\n" for name in names.values()))
    return root / "all_ims.npy"


def ragged_npz(root, names):
    root.mkdir()
    for n, name in names.items():
        np.savez(root / f"{name}.npz", features=values(n, n + 1), boxes=boxes(n + 1))
    return root


def ragged_files(root, names):
    root.mkdir()
    for n, name in names.items():
        np.save(root / f"{name}.npy", values(n, n + 1))
    return root


def ragged_h5(root, names):
    with _h5(root.with_suffix(".h5")) as file:
        for n, name in names.items():
            file[f"{name}/features"] = values(n, n + 1)
            file[f"{name}/boxes"] = boxes(n + 1)
    return root.with_suffix(".h5")


STORES = [one_npy, npz_files, npy_files, h5_rows, h5_images, h5_groups]
NAMES = {
    "filename": "pic_{}.jpg",
    "stem": "pic_{}",
    "cocoid": "{cocoid}",
    "padded": "{cocoid:012d}",
    "imgid": "{}",
}


def named(kind, numbers=NUMBERS):
    return {n: NAMES[kind].format(n, cocoid=1000 + 7 * n) for n in numbers}


@pytest.fixture
def dataset(tmp_path):
    return karpathy(tmp_path / "dataset.json")


def _command(dataset, features, out, *more):
    return ("karpathy", "--json", dataset, "--features", features, "--out", out, *more)


def _check(out, *, test="test", **options):
    for split, numbers in (("train", [0, 1, 2]), ("dev", [3]), (test, [4])):
        names, texts = [f"pic_{n}.jpg" for n in numbers], [captions_of(n) for n in numbers]
        check(out, split, numbers, names, texts, **options)


@pytest.mark.parametrize("kind", NAMES)
def test_whatever_the_ids_of_the_features_are(tmp_path, dataset, kind):
    source = one_npy(tmp_path / "f", named(kind))
    assert prepare(*_command(dataset, source, tmp_path / "out")) == 0
    _check(tmp_path / "out")


@pytest.mark.parametrize("store", STORES)
def test_whatever_the_features_lie_in(tmp_path, dataset, store):
    source = store(tmp_path / "f", named("stem"))
    assert prepare(*_command(dataset, source, tmp_path / "out")) == 0
    _check(tmp_path / "out", with_boxes=store is not npy_files)


@pytest.mark.parametrize("store", [ragged_npy, ragged_npz, ragged_files, ragged_h5])
def test_images_of_different_numbers_of_regions(tmp_path, dataset, store):
    source, out = store(tmp_path / "f", named("stem")), tmp_path / "out"
    with_boxes = store is not ragged_files
    assert prepare(*_command(dataset, source, out)) == 0
    for split, numbers in (("train", [0, 1, 2]), ("dev", [3]), ("test", [4])):
        counts = [n + 1 for n in numbers]
        check_ragged(out, split, numbers, counts, 5, with_boxes=with_boxes)
    assert prepare(*_command(dataset, source, tmp_path / "cut", "--regions", "2")) == 0
    check_ragged(tmp_path / "cut", "train", [0, 1, 2], [1, 2, 2], 2, with_boxes=with_boxes)


def test_rejects_bad_counts_of_one_npy(tmp_path, dataset, refused):
    source = ragged_npy(tmp_path / "f", named("stem"))
    command, counts = _command(dataset, source, tmp_path / "out"), np.arange(1, 7)
    np.save(source.with_name("all_counts.npy"), counts[::-1])
    refused(("all_boxes.npy holds in row 5 values other", "after its 1 true regions"), *command)
    command = (*_command(dataset, source, tmp_path / "other"), "--no-boxes")
    refused(("all_ims.npy, row 5 (pic_3), holds values other", "after its 1 true"), *command)
    np.save(source.with_name("all_counts.npy"), counts + 1)
    refused("all_counts.npy holds 7 in row 5", *command)
    np.save(source.with_name("all_counts.npy"), counts[:5])
    refused("all_counts.npy has shape (5,)", *command)


def test_the_test_images_of_coco_are_testall_and_restval_is_asked_for(tmp_path):
    dataset = karpathy(tmp_path / "d.json", dataset="coco")
    source = npz_files(tmp_path / "f", named("padded"))
    assert prepare(*_command(dataset, source, tmp_path / "out")) == 0
    _check(tmp_path / "out", test="testall")
    assert prepare(*_command(dataset, source, tmp_path / "more", "--restval")) == 0
    assert (tmp_path / "more/train_ids.txt").read_text().split()[-1] == "pic_5.jpg"


def test_the_first_captions_and_no_boxes(tmp_path, dataset, refused):
    command = _command(dataset, npz_files(tmp_path / "f", named("stem")), tmp_path / "out")
    refused(
        ("image 0 gives pic_0.jpg 1 captions", "asks for 2"), *command, "--captions-per-image", "2"
    )
    assert prepare(*command, "--captions-per-image", "1", "--no-boxes") == 0
    assert not (tmp_path / "out/train_cap_ids.txt").exists()
    assert not (tmp_path / "out/train_boxes.npy").exists()


@pytest.mark.parametrize("store", STORES)
def test_the_first_image_without_features_is_named(tmp_path, dataset, refused, store):
    source = store(tmp_path / "f", named("stem", [5, 4, 0, 2]))
    refused(
        ("no features of 'pic_1'", "dataset.json, image 1", "by stem"),
        *_command(dataset, source, tmp_path / "out"),
    )


def test_ids_that_could_be_two_things(tmp_path, refused):
    def same_range(images):
        for image in images:
            image["cocoid"] = (image["imgid"] + 1) % len(images)

    dataset = karpathy(tmp_path / "d.json", change=same_range)
    command = _command(dataset, one_npy(tmp_path / "f", named("imgid")), tmp_path / "out")
    refused(("cocoid and imgid of pic_0.jpg", "--key"), *command)
    refused("--key is 'id' where the images have filename, stem,", *command, "--key", "id")
    assert prepare(*command, "--key", "imgid") == 0
    _check(tmp_path / "out")


def test_rejects_malformed_json(tmp_path, refused):
    source = one_npy(tmp_path / "f", named("stem"))
    path, out = tmp_path / "d.json", tmp_path / "out"
    path.write_text('{"images": [')
    refused(("d.json is not JSON", "download it again"), *_command(path, source, out))
    path.write_text("[]")
    refused("d.json holds no object where", *_command(path, source, out))
    path.write_text('{"annotations": []}')
    refused("holds no list 'images' as Karpathy's dataset_X.json has", *_command(path, source, out))
    changes = [
        (lambda images: images[2].pop("split"), ("image 2 (counted from 0) lacks 'split'",)),
        (lambda images: images[2].update(split="nowhere"), ("image 2 has the split 'nowhere'",)),
        (lambda images: images[2].update(sentences=[]), ("image 2 (pic_2.jpg) has no sentences",)),
        (
            lambda images: images[3]["sentences"][0].update(raw=" "),
            ("image 3, sentence 0 has ' ' for a caption",),
        ),
        (lambda images: images[4].update(filename="pic_1.jpg"), ("image 4 lists pic_1.jpg again",)),
    ]
    for change, parts in changes:
        refused(parts, *_command(karpathy(path, change=change), source, out))


def test_rejects_malformed_npy(tmp_path, dataset, refused):
    source = one_npy(tmp_path / "f", named("stem"))
    command = _command(dataset, source, tmp_path / "out")
    ids = source.with_name("all_ids.txt")
    lines = ids.read_text().splitlines()
    ids.write_text("\n".join([*lines[:-1], lines[0]]))
    refused("all_ids.txt:6 repeats pic_4 of line 1", *command)
    ids.write_text("\n".join(lines[:-1]))
    refused(("all_ids.txt has 5 lines", "6 rows"), *command)
    ids.unlink()
    refused(("all_ids.txt is missing", "--ids"), *command)
    refused("is neither a folder nor a .npy", *_command(dataset, tmp_path / "x.pt", tmp_path / "o"))


def test_rejects_malformed_files(tmp_path, dataset, refused):
    root = npz_files(tmp_path / "f", named("stem"))
    command = _command(dataset, root, tmp_path / "out")
    good = (root / "pic_2.npz").read_bytes()
    (root / "pic_2.npz").write_bytes(good[:60])
    refused("pic_2.npz cannot be read as .npy or .npz", *command)
    np.savez(root / "pic_2.npz", x=values(2)[:, :5], bbox=boxes(), image_w=1, image_h=1)
    refused("pic_2.npz holds features of 5 numbers where the first has 6", *command)
    np.savez(root / "pic_2.npz", x=values(2)[0], bbox=boxes(), image_w=1, image_h=1)
    refused("pic_2.npz holds boxes of shape (4, 4) where (1, 4) was expected", *command)
    np.savez(root / "pic_2.npz", x=values(2)[None], bbox=boxes(), image_w=1, image_h=1)
    refused("pic_2.npz holds features of shape (1, 4, 6) where [regions, features]", *command)
    np.savez(root / "pic_2.npz", feat=values(2)[:3], bbox=boxes(), image_w=1, image_h=1)
    refused("pic_2.npz holds boxes of shape (4, 4) where (3, 4) was expected", *command)
    np.savez(root / "pic_2.npz", x=values(2)[:3], bbox=boxes(), image_w=1, image_h=1)
    refused("pic_2.npz holds x of shape (3, 6) and no num_boxes or num_bbox", *command)
    np.savez(root / "pic_2.npz", feat=values(2))
    refused("pic_2.npz holds no boxes where others do", *command)
    np.savez(root / "pic_2.npz", x=values(2), bbox=boxes(), image_w=0, image_h=1)
    refused("pic_2.npz holds an image size that is not positive", *command)
    np.savez(root / "pic_2.npz", a=values(2), b=values(2))
    refused(("pic_2.npz holds a, b", "--array"), *command)
    np.save(root / "pic_2.npy", values(2))
    refused("features of the same image", *command)
    (tmp_path / "empty").mkdir()
    refused("holds no .npy or .npz", *_command(dataset, tmp_path / "empty", tmp_path / "out"))


def test_a_bad_file_is_replaced_and_the_others_are_not_read_again(
    tmp_path, dataset, refused, monkeypatch
):
    root = npz_files(tmp_path / "f", named("stem"))
    command = _command(dataset, root, tmp_path / "out")
    bad = values(4)
    bad[0, 0] = np.inf
    np.savez(root / "pic_4.npz", x=bad, bbox=boxes(REGIONS, 40, 20), image_w=40, image_h=20)
    refused("pic_4.npz holds NaN or infinity", *command)
    read, real = [], FileStore.read
    monkeypatch.setattr(FileStore, "read", lambda s, name: read.append(name) or real(s, name))
    np.savez(root / "pic_4.npz", x=values(4), bbox=boxes(REGIONS, 40, 20), image_w=40, image_h=20)
    old = (root / "pic_1.npz").stat()
    np.savez(root / "new.npz", x=values(1), bbox=boxes(REGIONS, 40, 20), image_w=40, image_h=20)
    (root / "new.npz").rename(root / "pic_1.npz")  # one that was read already, with an old date
    os.utime(root / "pic_1.npz", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert prepare(*command) == 0
    assert read == ["pic_0", "pic_1", "pic_4"]  # the first file tells what there is
    _check(tmp_path / "out")


def test_a_bad_file_may_be_replaced_by_one_of_another_size(tmp_path, dataset, refused):
    root = npy_files(tmp_path / "f", named("stem"))
    command = _command(dataset, root, tmp_path / "out")
    bad = values(4, 7)
    bad[0, 0] = np.inf
    np.save(root / "pic_4.npy", bad)
    refused("pic_4.npy holds NaN or infinity", *command)
    partial = tmp_path / "out.partial"
    assert (partial / "train_counts.npy").exists()
    np.save(root / "pic_4.npy", values(4))  # now all are of one size, and no counts are needed
    assert prepare(*command) == 0
    assert prepare("--verify", tmp_path / "out") == 0
    _check(tmp_path / "out", with_boxes=False)


def test_rejects_malformed_hdf5(tmp_path, dataset, refused):
    source = h5_rows(tmp_path / "f", named("stem"))
    with _h5(source) as file:
        file["features"] = np.stack([values(n) for n in NUMBERS])
        file["ids"] = [b"a", b"b"]
    refused("has 2 ids, 2 different, for the 6", *_command(dataset, source, tmp_path / "out"))
    source.write_bytes(b"no HDF5")
    refused("cannot be read as HDF5", *_command(dataset, source, tmp_path / "out"))


def test_without_h5py_the_extra_is_named(tmp_path, dataset, refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "f.h5").write_bytes(b"")
    refused("pip install 'hmgr-jax[h5]'", *_command(dataset, tmp_path / "f.h5", tmp_path / "out"))
