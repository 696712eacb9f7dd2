"""Rows of different lengths, and what lies beside the features: read, handed on, refused."""

import numpy as np
import pytest
import tiny_run
from scan_folders import FEATURES, REGIONS, write_folder

from hmgr_jax.data.order import make_order
from hmgr_jax.data.regions import regions
from hmgr_jax.data.regions.row_arrays import convert_array
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.errors import UserError
from hmgr_jax.training.experiment import build

COUNTS = {"train": [1, 2, 3, 3, 2, 1], "dev": [3, 1, 2], "test": [2, 2, 3, 1]}
ROWS = {"train": 6, "dev": 15, "test": 20}


def ragged(root):
    """The folder with its last regions taken away; dev and test store every image five times."""
    write_folder(root)
    for split, counts in COUNTS.items():
        repeated = np.repeat(counts, ROWS[split] // len(counts)).astype(np.int32)
        features = np.load(root / f"{split}_ims.npy")
        for row, count in zip(features, repeated, strict=True):
            row[count:] = 0
        np.save(root / f"{split}_ims.npy", features)
        np.save(root / f"{split}_counts.npy", repeated)
    return root


@pytest.fixture
def root(tmp_path):
    return ragged(tmp_path)


def _write(root, name, make):
    """``{split}_{name}.npy`` of every split; ``make`` gets the number of rows."""
    for split, rows in ROWS.items():
        np.save(root / f"{split}_{name}.npy", make(rows))


def _edit(path, change):
    array = np.load(path)
    change(array)
    np.save(path, array)


def _refused(root, *parts):
    with pytest.raises(UserError) as found:
        open_scan(root)
    assert "\n" not in str(found.value)
    for part in parts:
        assert part in str(found.value)


def test_counts_say_how_many_regions_are_true(root):
    for split, found in open_scan(root).splits.items():
        items = found.sources["image"].gather(np.arange(len(COUNTS[split])))
        assert items["n_regions"].dtype == np.int32
        assert items["n_regions"].tolist() == COUNTS[split]
        assert items["regions"].shape == (len(COUNTS[split]), REGIONS, FEATURES)


def test_without_counts_all_are_true(root):
    (root / "dev_counts.npy").unlink()
    found = open_scan(root).splits["dev"].sources["image"].gather(np.array([1, 1]))
    assert found["n_regions"].tolist() == [REGIONS, REGIONS]


def test_labels_and_scores_are_handed_on_and_the_rest_is_not(root):
    _write(root, "labels", lambda n: np.arange(n * REGIONS, dtype=np.int64).reshape(n, REGIONS) - 1)
    _write(root, "scores", lambda n: np.full((n, REGIONS), 0.5, np.float32))
    _write(root, "wh", lambda n: np.full((n, 2), 100, np.int32))
    source = open_scan(root).splits["dev"].sources["image"]
    found = source.gather(np.array([2, 0]))
    assert sorted(found) == ["labels", "n_regions", "regions", "scores"]
    assert found["labels"].dtype == np.int16
    assert found["labels"].tolist() == [[29, 30, 31], [-1, 0, 1]]  # rows 10 and 0 of the file
    assert found["scores"].dtype == np.float16
    assert (found["scores"] == 0.5).all()


def test_side_arrays_count_for_the_fingerprint(root):
    first = open_scan(root).fingerprint
    _edit(root / "train_counts.npy", lambda counts: counts.__setitem__(0, 2))
    assert open_scan(root).fingerprint != first


def _set(row, value):
    return lambda array: array.__setitem__(row, value)


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("counts", _set(4, 0), ("dev_counts.npy holds 0 in row 4", "1 to 3 true regions")),
        ("counts", _set(14, 4), ("dev_counts.npy holds 4 in row 14", "1 to 3")),
        ("counts", _set(14, -1), ("dev_counts.npy holds -1 in row 14",)),
        ("ims", _set((7, 2, 1), 0.5), ("dev_ims.npy holds in row 7 values other than 0 after its",
                                       "1 true regions")),
    ],
)  # fmt: skip
def test_bad_counts(root, name, change, parts):
    _edit(root / f"dev_{name}.npy", change)
    _refused(root, *parts)


def test_counts_of_another_kind(root):
    path = root / "dev_counts.npy"
    for array, part in (
        (np.ones(14, np.int32), "has shape (14,) and type int32 where shape (15,)"),
        (np.ones(15), "type float64 where shape (15,) was expected, an integer per row"),
        (np.ones((15, 1), int), "has shape (15, 1)"),
    ):
        np.save(path, array)
        _refused(root, "dev_counts.npy", part)
    path.write_bytes(b"no array")
    _refused(root, "dev_counts.npy does not begin with a .npy header")


