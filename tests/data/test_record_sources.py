"""ArrayRecord and TFDS as sources: the same data set as the SCAN folder, and refusals."""

import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tfds_datasets as datasets
import tiny_run
from scan_folders import write_folder

from hmgr_jax.data.open import open_data
from hmgr_jax.data.records.open import open_array_record, open_tfds
from hmgr_jax.data.records.rows import RecordRows
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.preparation import tfds_builder
from hmgr_jax.preparation.writing import write

SPLITS = {"train": "train", "dev": "dev", "test": "test"}
WORDS = Vocabulary((*MARKS, "a", "picture"))


def records(source, out):
    assert write(tfds_builder.plan_records(source), out, tfds_builder.RECORDS)
    return out


@pytest.fixture
def scan(tmp_path):
    """Six images in train, stored once; dev and test store them once a caption."""
    (tmp_path / "scan").mkdir()
    return write_folder(tmp_path / "scan")


@pytest.fixture
def folder(scan, tmp_path, monkeypatch):
    """Its records, two a file."""
    monkeypatch.setattr(tfds_builder, "SHARD_BYTES", 2 * 3 * 5 * 2)
    return records(scan, tmp_path / "records")


def train(folder):
    return open_tfds(str(folder), "", splits={"train": "train"}, vocabulary=WORDS).splits["train"]


def same(one, other):
    assert one.vocabulary.words == other.vocabulary.words
    for role, split in one.splits.items():
        found = other.splits[role]
        for kind in ("image", "text"):
            assert list(found.ids[kind]) == list(split.ids[kind])
            np.testing.assert_array_equal(found.groups[kind], split.groups[kind])
            np.testing.assert_array_equal(found.rows[kind], split.rows[kind])
            items = np.random.default_rng(0).integers(0, len(split.sources[kind]), 20)
            want = split.sources[kind].gather(items)
            for source in (found.sources[kind], pickle.loads(pickle.dumps(found.sources[kind]))):
                got = source.gather(items)
                assert {k: v.dtype for k, v in got.items()} == {k: v.dtype for k, v in want.items()}
                for name, values in want.items():
                    np.testing.assert_array_equal(got[name], values)


def test_the_same_data_set_from_every_source(scan, folder, tmp_path):
    assert len(list(folder.glob("*-train.array_record-*"))) == 3
    want = open_scan(scan, splits=SPLITS)
    same(want, open_array_record(folder, splits=SPLITS))
    same(want, open_tfds(str(folder), "", splits=SPLITS))
    assert open_array_record(folder, splits=SPLITS).fingerprint == (
        open_tfds(str(folder), "", splits=SPLITS).fingerprint
    )
    tfds_builder.RetrievalRecords(source=scan, data_dir=tmp_path / "tfds").download_and_prepare()
    same(want, open_tfds("retrieval_records", str(tmp_path / "tfds"), splits=SPLITS))


def test_files_are_opened_when_read_and_not_pickled(folder):
    rows = RecordRows(tfds.builder_from_directory(folder), "train")
    assert not rows.records._readers
    rows.gather(np.array([3, 3, 2]))
    assert [number for _, number in rows.records._readers] == [1]
    state = pickle.dumps(rows)
    assert len(state) < 2000
    assert not pickle.loads(state).records._readers
    with pytest.raises(IndexError, match="from 0 to 5"):
        rows.gather(np.array([6]))


def test_threads_share_a_source(scan, folder):
    rows = RecordRows(tfds.builder_from_directory(folder), "train")
    want, wrong = np.load(scan / "train_ims.npy"), []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            some = rng.integers(0, 6, 4)
            wrong.extend(some[(rows.gather(some) != want[some]).any(axis=(1, 2))])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("encoding", ["none", "zlib", "bytes"])
@pytest.mark.parametrize("kind", ["sequence", "texts", "text"])
def test_other_peoples_datasets(tmp_path, encoding, kind):
    text = tfds.features.Text()
    captions = {
        "sequence": tfds.features.Sequence(text),
        "texts": tfds.features.Sequence({"text": text, "id": tfds.features.Scalar(np.int64)}),
        "text": text,
    }[kind]

    def change(n):
        texts = datasets.example(n)["captions"]
        of_kind = {"sequence": texts, "texts": [{"text": t, "id": 7} for t in texts]}
        return {"id": 100 + n, "captions": of_kind.get(kind, texts[0])}

    found = train(
        datasets.write(
            tmp_path,
            change=change,
            id=tfds.features.Scalar(np.int64),
            features=datasets.tensor(3, 5, encoding=encoding),
            captions=captions,
            another=datasets.tensor(1),
            examples=[datasets.example(n) | change(n) | {"another": [0.0]} for n in range(4)],
        )
    )
    assert found.ids["image"] == ["100", "101", "102", "103"]
    assert found.groups["text"].tolist() == ([0, 1, 2, 3] if kind == "text" else [0, 1, 1, 2, 3, 3])
    got = found.sources["image"].gather(np.array([2, 0]))["regions"]
    np.testing.assert_array_equal(got, np.stack([datasets.example(n)["features"] for n in (2, 0)]))


