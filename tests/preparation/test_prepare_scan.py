"""SCAN folders: repeated rows, float16, boxes, refusals; the same numbers from both folders."""

import json

import numpy as np
import pytest
import tiny_run
from preparing import REGIONS, boxes, check, opened, prepare, values

from hmgr_jax.data.fingerprint import fingerprint


def write(root, split, numbers, *, times=1, dtype=np.float32, kind="ims", with_boxes=True):
    root.mkdir(exist_ok=True)
    repeated = [n for n in numbers for _ in range(times)]
    np.save(root / f"{split}_{kind}.npy", np.stack([values(n) for n in repeated]).astype(dtype))
    lines = [f"a picture {n} of {c}" for n in numbers for c in range(2)]
    (root / f"{split}_caps.txt").write_text("\n".join(lines) + "\n")
    (root / f"{split}_ids.txt").write_text("".join(f"{n}\n" for n in repeated))
    if with_boxes:
        np.save(root / f"{split}_boxes.npy", np.stack([boxes()] * len(repeated)))
    return root


def chained(root):
    """Word graphs of every split, each word on the one before it."""
    for path in sorted(root.glob("*_caps.txt")):
        blocks = []
        for caption in path.read_text("utf-8").splitlines():
            rows = [
                "\t".join([str(k + 1), word, *"____", str(k), "dep", "_", "_"])
                for k, word in enumerate(caption.split())
            ]
            blocks.append("\n".join([f"# text = {caption}", *rows]) + "\n\n")
        path.with_suffix(".conllu").write_text("".join(blocks), "utf-8")
    return root


@pytest.fixture
def source(tmp_path):
    """Train stored once, dev stored once a caption, as SCAN does; float32."""
    write(tmp_path / "raw", "train", [0, 1, 2])
    return write(tmp_path / "raw", "dev", [5, 6], times=2, kind="feat")


def _captions(numbers):
    return [[f"a picture {n} of {c}" for c in range(2)] for n in numbers]


