"""``prepare array-record``: a folder as records of TensorFlow Datasets, without TensorFlow.

    from hmgr_jax.preparation.tfds_builder import RetrievalRecords

    RetrievalRecords(source="DATA/f30k", data_dir="TFDS").download_and_prepare()
    tfds.data_source("retrieval_records:1.0.0", data_dir="TFDS", split="train")

``python -m hmgr_jax.prepare array-record`` writes the same records and can be resumed. Beside them
it writes captions, ids, small arrays, word graphs and a manifest in the layout of a SCAN folder, so
that opening reads no record.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from hmgr_jax.command import required
from hmgr_jax.data.records.rows import (
    CAPTIONS,
    DESCRIPTIONS,
    ID,
    TEXT,
    describe,
    name_in_record,
)
from hmgr_jax.errors import UserError
from hmgr_jax.files.workdir import sync
from hmgr_jax.preparation.plan import FEATURES, Chunk, Plan, SplitPlan
from hmgr_jax.preparation.row_file import RowFile, Written, check_extracted
from hmgr_jax.preparation.scan_source import plan_scan
from hmgr_jax.preparation.writing import Files, Layout, check_room
from hmgr_jax.progress import Progress

SHARD_BYTES = 256 << 20
"""Approximate size of a file, which a killed `prepare array-record` writes again."""
OPTIONS = "group_size:1,uncompressed"
"""No compression: features hardly compress and are read four times faster without it."""
FORMAT = "array_record"
_SHARD = ".shard"
_BESIDES = 1 << 10  # approximate bytes of a record except its arrays
Examples = Iterator[tuple[int, dict[str, Any]]]


class RecordFile(tfds.core.ExampleWriter):
    """Writes an ``.array_record`` file whose bytes depend only on the records."""

    def __init__(self) -> None:
        super().__init__(tfds.core.FileFormat(FORMAT))

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        """Write serialised ``examples`` (key, record), in order, and verify their number."""
        from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

        count = 0
        try:
            writer = ArrayRecordWriter(os.fspath(path), OPTIONS)
            for _, record in examples:
                # The order of an Example's features is left to chance otherwise.
                example = tf_example_pb2.Example.FromString(record)
                writer.write(example.SerializeToString(deterministic=True))
                count += 1
            writer.close()
        except RuntimeError as error:
            raise UserError(
                f"{path} could not be written ({error}): look at the disk and its room, and give "
                "the same command again."
            ) from None
        if ArrayRecordReader(os.fspath(path)).num_records() != count:
            raise UserError(
                f"{path} was not written whole ({count} records): look at the disk and its room, "
                "and give the same command again."
            )


class RetrievalRecords(tfds.core.ShardBasedBuilder):
    """Images or videos as features of their regions or frames, with captions, a record each.

    ``source``, needed only to prepare, is a folder in SCAN's layout, raw or prepared: all its
    splits, each image once, in the order of the rows, with features in their own precision.
    ``captions_per_image`` is that of `hmgr_jax.data.regions.scan.open_scan`. The fields of a record
    are those of `hmgr_jax.data.records.rows`.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    """No downloads; TFDS would need an optional package to look for checksums."""

    def __init__(
        self,
        *,
        source: str | Path | Plan | None = None,
        captions_per_image: int | None = None,
        file_format: Any = FORMAT,
        **options: Any,
    ) -> None:
        if isinstance(source, str | Path):
            source = plan_folder(Path(source), None, captions_per_image)
            if any(split.graphs for split in source.splits.values()):
                warnings.warn(
                    "records hold no word graphs, so those of the folder are not carried; "
                    "prepare array-record puts them beside the records",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self.plan = source
        super().__init__(file_format=file_format, **options)

    def _info(self) -> tfds.core.DatasetInfo:
        if self.plan:
            arrays = next(iter(self.plan.splits.values())).arrays
            features = describe({end: (a.shape, a.dtype) for end, a in arrays.items()})
        elif (Path(self.data_dir) / "features.json").is_file():
            features = tfds.features.FeaturesDict.from_config(self.data_dir)
        else:
            raise UserError(
                f"{self.data_dir} holds no dataset yet: give source=FOLDER to prepare it."
            )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, list[Callable[[], Any]]]:
        if self.plan is None:
            raise UserError("There is nothing to prepare from: give source=FOLDER.")
        return {
            name: [functools.partial(examples, self.plan, name, *ends) for ends in bounds(split)]
            for name, split in self.plan.splits.items()
        }

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return RecordFile()


def plan_folder(root: Path, splits: list[str] | None, captions_per_image: int | None) -> Plan:
    """The plan of a folder, with features in their own precision."""
    plan = plan_scan(root, splits, captions_per_image)
    kept = {}
    for name, split in plan.splits.items():
        if not name.isidentifier() or name == "all":
            raise UserError(
                f"{root} has a split {name!r}, which TFDS takes for no name: rename its files."
            )
        dtype = plan.source.splits[name].rows.dtype  # type: ignore[attr-defined]
        first = split.arrays[FEATURES]._replace(dtype=dtype)
        kept[name] = dataclasses.replace(split, arrays={**split.arrays, FEATURES: first})
    _check_equal_shapes(root, kept)
    return dataclasses.replace(plan, splits=kept, about={**plan.about, "command": "array-record"})


def _check_equal_shapes(root: Path, splits: Mapping[str, SplitPlan]) -> None:
    """Check that all splits have records of one shape."""
    (first, one), *others = splits.items()
    for name, other in others:
        for end in dict.fromkeys([*one.arrays, *other.arrays]):
            a, b = one.arrays.get(end), other.arrays.get(end)
            if a != b:
                formatted = [f"{list(x.shape)} {x.dtype}" if x else "nothing" for x in (a, b)]
                raise UserError(
                    f"{root} has {formatted[0]} a row in {first}_{end}.npy but {formatted[1]} in "
                    f"{name}_{end}.npy, and all records of a dataset are alike: bring them to one "
                    "form, or leave a split out with --splits."
                )