def test_boxes_and_parts_of_a_split(tmp_path):
    boxes = np.tile(np.array([0, 0, 0.5, 1], np.float32), (3, 1))
    more = {"boxes": datasets.tensor(3, 4, dtype=np.float32)}
    folder = datasets.write(tmp_path, change=lambda _: {"boxes": boxes}, **more)
    splits = {"train": "train[:50%]", "dev": "train[3:]"}
    found = open_tfds(str(folder), "", splits=splits, vocabulary=WORDS).splits
    assert found["train"].ids["image"] == ["img0", "img1"]
    assert found["dev"].ids["image"] == ["img3"]
    np.testing.assert_array_equal(found["dev"].sources["image"].gather([0])["boxes"], boxes[None])
    (tmp_path / "bad").mkdir()
    folder = datasets.write(tmp_path / "bad", change=lambda n: {"boxes": boxes + n}, **more)
    with pytest.raises(UserError, match=r"foreign/2.1.0 .*train_boxes.npy holds in row 1 boxes"):
        train(folder)


def test_damage_is_found(folder):
    """Every kind is refused with the file; what is inside a file also with the record."""
    path = datasets.shard(folder, number=1)
    good = path.read_bytes()
    for data, parts in (
        (good[: len(good) * 2 // 3], "bytes\\) cannot be read where 2 records were expected"),
        (b"", r"-00001-of-00003 \(0 bytes\) cannot be read"),
        (datasets.shard(folder, "dev", 1).read_bytes(), "holds 1 records where 2"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=parts):
            open_array_record(folder, splits=SPLITS)
    path.write_bytes(good)
    source = open_array_record(folder, splits=SPLITS).splits["train"].sources["image"]
    datasets.flip(path, b"image 3 shows")
    with pytest.raises(UserError, match="00001-of-00003 is damaged at record"):
        pickle.loads(pickle.dumps(source)).gather(np.arange(6))
    path.unlink()
    with pytest.raises(UserError, match="00001-of-00003 is missing"):
        open_array_record(folder, splits=SPLITS)


def test_a_file_cut_off_under_an_open_reader(tmp_path):
    """ArrayRecord then returns empty records without a word."""
    values = np.random.default_rng(0).random((12, 3, 20000)).astype(np.float16)
    folder = datasets.write(
        tmp_path,
        [datasets.example(n, features=values[n]) for n in range(12)],
        features=datasets.tensor(3, 20000),
    )
    rows = RecordRows(tfds.builder_from_directory(folder), "train")
    rows.gather(np.arange(4))
    os.truncate(datasets.shard(folder, number=1), 400_000)
    with pytest.raises(UserError, match=r"damaged at record 9 .*it ends before"):
        rows.gather(np.array([2, 11, 3]))


def test_nan_is_refused_with_record_and_id(tmp_path):
    def change(n):
        return {"features": np.full((3, 5), np.nan if n == 3 else 1, np.float16)}

    folder = datasets.write(tmp_path, change=change)
    with pytest.raises(FoundNonFinite, match=r"record 1 .* of .*00001-of-00002, id img3, holds"):
        train(folder)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"id": "img0"}, "00001-of-00002 record 0 .*repeats the id 'img0' of record 0"),
        ({"captions": []}, "record 0 .*has no caption, id 'img2'"),
        ({"captions": ["a", " \n"]}, "record 0 .*has an empty caption, id 'img2'"),
        ({"captions": [b"\xff"]}, "record 0 .*holds text that is not UTF-8"),
        ({"id": " "}, "record 0 .*has an empty id"),
    ],
)
def test_a_bad_record_is_named(tmp_path, change, parts):
    folder = datasets.write(tmp_path, change=lambda n: change if n == 2 else {})
    with pytest.raises(UserError, match=parts):
        train(folder)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"features": datasets.tensor(3, None)}, "has features of unknown size or type"),
        ({"features": datasets.tensor(15)}, r"has other features than \[R, D\]"),
        ({"captions": tfds.features.Scalar(np.int64)}, "has captions without text"),
        ({"name": tfds.features.Text(), "id": None}, "has no feature id; expected were id .Text"),
    ],
)
def test_other_features_are_listed(tmp_path, more, parts):
    one = datasets.example(0) | {"name": "x"}
    if more.get("features") is not None:
        one["features"] = one["features"].reshape([n or 5 for n in more["features"].shape])
    if "captions" in more:
        one["captions"] = 3
    kept = {name: field for name, field in datasets.fields(**more).items() if field}
    builder = datasets.Foreign(
        fields=kept,
        splits={"train": [{k: v for k, v in one.items() if k in kept}] * 3},
        data_dir=tmp_path,
    )
    builder.download_and_prepare()
    with pytest.raises(UserError, match=parts) as refused:
        train(tmp_path / "foreign/2.1.0")
    assert "found " in str(refused.value)
    assert str(refused.value).count(". ") == 0


