"""A folder of one's own: pictures or features and a table of captions, and a model of it."""

import json
import unicodedata

import numpy as np
import pytest
import tiny_run
from clip_files import written
from PIL import Image
from preparing import boxes, check, opened, prepare, values
from tiny_run import KilledError

from hmgr_jax.data.pictures.patches import SIZE, describe_patches, preprocessing_of
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.interop.picture_encoder import Encoder
from hmgr_jax.preparation import writing

TEN = range(10)


def patches_of(picture, grid):
    return describe_patches(preprocessing_of(grid)(picture), grid)


def write_pictures(root, numbers=TEN, ending="png"):
    root.mkdir(parents=True)
    for n in numbers:
        picture = np.full((12 + n, 20, 3), 10 * n, np.uint8)
        picture[:, 10:] = 255
        Image.fromarray(picture).save(root / f"p{n}.{ending}")
    return root


def write_csv(path, numbers=TEN, ending=".png", split=None):
    head = "image,caption" + (",split" if split else "")
    rows = [
        f'p{n}{ending},"a picture, {n} of {c} ."' + (f",{split(n)}" if split else "")
        for c in range(2)
        for n in numbers
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def _command(pictures, captions, out, *more):
    return ("folder", "--pictures", pictures, "--captions", captions, "--out", out, *more)


def test_pictures_become_grids_of_patches(tmp_path):
    pictures, table = write_pictures(tmp_path / "p"), write_csv(tmp_path / "c.csv")
    assert prepare(*_command(pictures, table, tmp_path / "out", "--grid", "3")) == 0
    splits = opened(tmp_path / "out", "train", "dev", "test")
    ids = {name: list(split.ids["image"]) for name, split in splits.items()}
    assert [len(ids[name]) for name in ("train", "dev", "test")] == [8, 1, 1]
    assert sorted(name for found in ids.values() for name in found) == [f"p{n}.png" for n in TEN]
    for name, split in splits.items():
        found = split.sources["image"].gather(np.arange(len(ids[name])))
        for image, regions in zip(ids[name], found["regions"], strict=True):
            wanted = patches_of(Image.open(pictures / image), 3)
            np.testing.assert_array_equal(regions, wanted.astype(np.float16))
        np.testing.assert_array_equal(found["boxes"][0], Encoder.of("patches", 3).boxes(20, 12))
        for row in range(len(split)):
            image = ids[name][split.rows["image"][row]]
            assert f"picture, {image[1:-4]} of" in split.sources["text"].captions[row]


def test_the_same_pictures_are_split_alike_wherever_they_lie(tmp_path):
    for name, numbers in (("a", TEN), ("b", reversed(TEN))):
        table = write_csv(tmp_path / f"{name}.csv", list(numbers))
        pictures = write_pictures(tmp_path / name)
        assert prepare(*_command(pictures, table, tmp_path / f"{name}.out", "--test", "0.3")) == 0
    for split, count in (("train", 6), ("dev", 1), ("test", 3)):
        found = [(tmp_path / f"{n}.out/{split}_ids.txt").read_text().split() for n in "ab"]
        assert len(found[0]) == count
        assert sorted(found[0]) == sorted(found[1])


def test_features_jsonl_a_column_of_splits_and_names_without_ending(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    for n in TEN:
        np.savez(root / f"p{n}.npz", features=values(n), boxes=boxes())
    where = {8: "val", 9: "test"}
    rows = [
        {"image": f"p{n}.jpg", "caption": f"picture {n}", "split": where.get(n, "train")}
        for n in TEN
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    out = ("--captions", tmp_path / "c.jsonl", "--out", tmp_path / "out")
    assert prepare("folder", "--features", root, *out) == 0
    names = [f"p{n}.jpg" for n in range(8)]
    check(tmp_path / "out", "train", range(8), names, [[f"picture {n}"] for n in range(8)])
    check(tmp_path / "out", "dev", [8], ["p8.jpg"], [["picture 8"]])


@pytest.mark.filterwarnings("always:2 of 12 files:RuntimeWarning")
def test_names_without_ending_and_pictures_without_captions(tmp_path, capsys):
    pictures = write_pictures(tmp_path / "p", range(12), "jpg")
    table = write_csv(tmp_path / "c.csv", ending="")
    assert prepare(*_command(pictures, table, tmp_path / "out", "--grid", "2")) == 0
    assert "warning: 2 of 12 files in" in capsys.readouterr().err
    assert len(opened(tmp_path / "out", "train")["train"]) == 16


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["image,caption", "p0.png,a", "p99.png,b"], ("no features of 'p99.png'", "c.csv:3")),
        (["image,caption", "p0.png,a", "p1.png,"], ("c.csv:3 lacks 'caption'",)),
        (["image,caption", "p0.png,a, b"], ("c.csv:2 has more cells than the 2 columns",)),
        (["image,words", "p0.png,a"], ("c.csv:1 has the columns image, words where 'caption'",)),
        (["image,caption"], ("c.csv holds no captions",)),
        (["image,caption,split", "p0.png,a,train", "p1.png,b,"], ("c.csv:3 names no split",)),
        (
            ["image,caption,split", "p0.png,a,train", "p0.png,b,test"],
            ("c.csv:3 puts p0.png into the split test", "c.csv:2 says train"),
        ),
        (["image,caption,split", "p0.png,a,all"], ("c.csv:2 has the split 'all'",)),
        (["image,caption", 'p0.png,"a'], ("c.csv:2 is not CSV",)),
        (["image,caption", "p0.png,a", "p1.png,b"], ("1 for dev and 1 for test leave none",)),
        (["image,caption", "p0.png,a", "p0,a", "p2,b"], ("c.csv:3 and", "c.csv:2 are both")),
    ],
)  # fmt: skip
def test_rejects_bad_tables(tmp_path, refused, lines, parts):
    pictures = write_pictures(tmp_path / "p")
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    shares = () if "leave none" in parts[0] else ("--dev", "0", "--test", "0")
    refused(parts, *_command(pictures, tmp_path / "c.csv", tmp_path / "out", *shares))


