"""Convert the folder of the pipeline benchmark to records, ours or TFDS's."""

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
    """Records with the compression that TFDS uses by default."""

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return tfds.core.ExampleWriter(tfds.core.FileFormat(FORMAT))


def open_as(source: str, root: Path, splits: Mapping[str, str]) -> DataSet:
    """Write the SCAN folder ``root`` in the format ``source`` to ``root/records``, and open it."""
    out = root / "records"
    if source == "array_record":
        write(tfds_builder.plan_records(root, list(splits.values())), out, tfds_builder.RECORDS)
        return open_array_record(out, splits=splits)
    with contextlib.redirect_stdout(io.StringIO()):  # stdout is one row of JSON
        CompressedRecords(source=root, data_dir=out).download_and_prepare()
    return open_tfds("compressed_records", str(out), splits=splits)