def bounds(split: SplitPlan) -> list[tuple[int, int]]:
    """(first row, one past the last) of every file of a split."""
    row = sum(array.row_bytes for array in split.arrays.values())
    step = max(1, SHARD_BYTES // row)
    return [(start, min(start + step, len(split))) for start in range(0, len(split), step)]


def examples(
    plan: Plan, name: str, first: int, end: int, seen: Callable[[Chunk], None] | None = None
) -> Examples:
    """(row, example) of rows ``first`` to ``end - 1``; ``seen`` is called with each chunk."""
    todo = {split: np.zeros(len(found), bool) for split, found in plan.splits.items()}
    todo[name][first:end] = True
    split = plan.splits[name]
    for chunk in plan.source.chunks(todo):
        arrays = {end: chunk.arrays[end] for end in split.arrays}
        check_extracted(arrays[FEATURES], chunk.where)
        for k, row in enumerate(chunk.rows.tolist()):
            yield row, _example(split, row, {end: found[k] for end, found in arrays.items()})
        if seen:
            seen(chunk)


def _example(split: SplitPlan, row: int, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    name = split.ids[row]
    fields = {
        name_in_record(end): np.ascontiguousarray(values, split.arrays[end].dtype)
        if values.shape
        else values.item()
        for end, values in arrays.items()
    }
    captions = [{ID: f"{name}#{k}", TEXT: text} for k, text in enumerate(split.captions[row])]
    return {ID: name, **fields, CAPTIONS: captions}


def array_record(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare array-record``."""
    splits = [name for name in (flags.splits or "").split(",") if name]
    return plan_records(Path(required(flags, "source")), splits, flags.captions_per_image)


def plan_records(
    root: Path, splits: list[str] | None = None, captions_per_image: int | None = None
) -> Plan:
    """The plan of a folder's records, to be written with the layout `RECORDS`."""
    plan = plan_folder(root, splits, captions_per_image)
    return dataclasses.replace(plan, about={**plan.about, "shard_bytes": SHARD_BYTES})


def _units(plan: Plan) -> dict[str, int]:
    """A record file is written atomically, so it is the unit of progress."""
    return {name: len(bounds(split)) for name, split in plan.splits.items()}


def _arrays(plan: Plan) -> Plan:
    """The plan without features, which are in the records and not in ``.npy`` files."""
    splits = {}
    for name, split in plan.splits.items():
        kept = {end: array for end, array in split.arrays.items() if end != FEATURES}
        splits[name] = dataclasses.replace(split, arrays=kept)
    return dataclasses.replace(plan, splits=splits)


def _fill(folder: Path, plan: Plan, files: Files, written: Written) -> list[str]:
    """Write the missing record files and the descriptions of TFDS."""
    wanted = sum(
        len(split) * (_BESIDES + sum(array.row_bytes for array in split.arrays.values()))
        for split in plan.splits.values()
    )
    check_room(folder, wanted - sum(p.stat().st_size for p in folder.glob(f"*.{FORMAT}-*")))
    with tempfile.TemporaryDirectory() as unused:  # where TFDS itself would write
        builder = RetrievalRecords(source=plan, data_dir=unused)
        total = sum(len(split) for split in plan.splits.values())
        done = _rows_done(plan, written)
        with Progress(total, "images", done=done, stream=sys.stderr) as bar:
            infos = [
                _write_split(folder, name, builder, files[name], written, bar)
                for name in plan.splits
            ]
        builder.info.set_splits(tfds.core.SplitDict(infos))
        builder.info.write_to_directory(folder)
    return [*(Path(path).name for info in infos for path in info.filepaths), *DESCRIPTIONS]


RECORDS = Layout(_units, _arrays, _fill)
"""The layout that `hmgr_jax.preparation.writing.write` writes."""


def _write_split(
    folder: Path,
    name: str,
    builder: RetrievalRecords,
    files: Mapping[str, RowFile],
    written: Written,
    bar: Progress,
) -> tfds.core.SplitInfo:
    """Write the missing record files of a split, each atomically."""
    plan, features = builder.plan, builder.info.features
    assert plan is not None
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=builder.name, split=name, filetype_suffix=FORMAT
    )
    ends = bounds(plan.splits[name])
    paths = [
        Path(template.sharded_filepath(shard_index=k, num_shards=len(ends)))
        for k in range(len(ends))
    ]

    def seen(chunk: Chunk) -> None:
        for end, file in files.items():
            file.write(chunk.rows, chunk.arrays[end])
        bar.advance(len(chunk.rows))

    for k, (first, end) in enumerate(ends):
        if written.done[name][k] and paths[k].is_file():
            continue
        records = examples(plan, name, first, end, seen)
        RecordFile().write(
            folder / _SHARD, ((row, features.serialize_example(found)) for row, found in records)
        )
        sync(folder / _SHARD)
        for file in files.values():
            file.sync()
        os.replace(folder / _SHARD, paths[k])
        written.done[name][k] = True
        written.save()
    return tfds.core.SplitInfo(
        name=name,
        shard_lengths=[end - first for first, end in ends],
        num_bytes=sum(path.stat().st_size for path in paths),
        filename_template=template,
    )


def _rows_done(plan: Plan, written: Written) -> int:
    done = 0
    for name, split in plan.splits.items():
        for (first, end), whole in zip(bounds(split), written.done[name], strict=True):
            done += (end - first) * bool(whole)
    return done