def test_a_gallery_has_all_pictures_that_pillow_decodes(tmp_path):
    pictures = write_pictures(tmp_path / "p", range(2))
    write_pictures(pictures / "sub", range(1), "webp")
    write_pictures(pictures / "upper", range(1), "JPEG")
    write_pictures(pictures / ".hidden", range(1))
    out = tmp_path / "out"
    assert prepare("folder", "--pictures", pictures, "--grid", "2", "--out", out) == 0
    ids = (out / "gallery_ids.txt").read_text().split()
    assert ids == ["p0.png", "p1.png", "sub/p0.webp", "upper/p0.JPEG"]


def test_rejects_bad_jsonl_and_files_of_other_kinds(tmp_path, refused):
    pictures, path = write_pictures(tmp_path / "p"), tmp_path / "c.jsonl"
    command = _command(pictures, path, tmp_path / "out", "--dev", "0", "--test", "0")
    for text, part in (
        ('{"image": "p0.png", "caption": "a"}\n{"image"\n', "c.jsonl:2 is not JSON"),
        ('["p0.png", "a"]\n', "c.jsonl:1 is not an object"),
        ('{"image": "p0.png"}\n', "c.jsonl:1 lacks 'caption'"),
    ):
        path.write_text(text)
        refused(part, *command)
    refused("ends in '.txt'", *_command(pictures, tmp_path / "c.txt", tmp_path / "out"))
    refused("cannot be read", *_command(pictures, tmp_path / "no.csv", tmp_path / "out"))
    (tmp_path / "latin.csv").write_bytes(b"image,caption\np0.png,caf\xe9\n")
    refused("is not UTF-8", *_command(pictures, tmp_path / "latin.csv", tmp_path / "out"))


def test_rejects_bad_pictures_and_flags(tmp_path, refused):
    table, pictures = write_csv(tmp_path / "c.csv"), write_pictures(tmp_path / "p")
    out = tmp_path / "out"
    refused("is no folder", *_command(tmp_path / "none", table, out))
    refused("--dev must be in [0, 1), got 1.5", *_command(pictures, table, out, "--dev", "1.5"))
    refused("--grid is 0", *_command(pictures, table, out, "--grid", "0"))
    refused("takes either --pictures", *_command(pictures, table, out, "--features", pictures))
    refused("did you mean --grid", *_command(pictures, table, out, "--gird", "3"))
    (pictures / "p4.png").write_bytes(b"no picture")
    refused("p4.png is not a readable picture", *_command(pictures, table, out))
    (tmp_path / "empty").mkdir()
    refused("holds no picture", *_command(tmp_path / "empty", table, out))
    refused("There is no preparation 'fodler'", "fodler")


