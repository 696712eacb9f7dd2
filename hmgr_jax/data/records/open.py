"""ArrayRecord and TFDS datasets, opened like SCAN folders apart from their features.

A folder of ``prepare array-record`` has captions, ids and small arrays beside its records. Those of
any other TFDS dataset are extracted from the records into a temporary folder.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from hmgr_jax.data.records.rows import (
    BESIDE,
    CAPTIONS,
    DESCRIPTIONS,
    ID,
    TEXT,
    RecordRows,
    check_schema,
    name_in_record,
)
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.regions.scan_files import ScanFiles, find_split
from hmgr_jax.data.split import DataSet
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import write_npy_atomic

FORMAT = "array_record"


def open_array_record(root: str | Path, *, splits: Mapping[str, str], **options: Any) -> DataSet:
    """Open a folder that ``prepare array-record`` made; ``options`` are those of `open_scan`.

    Raises:
        UserError: the folder is of another kind, a split or file is missing, or a file is damaged.
    """
    root = Path(root)
    builder = _from_directory(root)
    beside = [f"{name}_{end}.txt" for name in splits.values() for end in ("caps", "ids")]
    missing = [name for name in beside if not (root / name).is_file()]
    _check_splits(builder, root, splits)
    if missing:
        raise UserError(
            f"{root} lacks {', '.join(missing)}, which hmgr_jax.prepare array-record puts beside "
            "the records: prepare it again, or open it with data.source=tfds."
        )

    def find(name: str) -> ScanFiles:
        return dataclasses.replace(find_split(root, name), features=RecordRows(builder, name))

    return open_scan(root, splits=splits, find=find, **options)


def open_tfds(name: str, data_dir: str, *, splits: Mapping[str, str], **options: Any) -> DataSet:
    """Open a TFDS dataset that was prepared with ``file_format="array_record"``.

    ``name`` is the folder of its ``dataset_info.json``, or ``name``, ``name/config``,
    ``name/config:version`` in ``data_dir`` (default: that of TFDS). ``splits`` are any splits of
    TFDS, such as ``train[:90%]``. `hmgr_jax.data.records.rows` lists the features of a record.

    Raises:
        UserError: the dataset is missing, has another format or other features, or a file or record
            is
            damaged.
    """
    builder = _from_directory(Path(name)) if _described(Path(name)) else _named(name, data_dir)
    root = Path(builder.data_dir)
    _check_splits(builder, root, splits)
    check_schema(builder.info.features, str(root))
    with tempfile.TemporaryDirectory(prefix="hmgr-jax-") as index:

        def find(split: str) -> ScanFiles:
            rows = RecordRows(builder, split)
            write_index(rows, builder.info.features, Path(index), split)
            return dataclasses.replace(find_split(Path(index), split), features=rows)

        try:
            return open_scan(root, splits=splits, find=find, **options)
        except UserError as error:  # names a file of the temporary folder
            message = str(error).replace(index, f"{root} (its records read as a SCAN folder)")
            raise type(error)(message) from None


def _described(root: Path) -> bool:
    return all((root / name).is_file() for name in DESCRIPTIONS)


def _from_directory(root: Path) -> tfds.core.DatasetBuilder:
    if not _described(root):
        raise UserError(
            f"{root} lacks {' or '.join(DESCRIPTIONS)}: give a folder that hmgr_jax.prepare "
            "array-record or TFDS made."
        )
    return _readable(root, lambda: tfds.builder_from_directory(root))


def _named(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    where = data_dir or "TFDS's own data_dir"

    def load() -> tfds.core.DatasetBuilder:
        return read_only_builder.builder_from_files(name, data_dir=data_dir or None)

    try:
        return _readable(Path(name), load)
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"{name} was not found in {where}: give as data.root its folder or name/config:version "
            "as it lies in data.tfds_dir."
        ) from None


def _readable(root: Path, load: Callable[[], Any]) -> tfds.core.DatasetBuilder:
    """Load a builder, and check that its files can be read without TensorFlow."""
    try:
        builder = load()
    except tfds.core.DatasetNotFoundError:
        raise
    except Exception as error:  # the parsers of TFDS raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{root} has description files that TFDS cannot read ({reason}): copy it again or "
            "prepare it again."
        ) from None
    found = builder.info.file_format
    if found is None or found.value != FORMAT:
        raise UserError(
            f"{builder.data_dir} holds files in {found.value if found else 'no known format'}, "
            f"which need TensorFlow: prepare it with file_format={FORMAT!r}."
        )
    return builder


def _check_splits(builder: Any, root: Path, splits: Mapping[str, str]) -> None:
    for role, name in splits.items():
        try:
            held = builder.info.splits[name].num_examples
        except (KeyError, ValueError):
            held = 0
        if not held:
            raise UserError(
                f"{root} has no records of split {name!r}, which data.splits.{role} names, found "
                f"{', '.join(builder.info.splits)}: correct data.splits."
            )


class _Record(NamedTuple):
    id: str
    captions: list[str]


def write_index(
    rows: RecordRows, features: tfds.features.FeaturesDict, folder: Path, split: str
) -> None:
    """Write ``{split}_caps.txt``, ``_ids.txt``, ``_cap_ids.txt`` and arrays into ``folder``.

    ``features`` are those of the dataset, checked by `check_schema`. Reads every record once.

    Raises:
        UserError: a record has no id, an id seen before, or no caption or an empty one.
    """
    known = dict(features)
    arrays = {end: name_in_record(end) for end in BESIDE if name_in_record(end) in known}
    wanted = {name: known[name] for name in (ID, CAPTIONS, *arrays.values())}
    decoder = tfds.features.FeaturesDict(wanted)
    found: list[_Record] = []
    beside: dict[str, list[np.ndarray]] = {end: [] for end in arrays}
    seen: dict[str, int] = {}
    for row, raw in rows.records.read(np.arange(len(rows)), rows.row_bytes):
        example = decoder.deserialize_example_np(raw)
        record = _record(example, rows, row)
        if seen.setdefault(record.id, row) != row:
            _refuse(rows, row, f"repeats the id {record.id!r} of record {seen[record.id]}")
        found.append(record)
        for end, name in arrays.items():
            beside[end].append(np.asarray(example[name]))
    _write(folder, split, found, beside)


def _write(
    folder: Path, split: str, found: list[_Record], beside: Mapping[str, list[np.ndarray]]
) -> None:
    pairs = [(record.id, caption) for record in found for caption in record.captions]
    lines = {
        "ids": [record.id for record in found],
        "caps": [caption for _, caption in pairs],
        "cap_ids": [name for name, _ in pairs],
    }
    for end, texts in lines.items():
        text = "".join(f"{line}\n" for line in texts)
        (folder / f"{split}_{end}.txt").write_text(text, "utf-8", newline="\n")
    for end, values in beside.items():
        write_npy_atomic(folder / f"{split}_{end}.npy", np.stack(values))


def _record(example: Mapping[str, Any], rows: RecordRows, row: int) -> _Record:
    captions = example[CAPTIONS]
    if isinstance(captions, Mapping):
        captions = captions[TEXT]
    if isinstance(captions, str | bytes):
        captions = [captions]
    texts = [_text(caption, rows, row) for caption in captions]
    name = _text(example[ID], rows, row)
    if not texts or not all(texts):
        _refuse(rows, row, f"has {'an empty caption' if texts else 'no caption'}, id {name!r}")
    if not name:
        _refuse(rows, row, f"has an empty {ID}")
    return _Record(name, texts)


def _text(value: Any, rows: RecordRows, row: int) -> str:
    """A caption or an id, which may be a number, on one line."""
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        _refuse(rows, row, "holds text that is not UTF-8")
    return " ".join(text.split("\n")).strip()


def _refuse(rows: RecordRows, row: int, what: str) -> NoReturn:
    path, record = rows.records.place(row)
    raise UserError(
        f"{path} record {record} (counted from 0) {what}, where a unique {ID} and at least one "
        "caption were expected: correct the data and write it again."
    )
