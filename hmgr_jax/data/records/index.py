"""Captions, ids and small arrays of a TFDS dataset, taken out of its records in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow_datasets as tfds

from hmgr_jax.data.records.features import BESIDE, CAPTIONS, ID, TEXT, name_in_record
from hmgr_jax.data.records.rows import RecordRows
from hmgr_jax.errors import UserError


class _Record(NamedTuple):
    id: str
    captions: list[str]


def write_index(
    rows: RecordRows, features: tfds.features.FeaturesDict, folder: Path, split: str
) -> None:
    """Write ``{split}_caps.txt``, ``_ids.txt``, ``_cap_ids.txt`` and arrays into ``folder``.

    ``features`` are those of the dataset, checked by `demand_features`. Reads every record once.

    Raises:
        UserError: names the record that has no id, no caption, an empty one, or an id seen before.
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
        np.save(folder / f"{split}_{end}.npy", np.stack(values))


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
    """One line: a caption or an id, which may be a number."""
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        _refuse(rows, row, "holds text that is not UTF-8")
    return " ".join(text.split("\n")).strip()


def _refuse(rows: RecordRows, row: int, what: str) -> NoReturn:
    path, record = rows.records.place(row)
    raise UserError(
        f"{path} record {record} (counted from 0) {what}, where an {ID} of its own and at least "
        "one caption were expected: correct the data and write it again."
    )