def test_rejects_wrong_folders(scan, folder, tmp_path):
    with pytest.raises(UserError, match=r"lacks dataset_info.json or features.json"):
        open_array_record(scan, splits=SPLITS)
    with pytest.raises(UserError, match=r"foreign:9.9.9 was not found in"):
        open_tfds("foreign:9.9.9", str(tmp_path), splits=SPLITS)
    splits = {"train": "train", "dev": "val"}
    for opened in (lambda: open_array_record(folder, splits=splits),
                   lambda: open_tfds(str(folder), "", splits=splits)):  # fmt: skip
        with pytest.raises(UserError, match=r"no records of split 'val', which data"):
            opened()
    foreign = datasets.write(tmp_path)
    with pytest.raises(UserError, match=r"lacks train_caps.txt, train_ids.txt.*data.source=tfds"):
        open_array_record(foreign, splits={"train": "train"})
    info = foreign / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="holds files in tfrecord, which need TensorFlow"):
        train(foreign)
    info.write_text(text[:40])
    with pytest.raises(UserError, match="has description files that TFDS cannot read"):
        train(foreign)


def test_the_configuration_opens_them(scan, folder, tmp_path):
    want = open_scan(scan, splits=SPLITS)
    config = tiny_run.config(recipe=str(tiny_run.ROOT / "configs" / "f8k.py")).data
    config.captions_from = ""
    for source, parts in (
        ("array_record", "give the folder that hmgr_jax.prepare array-record made"),
        ("tfds", "give a dataset's folder, or name/config:version"),
        ("records", "data.source is one of scan, array_record, tfds"),
    ):
        config.source = source
        with pytest.raises(UserError, match=parts):
            open_data(config)
    for config.source in ("array_record", "tfds"):
        config.root = str(folder)
        same(want, open_data(config))
    tfds_builder.RetrievalRecords(source=scan, data_dir=tmp_path).download_and_prepare()
    config.root, config.tfds_dir = "retrieval_records:1.0.0", str(tmp_path)
    same(want, open_data(config))


@pytest.mark.slow
def test_training_writes_the_same_metrics(tmp_path):
    scan = tiny_run.scan_folder(tmp_path / "scan")
    roots = {"scan": scan, "array_record": records(scan, tmp_path / "records")}
    for name, root in roots.items():
        options = {
            "model": "vse",
            "recipe": str(tiny_run.ROOT / "configs" / "f8k.py"),
            "data__source": name,
            "data__root": root,
            "data__captions_from": "",
            "data__vectors": "none",
            "data__buckets": "(16,)",
            "data__max_words": 14,
            "model__dim": 8,
            "model__word_dim": 4,
            "train__steps": 2,
            "train__batch_size": 8,
            "train__warmup_steps": 1,
            "train__log_steps": 1,
            "train__eval_steps": 2,
            "parallel__devices": 1,
        }
        assert tiny_run.run(tmp_path / name, **options) == 0
    found = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in roots]
    assert found[0].count(b"\n") >= 3
    assert found[0] == found[1]
    metrics = [tiny_run.results(tmp_path / name)["metrics"] for name in roots]
    assert metrics[0] == metrics[1]


WITHOUT_TENSORFLOW = """
import sys
import numpy as np
from hmgr_jax import prepare
from hmgr_jax.data.records.open import open_array_record, open_tfds

source, out = sys.argv[1:]
assert prepare.main(["prepare", "array-record", "--source", source, "--out", out]) == 0
splits = {"train": "train"}
for opened in (open_array_record(out, splits=splits), open_tfds(out, "", splits=splits)):
    opened.splits["train"].sources["image"].gather(np.arange(6))
print([name for name in ("tensorflow", "torch", "jax") if name in sys.modules])
"""


@pytest.mark.slow
def test_no_tensorflow(scan, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW, scan, tmp_path / "records"],
        cwd=tiny_run.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