def test_padding_of_a_large_file_is_checked_when_it_is_read(root, monkeypatch):
    monkeypatch.setattr(regions, "SCAN_BELOW", 0)
    _edit(root / "train_ims.npy", _set((4, 2, 0), 1))
    source = open_scan(root).splits["train"].sources["image"]
    source.gather(np.array([0, 3]))
    for _ in range(2):  # a refused row does not count as checked
        with pytest.raises(UserError, match=r"train_ims\.npy holds in row 4 values other than 0"):
            source.gather(np.array([3, 4]))


def test_boxes_of_padding_are_zero_too(root):
    _write(root, "boxes", lambda n: np.tile(np.float32([0, 0, 1, 1]), (n, REGIONS, 1)))
    _refused(root, "train_boxes.npy holds in row 0 values other than 0 after its 1 true")


@pytest.mark.parametrize(
    ("name", "array", "parts"),
    [
        ("labels", np.zeros((6, REGIONS)), ("train_labels.npy", "float64", "one int16 per row")),
        ("labels", np.zeros((6, 2), int), ("train_labels.npy has shape (6, 2)", "(6, 3)")),
        ("labels", np.full((6, REGIONS), 40000), ("train_labels.npy holds in row 0", "of 40000",
                                                  "-1 to 32767")),
        ("scores", np.full((6, REGIONS), np.nan), ("train_scores.npy holds in row 0", "of nan")),
        ("scores", np.full((6, REGIONS), 1e6), ("scores of 1000000.0 where -65504 to 65504",)),
    ],
)  # fmt: skip
def test_bad_labels_and_scores(root, name, array, parts):
    _write(root, name, lambda n: np.zeros((n, REGIONS), np.int16))
    np.save(root / f"train_{name}.npy", array)
    _refused(root, *parts)


def test_labels_of_some_splits_only(root):
    _write(root, "labels", lambda n: np.zeros((n, REGIONS), np.int16))
    (root / "dev_labels.npy").unlink()
    _refused(root, "train_labels.npy has no counterpart for the dev split: give labels for all")


def test_the_first_number_that_does_not_fit_is_named():
    values = np.zeros((3, 2))
    values[1, 1] = -2
    with pytest.raises(UserError, match=r"row 1 labels of -2\.0 where -1 to 32767"):
        convert_array("labels", values, lambda i: f"row {i}")


# --- the visual side -----------------------------------------------------------------------------


def test_rows_may_be_frames_of_videos(root):
    split = open_scan(root, visual="video").splits["train"]
    assert split.visual == "video"
    assert sorted(split.sources) == sorted(split.ids) == ["text", "video"]
    found = split.sources["video"].gather(np.array([1, 0]))
    assert sorted(found) == ["frames", "n_frames"]
    assert found["n_frames"].tolist() == [2, 1]
    assert make_order(split, 3, 0, "groups").steps_per_epoch == 2


def _folder(root):
    tiny_run.scan_folder(root)
    for split, rows in (("train", 24), ("dev", 8), ("test", 8)):
        np.save(root / f"{split}_labels.npy", np.zeros((rows, 4), np.int16))
        np.save(root / f"{split}_scores.npy", np.zeros((rows, 4), np.float16))
    return root


def _options(root, **more):
    return {"data__source": "scan", "data__root": root, "data__batching": "rows", **more}


@pytest.mark.parametrize("model", ["hmgr", "imram"])
def test_a_model_that_asks_for_no_labels_gets_none(tmp_path, model):
    config = tiny_run.config(model=model, **_options(_folder(tmp_path)))
    experiment = build(config)
    assert sorted(experiment.plan.features["image"]) == ["labels", "n_regions", "regions", "scores"]
    items = experiment.data.splits["train"].sources["image"].gather(np.arange(2))
    text = experiment.data.splits["train"].sources["text"].gather(np.arange(2))
    batch = experiment.for_model({"image": items, "text": text, "row": {}})
    assert sorted(batch["image"]) == ["n_regions", "regions"]


@pytest.mark.parametrize("model", ["hmgr", "imram"])
def test_a_model_of_another_modality_is_refused_with_the_switch(tmp_path, model, capsys):
    options = _options(_folder(tmp_path / "data"), data__visual="video")
    assert tiny_run.run(tmp_path / "run", model=model, **options) == 2
    found = capsys.readouterr().err
    assert f"{model} reads image and text, but the data has video and text" in found
    assert "data.visual" in found


def test_values_of_the_switch(tmp_path, capsys):
    options = _options(_folder(tmp_path / "data"), data__visual="film")
    assert tiny_run.run(tmp_path / "run", **options) == 2
    assert "data.visual is one of image, video, not 'film'" in capsys.readouterr().err
    assert tiny_run.run(tmp_path / "run", data__visual="video") == 2
    assert "Generated worlds hold images" in capsys.readouterr().err
