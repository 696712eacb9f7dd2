"""``prepare array-record``: the records of a TFDS dataset, and the small arrays beside them.

The folder is a builder directory of TFDS (``tfds.builder_from_directory``). Captions, ids and small
arrays also lie beside the records in the layout of a SCAN folder, so that opening reads no record;
word graphs lie there alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from hmgr_jax.data.records.features import DESCRIPTIONS
from hmgr_jax.files.workdir import sync
from hmgr_jax.preparation.plan import FEATURES, Chunk, Plan
from hmgr_jax.preparation.plans import demand
from hmgr_jax.preparation.row_file import RowFile, Written
from hmgr_jax.preparation.tfds_builder import (
    FORMAT,
    SHARD_BYTES,
    RecordFile,
    RetrievalRecords,
    bounds,
    examples,
    plan_folder,
)
from hmgr_jax.preparation.writing import Files, Layout, check_room
from hmgr_jax.progress import Bar

_SHARD = ".shard"
_BESIDES = 1 << 10  # bytes of a record that are not its arrays, about


def of_flags(flags: argparse.Namespace) -> Plan:
    """The plan of ``prepare array-record``."""
    splits = [name for name in (flags.splits or "").split(",") if name]
    return plan(Path(demand(flags, "source")), splits, flags.captions_per_image)


def plan(
    root: Path, splits: list[str] | None = None, captions_per_image: int | None = None
) -> Plan:
    """The records of a folder; for `hmgr_jax.preparation.writing.write` with `RECORDS`."""
    found = plan_folder(root, splits, captions_per_image)
    return dataclasses.replace(found, about={**found.about, "shard_bytes": SHARD_BYTES})


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
        with Bar("images", total, _rows_done(plan, written)) as bar:
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
    bar: Bar,
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
