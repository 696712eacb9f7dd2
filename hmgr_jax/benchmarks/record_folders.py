"""The folder of the pipeline benchmark as records, ours and TFDS's own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from hmgr_jax.data.records.open import open_array_record, open_tfds
from hmgr_jax.data.split import DataSet
from hmgr_jax.preparation import tfds_builder
from hmgr_jax.preparation.tfds_builder import FORMAT, RetrievalRecords
from hmgr_jax.preparation.writing import write


class CompressedRecords(RetrievalRecords):
    """As a dataset of TFDS is that nobody wrote for us."""

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return tfds.core.ExampleWriter(tfds.core.FileFormat(FORMAT))


def open_as(source: str, root: Path, splits: Mapping[str, str]) -> DataSet:
    """Write the SCAN folder ``root`` as ``source``, into ``root/records``, and open that."""
    out = root / "records"
    if source == "array_record":
        write(tfds_builder.plan_records(root, list(splits.values())), out, tfds_builder.RECORDS)
        return open_array_record(out, splits=splits)
    with contextlib.redirect_stdout(io.StringIO()):  # what is printed is one row of JSON
        CompressedRecords(source=root, data_dir=out).download_and_prepare()
    return open_tfds("compressed_records", str(out), splits=splits)