def test_a_patch_tells_pixels_colours_and_gradients():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :32, 0] = 255  # a red patch above on the left
    picture[32:, 32:, :] = np.arange(32, dtype=np.uint8)[None, :, None] * 8  # brighter to the right
    found = patches_of(Image.fromarray(picture), 2)
    assert found.shape == (4, SIZE)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found[0, :192].reshape(8, 8, 3)[..., 0], 1)
    np.testing.assert_array_equal(found[0, 192:195], [1, 0, 0])
    assert (found[1] == 0).sum() > 192  # black but for what leaks over the edge into a gradient
    across = found[3, 198:].reshape(4, 8)  # the quarters of the patch, by orientation
    assert (across[:, 0] > 0.01).all()
    assert (across[3, 1:] == 0).all()
    boxes = Encoder.of("patches", 2).boxes(64, 64)
    np.testing.assert_array_equal(boxes[1], [0.5, 0, 1, 0.5])


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    pictures = write_pictures(tmp_path / "p", range(3))
    upright = np.zeros((40, 30, 3), np.uint8)
    upright[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(pictures / "p3.png", exif=exif)
    table = write_csv(tmp_path / "c.csv", range(4), split=lambda n: "train" if n == 3 else "test")
    assert prepare(*_command(pictures, table, tmp_path / "out", "--grid", "2")) == 0
    found = np.load(tmp_path / "out/train_ims.npy")[0]
    np.testing.assert_array_equal(found[:, 0], [1, 1, 0, 0])


def test_captions_and_files_may_be_in_other_forms_of_unicode(tmp_path):
    """A caption of either form finds a file of either form, and both forms are one picture."""
    pictures = write_pictures(tmp_path / "p", range(3))
    for n, form in ((1, "NFD"), (2, "NFC")):
        (pictures / f"p{n}.png").rename(pictures / unicodedata.normalize(form, f"é{n}.png"))
    names = [unicodedata.normalize(form, f"é{n}.png") for n in (1, 2) for form in ("NFC", "NFD")]
    rows = [f"{name},a picture {n},train" for n, name in enumerate(names)]
    (tmp_path / "c.csv").write_text("\n".join(["image,caption,split", *rows, "p0,b,test"]) + "\n")
    assert prepare(*_command(pictures, tmp_path / "c.csv", tmp_path / "out")) == 0
    assert (tmp_path / "out/train_ids.txt").read_text("utf-8").split() == [names[0], names[2]]
    assert len((tmp_path / "out/train_caps.txt").read_text().splitlines()) == 4


@pytest.mark.parametrize("kind", ["npy files", "npz files", "npy", "h5"])
def test_a_vector_of_a_picture_is_one_region(tmp_path, kind):
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    names, path = [f"p{n}" for n in TEN], tmp_path / "f"
    if kind.endswith("files"):
        path.mkdir()
        for name, row in zip(names, rows, strict=True):
            if kind == "npy files":
                np.save(path / f"{name}.npy", row)
            else:
                np.savez(path / f"{name}.npz", feat=row)
    elif kind == "npy":
        path = tmp_path / "f.npy"
        np.save(path, rows)
        (tmp_path / "f_ids.txt").write_text("\n".join(names) + "\n")
    else:
        h5py, path = pytest.importorskip("h5py"), tmp_path / "f.h5"
        with h5py.File(path, "w") as file:
            file["features"], file["ids"] = rows, names
    table = write_csv(tmp_path / "c.csv", split=lambda n: "train" if n < 8 else "test")
    assert prepare("folder", "--features", path, "--captions", table, "--out", tmp_path / "o") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "o/train_ims.npy"), rows[:8, None])


@pytest.mark.filterwarnings("always:4 of 10 pictures:RuntimeWarning")
def test_different_pictures_with_equal_features_are_counted(tmp_path, capsys):
    """Pictures of one colour whose files differ in their sizes."""
    pictures = write_pictures(tmp_path / "p", range(6))
    for n in range(6, 10):
        Image.new("RGB", (20 + n, 20), (90, 10, 10)).save(pictures / f"p{n}.png")
    assert prepare("folder", "--pictures", pictures, "--out", tmp_path / "o") == 0
    said = "have the same features as another, different picture, such as p6.png and p7.png"
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_from_pictures_to_codes(tmp_path):
    pictures = write_pictures(tmp_path / "p", range(24))
    table = write_csv(tmp_path / "c.csv", range(24))
    shares = ("--dev", "0.2", "--test", "0.2", "--grid", "2")
    assert prepare(*_command(pictures, table, tmp_path / "data", *shares)) == 0
    options = {"data__source": "scan", "data__root": tmp_path / "data", "data__batching": "rows"}
    options |= {"eval__protocols": "('f8k',)", "eval__dev_protocols": "('f8k',)"}
    options |= {"train__steps": 2, "train__eval_steps": 2}
    assert tiny_run.run(tmp_path / "run", **options) == 0
    assert tiny_run.main(["main", f"--workdir={tmp_path / 'run'}", "--mode=encode"]) == 0
    codes = np.load(next((tmp_path / "run" / "codes").glob("*image*.npy")))
    assert len(codes) == 5