def test_every_image_once_and_in_float16(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare("scan", "--source", source, "--out", out) == 0
    assert f"{out} holds images: 3 of train (6 captions), 2 of dev (4 captions)." in (
        capsys.readouterr().out
    )
    check(out, "train", [0, 1, 2], ["0", "1", "2"], _captions([0, 1, 2]))
    check(out, "dev", [5, 6], ["5", "6"], _captions([5, 6]))
    assert np.load(out / "dev_ims.npy").shape[0] == 2
    assert not (tmp_path / "out.partial").exists()
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_the_manifest_is_the_fingerprint_and_depends_on_the_data_alone(source, tmp_path):
    assert prepare("scan", "--source", source, "--out", tmp_path / "a") == 0
    moved = source.rename(tmp_path / "moved")
    assert prepare("scan", "--source", moved, "--out", tmp_path / "b") == 0
    assert (tmp_path / "a/manifest.json").read_bytes() == (
        tmp_path / "b/manifest.json"
    ).read_bytes()
    assert fingerprint([], tmp_path / "a") == fingerprint([], tmp_path / "b")
    found = json.loads((tmp_path / "a/manifest.json").read_text())
    assert found["splits"]["dev"] == {
        "images": 2, "captions": 4, "captions_per_image": [2, 2], "regions": 4,
        "regions_per_image": [4, 4], "features": 6,
    }  # fmt: skip


def test_different_numbers_of_captions_are_kept_apart_by_id(tmp_path):
    root = write(tmp_path / "raw", "train", [0, 1, 2])
    rows = [0, 0, 0, 1, 2, 2]
    np.save(root / "train_ims.npy", np.stack([values(n) for n in rows]))
    np.save(root / "train_boxes.npy", np.stack([boxes()] * 6))
    (root / "train_ids.txt").write_text("".join(f"{n}\n" for n in rows))
    assert prepare("scan", "--source", root, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/train_cap_ids.txt").read_text() == "0\n0\n0\n1\n2\n2\n"
    texts = [line for of in _captions([0, 1, 2]) for line in of]
    check(tmp_path / "out", "train", [0, 1, 2], ["0", "1", "2"], [texts[:3], texts[3:4], texts[4:]])
    again = tmp_path / "again"
    assert prepare("scan", "--source", tmp_path / "out", "--out", again) == 0
    assert (again / "manifest.json").read_bytes() == (tmp_path / "out/manifest.json").read_bytes()


def test_boxes_in_pixels_become_shares(source, tmp_path):
    for split, rows in (("train", 3), ("dev", 4)):
        (source / f"{split}_boxes.npy").unlink()
        np.save(source / f"{split}_ims_bbx.npy", np.stack([boxes(REGIONS, 40, 20)] * rows))
        np.save(source / f"{split}_ims_size.npy", np.tile([40, 20], (rows, 1)))
    assert prepare("scan", "--source", source, "--out", tmp_path / "out") == 0
    check(tmp_path / "out", "dev", [5, 6], ["5", "6"], _captions([5, 6]))


def test_only_the_splits_asked_for(source, tmp_path):
    assert prepare("scan", "--source", source, "--out", tmp_path / "o", "--splits", "dev") == 0
    assert not (tmp_path / "o" / "train_ims.npy").exists()
    assert len(opened(tmp_path / "o", "dev")["dev"]) == 4


def test_word_graphs_are_carried(source, tmp_path, refused):
    """Byte for byte: captions keep their order."""
    path = chained(source) / "dev_caps.conllu"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    out = tmp_path / "out"
    assert prepare("scan", "--source", source, "--out", out) == 0
    for name in ("train", "dev"):
        carried = (out / f"{name}_caps.conllu").read_bytes()
        assert carried == (source / f"{name}_caps.conllu").read_bytes()
    listed = json.loads((out / "manifest.json").read_text())["files"]
    assert {"train_caps.conllu", "dev_caps.conllu"} <= listed.keys()
    assert prepare("--verify", out) == 0
    item = opened(out, "train", "dev")["dev"].sources["text"].gather(np.array([3]))
    assert item["heads"].tolist() == [[0, 0, 1, 2, 3, 4, 6]]
    assert prepare("scan", "--source", out, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again/manifest.json").read_bytes() == (out / "manifest.json").read_bytes()
    path.write_bytes(path.read_bytes().replace(b"\tdep\t", b"\tdet\t"))
    refused("exists and is not this preparation", "scan", "--source", source, "--out", out)


def test_word_graphs_that_do_not_fit_are_refused(source, tmp_path, refused):
    command = ("scan", "--source", chained(source), "--out", tmp_path / "out")
    path = source / "dev_caps.conllu"
    path.write_text(path.read_text().replace("picture 6", "picture 7"))
    refused("sentence 3, reads 'a picture 7 of 0' where the caption is 'a picture 6", *command)
    path.unlink()
    refused("train_caps.conllu has no counterpart dev_caps.conllu", *command)
    assert not (tmp_path / "out.partial").exists()


def _edit(path, change):
    array = np.load(path)
    change(array)
    np.save(path, array)


def _set(row, value):
    def change(array):
        array[row, 1, 2] = value

    return change


@pytest.mark.parametrize(
    ("name", "row", "value", "parts"),
    [
        (
            "dev_feat",
            3,
            9,
            ("dev_feat.npy holds in row 3 other features than in row 2", "both are 6"),
        ),
        ("train_ims", 1, np.nan, ("train_ims.npy, row 1, holds NaN or infinity",)),
        ("train_ims", 2, 1e5, ("train_ims.npy, row 2, holds 100000 where at most 65504 fits",)),
        ("train_boxes", 1, 7, ("train_boxes.npy holds in row 1 boxes from 0 to 7",)),
    ],
)
def test_a_bad_row_is_named(source, tmp_path, refused, name, row, value, parts):
    _edit(source / f"{name}.npy", _set(row, value))
    refused(parts, "scan", "--source", source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rejects_bad_folders(source, tmp_path, refused):
    out = ("--out", tmp_path / "out")
    refused("is not a folder; it should hold train_ims.npy", "scan", "--source", "/none", *out)
    refused("--source is missing", "scan", *out)
    refused("lacks test_ims.npy", "scan", "--source", source, "--splits", "test", *out)
    (source / "dev_caps.txt").write_text("a\nb\nc\n")
    refused(("dev_caps.txt has 3 captions", "4 rows"), "scan", "--source", source, *out)
    (source / "dev_caps.txt").unlink()
    refused("lacks dev_caps.txt", "scan", "--source", source, *out)
    write(source, "dev", [5, 6], with_boxes=False)
    (source / "dev_feat.npy").unlink()
    (source / "dev_boxes.npy").unlink()
    refused("has no counterpart for the dev split", "scan", "--source", source, *out)
    assert not (tmp_path / "out.partial").exists()


def test_captions_that_name_their_images_must_fit(tmp_path, refused):
    root = write(tmp_path / "raw", "train", [0, 1, 2])
    command = ("scan", "--source", root, "--out", tmp_path / "out")
    ids = root / "train_cap_ids.txt"
    for lines, parts in (
        ("0\n0\n0\n1\n2\n", ("train_cap_ids.txt has 5 lines", "_caps.txt has 6")),
        ("0\n0\n2\n1\n2\n2\n", ("train_cap_ids.txt:3 is '2' where the line before or '1'",)),
        ("0\n0\n1\n9\n2\n2\n", ("train_cap_ids.txt:4 is '9' where the line before or '2'",)),
        ("0\n0\n1\n1\n1\n1\n", ("ends before '2'",)),
    ):
        ids.write_text(lines)
        refused(parts, *command)
    (root / "train_ids.txt").unlink()
    refused("names images but", *command)


def test_labels_scores_and_sizes_of_the_real_regions_are_carried_through(real_data, tmp_path):
    raw, out = real_data / "f8k_regions", tmp_path / "out"
    if not raw.is_dir():
        pytest.skip(f"no f8k_regions in {real_data}")
    assert prepare("scan", "--source", raw, "--splits", "dev", "--out", out) == 0
    for name in ("ims", "boxes", "labels", "scores", "wh"):
        was, made = (np.load(root / f"dev_{name}.npy") for root in (raw, out))
        assert was.dtype == made.dtype
        np.testing.assert_array_equal(was, made)
    found = opened(out, "dev")["dev"].sources["image"].gather(np.arange(113))
    np.testing.assert_array_equal(found["labels"], np.load(raw / "dev_labels.npy"))
    np.testing.assert_array_equal(found["scores"], np.load(raw / "dev_scores.npy"))


@pytest.mark.slow
def test_the_prepared_flickr8k_trains_to_the_same_metrics(real_data, tmp_path):
    raw, out = real_data / "flickr8k", tmp_path / "f8k"
    if not raw.is_dir():
        pytest.skip(f"no flickr8k in {real_data}")
    assert prepare("scan", "--source", raw, "--out", out) == 0
    assert prepare("--verify", out) == 0
    options = {
        "model": "vse",
        "recipe": str(tiny_run.ROOT / "configs" / "f8k.py"),
        "data__captions_from": "",
        "data__vectors": "none",
        "data__buckets": "(40,)",
        "data__max_words": 38,
        "model__dim": 16,
        "model__word_dim": 8,
        "train__steps": 4,
        "train__batch_size": 16,
        "train__warmup_steps": 1,
        "train__log_steps": 1,
        "train__eval_steps": 2,
        "parallel__devices": 1,
    }
    for root, name in ((raw, "raw"), (out, "prepared")):
        assert tiny_run.run(tmp_path / name, data__root=root, **options) == 0
    found = (tmp_path / "prepared/metrics.jsonl").read_bytes()
    assert found.count(b"\n") >= 6
    assert found == (tmp_path / "raw/metrics.jsonl").read_bytes()
    metrics = [tiny_run.results(tmp_path / name)["metrics"] for name in ("raw", "prepared")]
    assert metrics[0] == metrics[1]
