"""Batches per second and memory of the data pipeline on generated features."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.benchmarks.memory import forget_peak, peak_memory_bytes
from hmgr_jax.data.pipeline import batches
from hmgr_jax.data.regions.scan import open_scan
from hmgr_jax.data.split import Split
from hmgr_jax.errors import UserError

BLOCK = 500  # rows written at once
WARM_UP = 10  # batches that are not counted
SOURCES = ("npy", "array_record", "tfds")


def run(
    batch: int = 128,
    threads: int = 2,
    count: int = 300,
    images: int = 3000,
    regions: int = 36,
    features: int = 2048,
    sparse_gb: float = 0.0,
    folder: str = "",
    source: str = "npy",
) -> dict[str, Any]:
    """Read ``count`` batches from a temporary SCAN folder of float16 [images, regions, features].

    The file has just been written, so it is read from the page cache. With ``sparse_gb`` the file
    is sparse and of that size, to measure ``peak_memory_bytes`` of this process since the file was
    written. ``folder`` is the parent of the temporary folder. ``source`` is ``npy``,
    ``array_record`` (as `prepare array-record` writes it) or ``tfds`` (compressed, TFDS's default).

    Returns:
        a row for JSON.
    """
    if min(batch, threads, count, images, regions, features) < 1 or sparse_gb < 0:
        raise UserError("Every size must be at least 1: raise the one that is not.")
    if source not in SOURCES or (sparse_gb and source != "npy"):
        raise UserError(
            f"--source must be one of {', '.join(SOURCES)}, and npy with --sparse-gb; got {source}."
        )
    if sparse_gb:
        images = int(sparse_gb * 1e9) // (regions * features * 2)
    with tempfile.TemporaryDirectory(dir=folder or None) as root:
        write_folder(Path(root), images, regions, features, sparse=sparse_gb > 0)
        split = _open(Path(root), source)
        forget_peak()
        stream = iter(
            batches(split, batch_size=batch, seed=0, steps=WARM_UP + count, threads=threads)
        )
        for _ in range(WARM_UP):
            next(stream)
        begin = time.perf_counter()
        for _ in range(count):
            next(stream)
        seconds = time.perf_counter() - begin
    return {
        "benchmark": "pipeline",
        "source": source,
        "batch": batch,
        "threads": threads,
        "batches": count,
        "shape": [images, regions, features],
        "sparse": sparse_gb > 0,
        "batches_per_second": count / seconds,
        "bytes_per_second": count / seconds * batch * regions * features * 2,
        "peak_memory_bytes": peak_memory_bytes(),
        "load": os.getloadavg()[0],
    }


def _open(root: Path, source: str) -> Split:
    """The train split of a SCAN folder, converted to the format ``source``."""
    splits = {"train": "train"}
    if source == "npy":
        return open_scan(root, splits=splits).splits["train"]
    from hmgr_jax.benchmarks import record_folders

    return record_folders.open_as(source, root, splits).splits["train"]


def write_folder(root: Path, images: int, regions: int, features: int, *, sparse: bool) -> None:
    """A train split of random (or, sparse, zero) features with one caption an image."""
    rng = np.random.default_rng(0)
    header = {"descr": "<f2", "fortran_order": False, "shape": (images, regions, features)}
    with (root / "train_ims.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        if sparse:
            file.truncate(file.tell() + images * regions * features * 2)
        for start in range(0, 0 if sparse else images, BLOCK):
            rows = min(BLOCK, images - start)
            block = rng.random((rows, regions, features), np.float32)
            file.write(block.astype(np.float16).tobytes())
    lines = (f"a picture of {'very ' * (i % 12)}many words\n" for i in range(images))
    (root / "train_caps.txt").write_text("".join(lines), "utf-8")
