"""Records of TFDS: what is in them, in which order, after kills too; refusals; the builder."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from preparing import FEATURES, REGIONS, boxes, opened, prepare, values
from tensorflow_datasets.proto import tf_example_pb2
from test_prepare_scan import chained, write
from tiny_run import files

from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.preparation import tfds_builder
from hmgr_jax.preparation.plan import Array, Chunk, Plan, SplitPlan
from hmgr_jax.preparation.tfds_builder import RecordFile, RetrievalRecords
from hmgr_jax.preparation.writing import Terminated
from hmgr_jax.preparation.writing import write as write_plan

VOCABULARY = Vocabulary((*MARKS, "a"))
TRAIN = [3, 1, 4, 0, 5]


@pytest.fixture
def source(tmp_path):
    """Train stored once in an order of its own, dev once a caption."""
    write(tmp_path / "raw", "train", TRAIN, dtype=np.float16)
    return write(tmp_path / "raw", "dev", [7, 6], times=2, dtype=np.float16)


@pytest.fixture
def two_a_file(monkeypatch):
    row = REGIONS * FEATURES * 2 + REGIONS * 4 * 4
    monkeypatch.setattr(tfds_builder, "SHARD_BYTES", 2 * row)


def read(folder, split="train"):
    return list(tfds.builder_from_directory(folder).as_data_source(split))


def contents(folder):
    return {name: data for name, (data, _) in files(folder).items()}


def command(source, out):
    return ("array-record", "--source", source, "--out", out)


def test_every_image_once_in_the_order_of_the_rows(source, tmp_path, two_a_file, capsys):
    out = tmp_path / "out"
    assert prepare(*command(source, out)) == 0
    assert f"{out} holds images: 5 of train (10 captions), 2 of dev (4 captions)." in (
        told := capsys.readouterr().out
    )
    assert f"--config.data.root={out} --config.data.source=array_record" in told
    assert len(list(out.glob("retrieval_records-train.array_record-*-of-00003"))) == 3
    for split, numbers in (("train", TRAIN), ("dev", [7, 6])):
        found = read(out, split)
        assert [record["id"].decode() for record in found] == [str(n) for n in numbers]
        for number, record in zip(numbers, found, strict=True):
            assert record["features"].dtype == np.float16
            np.testing.assert_array_equal(record["features"], values(number))
            np.testing.assert_array_equal(record["boxes"], boxes())
            assert record["captions"]["text"] == [
                b"a picture %d of %d" % (number, c) for c in (0, 1)
            ]
            assert record["captions"]["id"] == [b"%d#%d" % (number, c) for c in (0, 1)]
    assert prepare("--verify", out) == 0
    assert "is as its manifest says" in capsys.readouterr().out
    shard = sorted(out.glob("*-train.array_record-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert prepare("--verify", out) == 2
    assert f"{shard} has" in capsys.readouterr().err


def test_raw_and_prepared_float16_give_the_same_records(source, tmp_path):
    assert prepare("scan", "--source", source, "--out", tmp_path / "once") == 0
    assert prepare(*command(tmp_path / "once", tmp_path / "a")) == 0
    assert prepare(*command(source, tmp_path / "b")) == 0
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert manifests[0] == manifests[1]


def test_float32_stays(source, tmp_path):
    for name in ("train", "dev"):
        path = source / f"{name}_ims.npy"
        np.save(path, np.load(path).astype(np.float32) + np.float32(1e-4))
    assert prepare(*command(source, tmp_path / "out")) == 0
    features = read(tmp_path / "out")[0]["features"]
    np.testing.assert_array_equal(features, np.load(source / "train_ims.npy")[0])
    assert features.dtype == np.float32


class KilledError(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("end", [KilledError, Terminated])
@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_stopped_preparation_goes_on(
    source, tmp_path, two_a_file, monkeypatch, capsys, end, after
):
    assert prepare(*command(source, tmp_path / "whole")) == 0
    real, made = RecordFile.write, []

    def write_file(self, path, records):
        made.append(path)
        if len(made) > after:
            path.write_bytes(b"half a file")
            raise end
        real(self, path, records)

    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "write", write_file)
        if end is Terminated:
            assert prepare(*command(source, tmp_path / "out")) == 143
        else:
            with pytest.raises(end):
                prepare(*command(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    record = json.loads((tmp_path / "out.partial/.progress.json").read_text())["written"]
    assert sum(split["rows"] for split in record.values()) == after
    again = []
    monkeypatch.setattr(RecordFile, "write", lambda *given: again.append(real(*given)))
    assert prepare(*command(source, tmp_path / "out")) == 0
    assert len(again) == 4 - after
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()
    capsys.readouterr()
    assert prepare(*command(source, tmp_path / "out")) == 0
    assert "is already complete" in capsys.readouterr().out


def test_rejects_unusable_sources(source, tmp_path, refused):
    out = tmp_path / "out"
    refused("--source is missing", "array-record", "--out", out)
    refused("exists and is not this preparation", *command(source, source))
    np.save(source / "dev_ims.npy", np.load(source / "dev_ims.npy")[:, :3])
    np.save(source / "dev_boxes.npy", np.load(source / "dev_boxes.npy")[:, :3])
    refused(("[4, 6] float16 a row in train_ims.npy but [3, 6] float16", "--splits"),
            *command(source, out))  # fmt: skip
    assert prepare(*command(source, out), "--splits", "train") == 0
    bad = np.load(source / "train_ims.npy")
    bad[2, 1, 0] = np.inf
    np.save(source / "train_ims.npy", bad)
    refused("train_ims.npy, row 2, holds NaN or infinity", *command(source, tmp_path / "nan"),
            "--splits", "train")  # fmt: skip
    assert not (tmp_path / "nan").exists()
    for end in ("ims.npy", "caps.txt", "ids.txt", "boxes.npy"):
        (source / f"dev_{end}").rename(source / f"my-dev_{end}")
    refused("has a split 'my-dev', which TFDS takes for no name", *command(source, tmp_path / "x"))


def test_the_bytes_of_a_record_are_not_left_to_chance(tmp_path):
    names = [f"name{k:02}" for k in range(20)]
    example = tf_example_pb2.Example()
    for name in reversed(names):
        example.features.feature[name].int64_list.value.append(1)
    RecordFile().write(tmp_path / "x", [(0, example.SerializeToString())])
    (record,) = ArrayRecordDataSource([str(tmp_path / "x")])
    places = [record.index(name.encode()) for name in names]
    assert places == sorted(places)


def test_a_disk_that_takes_nothing(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="could not be written"):
        RecordFile().write(tmp_path / "none" / "x", iter([(0, b"")]))
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"out.partial needs 0.0 GB more where 0.0 GB are free"):
        write_plan(few(), tmp_path / "out", tfds_builder.RECORDS)


ARRAYS = {
    "ims": Array((2, 3), np.dtype(np.float16)),
    "counts": Array((), np.dtype(np.int32)),
    "labels": Array((2,), np.dtype(np.int16)),
    "scores": Array((2,), np.dtype(np.float16)),
    "wh": Array((2,), np.dtype(np.int32)),
}


class FewRows:
    """A source of two images with all the arrays that there may be."""

    def begin(self, folder):
        return []

    def end(self, folder):
        pass

    def described(self):
        return {}

    def chunks(self, todo):
        for name, rows in todo.items():
            of = np.flatnonzero(rows)
            if len(of):
                yield Chunk(name, of, {end: self.rows(end)[of] for end in ARRAYS}, str)

    def changed(self, since):
        return {}

    def rows(self, end):
        shape, dtype = ARRAYS[end]
        return (1 + np.arange(2 * int(np.prod(shape)))).reshape(2, *shape).astype(dtype)


def few():
    splits = {"train": SplitPlan(["a", "b"], [["one"], ["two", "three"]], ARRAYS)}
    return Plan(splits, FewRows(), {})


def test_counts_labels_scores_and_sizes_are_carried(tmp_path):
    source = FewRows()
    assert write_plan(few(), tmp_path / "out", tfds_builder.RECORDS)
    found = read(tmp_path / "out")
    names = {"ims": "features", "counts": "count"}
    for end in ARRAYS:
        want = source.rows(end)
        got = np.stack([record[names.get(end, end)] for record in found])
        np.testing.assert_array_equal(got, want)
        assert end == "counts" or got.dtype == want.dtype  # one number is a Python int
        if end != "ims":
            np.testing.assert_array_equal(np.load(tmp_path / "out" / f"train_{end}.npy"), want)
    assert not (tmp_path / "out/train_ims.npy").exists()
    assert [record["captions"]["id"] for record in found] == [[b"a#0"], [b"b#0", b"b#1"]]


def test_ragged_folders_are_carried(source, tmp_path):
    from hmgr_jax.data.records.open import open_array_record, open_tfds

    for split, rows in (("train", 5), ("dev", 4)):
        counts = np.array([4, 2, 3, 1, 4][:rows] if rows == 5 else [2, 2, 3, 3], np.int32)
        true = np.arange(REGIONS) < counts[:, None]
        np.save(source / f"{split}_counts.npy", counts)
        np.save(source / f"{split}_labels.npy", np.where(true, 7, -1).astype(np.int16))
        np.save(source / f"{split}_wh.npy", np.full((rows, 2), 9, np.int32))
        for end in ("ims", "boxes"):
            array = np.load(source / f"{split}_{end}.npy")
            np.save(source / f"{split}_{end}.npy", array * true[..., None].astype(array.dtype))
    out = tmp_path / "out"
    assert prepare(*command(source, out)) == 0
    want = opened(source, "train", "dev")
    options = {"splits": {"train": "train", "dev": "dev"}, "vocabulary": VOCABULARY}
    videos = open_array_record(out, **options, visual="video").splits["train"].sources["video"]
    assert videos.gather(np.arange(5))["n_frames"].tolist() == [4, 2, 3, 1, 4]
    for found in (open_array_record(out, **options), open_tfds(str(out), "", **options)):
        for split, one in want.items():
            items = np.arange(len(one.sources["image"]))
            got = found.splits[split].sources["image"].gather(items)
            for name, array in one.sources["image"].gather(items).items():
                np.testing.assert_array_equal(got[name], array)
    assert read(out)[1]["count"] == 2
    assert read(out)[1]["labels"].tolist() == [7, 7, -1, -1]


def test_word_graphs_lie_beside_the_records(source, tmp_path):
    """Records hold none: who reads these alone goes without, and the builder alone says so."""
    from hmgr_jax.data.records.open import open_array_record, open_tfds

    out = tmp_path / "out"
    assert prepare(*command(chained(source), out)) == 0
    assert prepare("--verify", out) == 0
    options = {"splits": {"train": "train", "dev": "dev"}, "vocabulary": VOCABULARY}
    want = opened(source, "train", "dev")["train"].sources["text"].gather(np.arange(10))
    found = open_array_record(out, **options).splits["train"].sources["text"].gather(np.arange(10))
    np.testing.assert_array_equal(found["heads"], want["heads"])
    texts = open_tfds(str(out), "", **options).splits["train"].sources["text"]
    assert "heads" not in texts.gather(np.arange(10))
    with pytest.warns(RuntimeWarning, match="records hold no word graphs"):
        RetrievalRecords(source=source, data_dir=tmp_path)


def test_the_builder_alone(source, tmp_path):
    with contextlib.redirect_stdout(io.StringIO()):
        RetrievalRecords(source=source, data_dir=tmp_path).download_and_prepare()
    found = tfds.data_source("retrieval_records:1.0.0", data_dir=tmp_path, split="train")
    assert [record["id"].decode() for record in found] == [str(n) for n in TRAIN]
    assert prepare(*command(source, tmp_path / "out")) == 0
    ours = contents(tmp_path / "out")
    theirs = contents(tmp_path / "retrieval_records" / "1.0.0")
    assert theirs.items() <= ours.items()
    again = RetrievalRecords(data_dir=tmp_path)
    np.testing.assert_array_equal(again.as_data_source("dev")[1]["features"], values(6))
    with pytest.raises(UserError, match="holds no dataset yet: give source=FOLDER"):
        RetrievalRecords(data_dir=tmp_path / "other")
