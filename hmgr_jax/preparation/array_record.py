"""``prepare array-record``: records of a TFDS dataset, with all that opening it needs beside them.

The folder is a builder directory of TFDS (``tfds.builder_from_directory``). Captions, ids and small
arrays also lie beside the records in the layout of a SCAN folder, so that opening reads no record.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from hmgr_jax.data.record_features import DESCRIPTIONS
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import FEATURES, Chunk, Plan, SplitPlan
from hmgr_jax.preparation.progress import Bar
from hmgr_jax.preparation.row_file import RowFile
from hmgr_jax.preparation.tfds_builder import (
    FORMAT,
    SHARD_BYTES,
    RecordFile,
    RetrievalRecords,
    bounds,
    examples,
    plan_folder,
)
from hmgr_jax.preparation.writing import Layout, close_files, open_files
from hmgr_jax.preparation.written import Written

_SHARD = ".shard"
_BESIDES = 1 << 10  # bytes of a record that are not its arrays, about


def plan(root: Path, splits: list[str] | None, captions_per_image: int | None) -> Plan:
    """Of ``prepare array-record``."""
    found = plan_folder(root, splits, captions_per_image)
    return Plan(found.splits, found.source, {**found.about, "shard_bytes": SHARD_BYTES})


def _units(plan: Plan) -> dict[str, int]:
    """A file of records is whole or not there."""
    return {name: len(bounds(split)) for name, split in plan.splits.items()}


def _fill(folder: Path, plan: Plan, written: Written) -> list[str]:
    """All files of records that are not written yet, and the descriptions of TFDS."""
    _demand_room(folder, plan)
    beside = Plan({name: _beside(split) for name, split in plan.splits.items()}, plan.source, {})
    files = open_files(folder, beside, written)
    with tempfile.TemporaryDirectory() as unused:  # where TFDS itself would write
        builder = RetrievalRecords(source=plan, data_dir=unused)
        total = sum(len(split) for split in plan.splits.values())
        done = sum(_rows_done(plan, written).values())
        try:
            with Bar("images", total, done) as bar:
                infos = [
                    _write_split(folder, name, builder, files[name], written, bar)
                    for name in plan.splits
                ]
        finally:
            close_files(files)
        builder.info.set_splits(tfds.core.SplitDict(infos))
        builder.info.write_to_directory(folder)
    names = [f"{split}_{end}.npy" for split, found in files.items() for end in found]
    shards = [Path(path).name for info in infos for path in info.filepaths]
    return [*names, *shards, *DESCRIPTIONS]


RECORDS = Layout(_units, _fill)
"""How `hmgr_jax.preparation.writing.write` makes such a folder."""


def _write_split(
    folder: Path,
    name: str,
    builder: RetrievalRecords,
    files: Mapping[str, RowFile],
    written: Written,
    bar: Bar,
) -> tfds.core.SplitInfo:
    """The files of a split, each made under another name; those already whole are left alone."""
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
        _sync(folder / _SHARD)
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


def _rows_done(plan: Plan, written: Written) -> dict[str, int]:
    return {
        name: sum(
            end - first
            for (first, end), done in zip(bounds(split), written.done[name], strict=True)
            if done
        )
        for name, split in plan.splits.items()
    }


def _beside(split: SplitPlan) -> SplitPlan:
    """What lies beside the records as ``.npy``: all but the features."""
    arrays = {end: array for end, array in split.arrays.items() if end != FEATURES}
    return SplitPlan(split.ids, split.captions, arrays)


def _demand_room(folder: Path, plan: Plan) -> None:
    """Files grow shard by shard, so what the disk lacks would be found only after hours."""
    wanted = sum(
        len(split) * (_BESIDES + sum(array.row_bytes for array in split.arrays.values()))
        for split in plan.splits.values()
    )
    there = sum(path.stat().st_size for path in folder.glob(f"*.{FORMAT}-*"))
    free = shutil.disk_usage(folder).free
    if wanted - there > free:
        raise UserError(
            f"{folder} needs {(wanted - there) / 1e9:,.1f} GB more where {free / 1e9:,.1f} GB are "
            "free: make room or give an --out on another disk."
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
