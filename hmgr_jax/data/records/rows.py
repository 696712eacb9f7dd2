"""Features of a TFDS dataset in ArrayRecord files, gathered like the rows of a ``.npy`` file.

A record holds an image or video, annotations and captions:

| feature | TFDS type | |
|---|---|---|
| `id` | `Text`, or an integer `Scalar` | unique in its split |
| `features` | `Tensor([R, D], float16 or float32)` | regions of an image or frames of a video |
| `captions` | `Sequence({"text": Text, ...})`, `Sequence(Text)` or `Text` | at least one |
| `count` (optional) | integer `Scalar` | number of true rows of R; the others are zero |
| `boxes` (optional) | `Tensor([R, 4])` | xyxy in 0..1 |
| `labels`, `attributes` (optional) | integer `Tensor([R])` | -1 for none |
| `scores`, `attribute_scores` (optional) | `Tensor([R])` | |
| `wh` (optional) | integer `Tensor([2])` | width and height in pixels |

Further features are ignored. Only `encoding="bytes"` is read fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from hmgr_jax.data.records.array_files import ArrayRecords, Shard
from hmgr_jax.errors import UserError
from hmgr_jax.files.npy_rows import Rows

ID, FEATURES, CAPTIONS, TEXT = "id", "features", "captions", "text"
RECORD_NAMES = {"ims": FEATURES, "counts": "count"}
"""{ending of a ``.npy`` file: name in a record}, if they differ."""
BESIDE = ("counts", "boxes", "labels", "scores", "attributes", "attribute_scores", "wh")
"""Endings of the optional arrays beside the features."""
DESCRIPTIONS = ("dataset_info.json", "features.json")
_RAW = "bytes"


def name_in_record(ending: str) -> str:
    """Name of ``{split}_{ending}.npy`` in a record."""
    return RECORD_NAMES.get(ending, ending)


def describe(arrays: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> tfds.features.FeaturesDict:
    """TFDS features of a record with ``arrays``: {ending: (shape of a row, type)}."""
    fields = {
        name_in_record(ending): tfds.features.Tensor(shape=shape, dtype=dtype, encoding=_RAW)
        if shape
        else tfds.features.Scalar(dtype)
        for ending, (shape, dtype) in arrays.items()
    }
    text = tfds.features.Text()
    captions = tfds.features.Sequence({ID: text, TEXT: text})
    return tfds.features.FeaturesDict({ID: text, **fields, CAPTIONS: captions})


def stored_raw(feature: Any) -> bool:
    """Whether a record stores values as in memory."""
    return feature.to_json()["content"]["encoding"] == _RAW


def stored(record: bytes, name: str) -> list[Any]:
    """Values of a feature of a record as stored: bytes or integers, perhaps none."""
    feature = tf_example_pb2.Example.FromString(record).features.feature[name]
    return list(feature.bytes_list.value or feature.int64_list.value)


def check_schema(features: Any, where: str) -> None:
    """Check that the features of a dataset are those of the table above.

    Raises:
        UserError: names the expected and the found features.
    """
    found = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    problem = _problem(found)
    if problem:
        described = ", ".join(f"{k}: {' '.join(repr(v).split())}" for k, v in found.items())
        raise UserError(
            f"{where} {problem}; expected were id (Text or whole number), features (Tensor "
            "[R, D] of float16 or float32) and captions (Sequence of Text or of {'text': Text}), "
            f"perhaps count, {', '.join(BESIDE[1:])}, found {described or 'nothing'}: write the "
            "dataset with these names."
        )


def _problem(found: Mapping[str, Any]) -> str:
    """Error message for the features of a dataset, empty if there is none."""
    missing = [name for name in (ID, FEATURES, CAPTIONS) if name not in found]
    if missing:
        return f"has no feature {', '.join(missing)}"
    values = found[FEATURES]
    shape, dtype = getattr(values, "shape", None), getattr(values, "np_dtype", None)
    if not isinstance(values, tfds.features.Tensor) or shape is None or len(shape) != 2:
        return "has other features than [R, D]"
    if None in shape or 0 in shape or dtype not in (np.float16, np.float32):
        return "has features of unknown size or type"
    captions = found[CAPTIONS]
    if isinstance(captions, tfds.features.Sequence):
        captions = captions.feature
    if isinstance(captions, tfds.features.FeaturesDict):
        captions = dict(captions).get(TEXT)
    return "" if isinstance(captions, tfds.features.Text) else "has captions without text"


_FIRST, _SECOND = 0x0A, 0x12  # fields 1 and 2, with a length


def locate(record: bytes, name: bytes) -> tuple[int, int] | None:
    """Find the (offset, size) of the first bytes of a feature in a serialised ``tf.train.Example``.

    Unlike a parser it copies nothing. An Example is field 1, Features, whose entries (field 1) are
    pairs of a name (field 1) and a Feature (field 2); a list of bytes is field 1 of a Feature, its
    values field 1 of that. Each is preceded by its length, see
    developers.google.com/protocol-buffers/docs/encoding. None if the feature is not found so.
    """
    try:
        size, at = _enter(record, 0, _FIRST)
        end = at + size
        while at < end:
            size, at = _enter(record, at, _FIRST)
            after = at + size
            size, at = _enter(record, at, _FIRST)
            if record[at : at + size] == name:
                _, at = _enter(record, at + size, _SECOND)
                _, at = _enter(record, at, _FIRST)
                size, at = _enter(record, at, _FIRST)
                return (at, size) if at + size <= after <= len(record) else None
            at = after
    except (IndexError, ValueError):
        pass
    return None


def _enter(record: bytes, at: int, field: int) -> tuple[int, int]:
    """(length, offset) of the content of the field at ``at``."""
    if record[at] != field:
        raise ValueError(f"no field {field >> 3} at byte {at}")
    value = shift = 0
    while True:
        at += 1
        part = record[at]
        value |= (part & 0x7F) << shift
        if part < 0x80:
            return value, at + 1
        shift += 7


_NAME = FEATURES.encode()


class RecordRows(Rows):
    """The ``features`` [R, D] of every record of a split (see `hmgr_jax.files.npy_rows.NpyRows`).

    ``split`` is any split of TFDS: ``train``, ``train[:90%]``. Values of ``encoding="bytes"`` are
    copied straight out of a record; other encodings are decoded by TFDS, several times slower.
    Picklable; threads share it. Raises ``UserError`` for a file that is missing, damaged or cut
    short.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self.path, self.split = Path(builder.data_dir), split
        instructions = builder.info.splits[split].file_instructions
        self.records = ArrayRecords(
            [
                Shard(Path(one.filename), one.skip, one.take, one.examples_in_shard)
                for one in instructions
            ]
        )
        feature = builder.info.features[FEATURES]
        self.shape = (len(self.records), *feature.shape)
        self.dtype = np.dtype(feature.np_dtype)
        self._direct = stored_raw(feature)
        self._decoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decoder": None}

    def __str__(self) -> str:
        return f"{self.path} ({self.split})"

    def paths(self) -> list[Path]:
        """The files that hold the rows."""
        return [*self.records.paths, *(self.path / name for name in DESCRIPTIONS)]

    def spot(self, row: int) -> str:
        """Description of a row: its file, record and id."""
        path, record = self.records.place(row)
        ((_, found),) = self.records.read(np.array([row]), self.row_bytes)
        (name,) = stored(found, ID)
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        return f"record {record} (counted from 0) of {path.name}, id {name}"

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Read ``rows`` (int [k], any order, repeats allowed) as an array [k, R, D]."""
        rows = np.asarray(rows, np.int64).reshape(-1)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for k, record in self.records.read(rows, self.row_bytes):
            out[k] = self._values(record, int(rows[k]))
        return out

    def _values(self, record: bytes, row: int) -> np.ndarray:
        if not self._direct:
            return self._decode(record)
        at, size = locate(record, _NAME) or (0, 0)
        if size != self.row_bytes:
            path, number = self.records.place(row)
            raise UserError(
                f"{path} holds in record {number} (counted from 0) {FEATURES} of {size} bytes "
                f"where features.json describes {self.row_bytes}: prepare the data again."
            )
        count = size // self.dtype.itemsize
        return np.frombuffer(record, self.dtype, count, at).reshape(self.shape[1:])

    def _decode(self, record: bytes) -> np.ndarray:
        if self._decoder is None:
            features = tfds.builder_from_directory(self.path).info.features
            self._decoder = tfds.features.FeaturesDict({FEATURES: features[FEATURES]})
        return self._decoder.deserialize_example_np(record)[FEATURES]