# --- pretrained networks --------------------------------------------------------------------------


@pytest.fixture
def tower(tmp_path):
    return written(tmp_path / "clip", "clip")[0]


def _encoded(tmp_path, tower, out, *more):
    if not (tmp_path / "p").is_dir():
        write_pictures(tmp_path / "p", range(24))
        write_csv(tmp_path / "c.csv", range(24))
    how = ("--encoder", f"clip={tower}", "--grid", "2", *more)
    return _command(tmp_path / "p", tmp_path / "c.csv", tmp_path / out, *how)


def test_a_manifest_names_the_encoder_and_nothing_depends_on_places(tmp_path, tower):
    assert prepare(*_encoded(tmp_path, tower, "a")) == 0
    assert prepare("--verify", tmp_path / "a") == 0
    described = json.loads((tmp_path / "a/manifest.json").read_text())["encoder"]
    assert described["encoder"] == "clip"
    assert described["grid"] == 2
    assert set(described["weights"]) == {"config.json", "model.safetensors"}
    assert described["preprocessing"]["resize"] == 8
    moved = tower.rename(tmp_path / "moved")
    assert prepare(*_encoded(tmp_path, moved, "b")) == 0
    for name in ("manifest.json", "train_ims.npy"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    boxes = np.load(tmp_path / "a/train_boxes.npy")
    assert boxes.shape == (20, 4, 4)
    assert (boxes[:, 0, :2].max(axis=1) > 0).any()  # the crop of a picture that is no square


def test_a_pca_is_fitted_to_train_and_applied_to_all(tmp_path, tower):
    assert prepare(*_encoded(tmp_path, tower, "a")) == 0
    assert prepare(*_encoded(tmp_path, tower, "b", "--pca", "3")) == 0
    pca = Pca.read(tmp_path / "b/encoder_pca.npz")
    plain = np.load(tmp_path / "a/train_ims.npy").astype(np.float32)
    np.testing.assert_allclose(plain.reshape(-1, 8).mean(axis=0), pca.mean, atol=1e-2)
    for split in ("train", "dev"):
        plain = np.load(tmp_path / f"a/{split}_ims.npy").astype(np.float32)
        found = np.load(tmp_path / f"b/{split}_ims.npy")
        np.testing.assert_allclose(found, (plain - pca.mean) @ pca.components, atol=2e-2)
    more = ("--pca", tmp_path / "b/encoder_pca.npz")
    assert prepare(*_encoded(tmp_path, tower, "c", *more)) == 0
    assert (tmp_path / "b/dev_ims.npy").read_bytes() == (tmp_path / "c/dev_ims.npy").read_bytes()


def test_a_killed_encoder_goes_on_with_its_pca(tmp_path, tower, monkeypatch):
    command = _encoded(tmp_path, tower, "out", "--pca", "3")
    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_chunk", _fail_at(3, writing._write_chunk))
        with pytest.raises(KilledError):
            prepare(*command)
    pca = (tmp_path / "out.partial/encoder_pca.npz").read_bytes()
    fits = []
    monkeypatch.setattr(Pca, "fit", lambda *_: fits.append(1))
    assert prepare(*command) == 0
    assert not fits
    assert (tmp_path / "out/encoder_pca.npz").read_bytes() == pca
    monkeypatch.undo()
    assert prepare(*_encoded(tmp_path, tower, "whole", "--pca", "3")) == 0
    for split in ("train", "dev", "test"):
        name = f"{split}_ims.npy"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _fail_at(count, real):
    calls = []

    def write(*arguments):
        calls.append(1)
        if len(calls) == count:
            raise KilledError
        real(*arguments)

    return write


def test_rejects_encoders_that_cannot_be(tmp_path, tower, refused):
    refused("There is no encoder 'vgg'", *_encoded(tmp_path, tower, "o", "--encoder", "vgg"))
    refused("clip names no weights", *_encoded(tmp_path, tower, "o", "--encoder", "clip"))
    refused("--pca is 9, but a cell of clip=", *_encoded(tmp_path, tower, "o", "--pca", "9"))
    refused(
        "cannot be read as .npy or .npz",
        *_encoded(tmp_path, tower, "o", "--pca", tmp_path / "c.csv"),
    )
    given = ("--captions", tmp_path / "c.csv", "--out", tmp_path / "o", "--encoder", "patches")
    refused("--encoder is for --pictures", "folder", "--features", tmp_path / "p", *given)
