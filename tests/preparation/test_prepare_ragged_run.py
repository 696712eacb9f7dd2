"""Folders of rows of different lengths are trained on: prepared as raw, of images and of videos."""

import numpy as np
import pytest
import tiny_run
from msrvtt_files import challenge, npy_folder
from preparing import prepare

REGIONS = 4
OPTIONS = {
    "data__source": "scan",
    "data__batching": "rows",
    "eval__protocols": "('plain',)",
    "eval__dev_protocols": "('plain',)",
    "train__warmup_steps": 1,
}


def ragged_folder(root):
    """Train once an image, dev and test once a caption; 1 to 4 regions, boxes, labels."""
    tiny_run.scan_folder(root, regions=REGIONS)
    rng = np.random.default_rng(0)
    for split, rows, times in (("train", 24, 1), ("dev", 8, 2), ("test", 8, 2)):
        counts = rng.integers(1, REGIONS + 1, rows).astype(np.int32)
        true = np.arange(REGIONS) < counts[:, None]
        arrays = {
            "ims": np.load(root / f"{split}_ims.npy") * true[..., None],
            "boxes": np.tile(np.float32([0.1, 0.2, 0.6, 0.8]), (rows, REGIONS, 1))
            * true[..., None],
            "labels": np.where(true, 5, -1).astype(np.int16),
            "counts": counts,
            "wh": np.full((rows, 2), 100, np.int32),
        }
        for name, array in arrays.items():
            np.save(root / f"{split}_{name}.npy", np.repeat(array, times, axis=0))
        ids = (root / f"{split}_ids.txt").read_text().splitlines()
        (root / f"{split}_ids.txt").write_text("".join(f"{x}\n" * times for x in ids))
    return root


@pytest.mark.slow
def test_the_prepared_folder_trains_to_the_same_metrics(tmp_path):
    raw, out = ragged_folder(tmp_path / "raw"), tmp_path / "out"
    assert prepare("scan", "--source", raw, "--out", out) == 0
    assert prepare("--verify", out) == 0
    assert np.load(out / "dev_counts.npy").shape == (8,)
    for name in ("boxes", "labels", "wh", "counts"):
        kept = np.load(raw / f"dev_{name}.npy")[::2].astype(np.load(out / f"dev_{name}.npy").dtype)
        np.testing.assert_array_equal(np.load(out / f"dev_{name}.npy"), kept)
    for root, name in ((raw, "a"), (out, "b")):
        steps = {"train__steps": 4, "train__eval_steps": 2}
        assert tiny_run.run(tmp_path / name, data__root=root, **OPTIONS, **steps) == 0
    found = (tmp_path / "a/metrics.jsonl").read_bytes()
    assert found.count(b"\n") >= 6
    assert found == (tmp_path / "b/metrics.jsonl").read_bytes()


def test_copies_of_an_image_with_other_counts_are_refused(tmp_path, refused):
    root = ragged_folder(tmp_path / "raw")
    counts = np.load(root / "dev_counts.npy")
    counts[counts < REGIONS] += np.arange((counts < REGIONS).sum(), dtype=np.int32) % 2
    np.save(root / "dev_counts.npy", counts)
    command = ("scan", "--source", root, "--out", tmp_path / "out")
    refused("dev_ims.npy holds in row", *command)
    assert not (tmp_path / "out").exists()
    (root / "test_labels.npy").unlink()
    refused(("labels.npy has no counterpart for the test split", "give labels"), *command)


@pytest.mark.slow
def test_a_prepared_folder_of_videos_trains(tmp_path):
    features = npy_folder(tmp_path / "f")
    given = ("--json", challenge(tmp_path / "v.json"), "--features", features)
    assert prepare("msrvtt", *given, "--frames", "4", "--out", tmp_path / "out") == 0
    options = OPTIONS | {"data__visual": "video", "model__visual": "video"}
    options |= {"train__steps": 2, "train__batch_size": 4, "train__eval_steps": 2}
    options |= {"model": "hmgr", "data__root": tmp_path / "out"}
    assert tiny_run.run(tmp_path / "run", **options) == 0
    assert {"v2t/R@1", "t2v/R@1", "rsum"} <= tiny_run.results(tmp_path / "run")["metrics"].keys()
