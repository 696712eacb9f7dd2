"""Pictures per second: decoded and augmented for training, beside decoding by Pillow alone."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.pictures.files import PictureFolder, pictures_below
from hmgr_jax.data.pictures.pixels import Augmentation, PictureFiles, PixelSource
from hmgr_jax.data.pipeline import batches, stop_workers_on_close
from hmgr_jax.data.split import Split
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.vocabulary import MARKS, Vocabulary
from hmgr_jax.errors import UserError

WARM_UP = 2  # batches that are not counted


def run(
    folder: str = "",
    batch: int = 32,
    count: int = 20,
    threads: int = 2,
    workers: int = 0,
    size: int = 224,
    resize: int = 256,
    train: str = "crop",
    width: int = 640,
    height: int = 480,
) -> dict[str, Any]:
    """Read ``count`` batches of pictures as training does, and the same files by Pillow alone.

    ``folder`` holds JPEG pictures, also in subfolders; without it, sixteen pictures of ``width`` by
    ``height`` are generated. All files are read from the page cache. ``decode_per_second`` is
    Pillow decoding to RGB in as many threads and nothing else.

    Returns:
        a row for JSON.
    """
    if min(batch, threads, count, size, width, height) < 1 or workers < 0:
        raise UserError("Every size must be at least 1: raise the one that is not.")
    augmentation = Augmentation(size, resize, train)
    with tempfile.TemporaryDirectory() as made:
        files = _files(Path(folder)) if folder else _make(Path(made), width, height)
        source = PixelSource(PictureFiles(files), augmentation)
        stream = stop_workers_on_close(
            batches(
                _split(source, batch),
                batch_size=batch,
                seed=0,
                steps=WARM_UP + count,
                threads=threads,
                workers=workers,
            )
        )
        for _ in range(WARM_UP):
            next(stream)
        seconds = _timed(lambda: [next(stream) for _ in range(count)])
        stream.close()
        total = batch * count
        chosen = [files[i % len(files)] for i in range(total)]
        with ThreadPoolExecutor(workers or threads) as pool:
            alone = _timed(lambda: list(pool.map(_decode, chosen)))
    return {
        "benchmark": "pictures",
        "files": len(files),
        "batch": batch,
        "threads": threads,
        "workers": workers,
        "size": size,
        "train": train,
        "pictures_per_second": total / seconds,
        "decode_per_second": total / alone,
        "share_of_decoding": alone / seconds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _decode(path: Path) -> int:
    return load_picture(path).width


def _files(folder: Path) -> list[Path]:
    below = pictures_below(PictureFolder(folder, "--folder").path)
    found = [path for path in below if path.suffix.lower() == ".jpg"]
    if not found:
        raise UserError(f"{folder} holds no .jpg: give a folder of JPEG pictures as --folder.")
    return found


def _make(folder: Path, width: int, height: int) -> list[Path]:
    """Sixteen pictures of blurred blocks with a little noise: some 60 kB each at 640 x 480."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(16):
        blocks = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(noisy).save(files[-1], quality=85)
    return files


def _split(source: PixelSource, batch: int) -> Split:
    """Every picture with a caption, repeated so that a batch can be filled."""
    rows = np.arange(max(batch, len(source)), dtype=np.int32) % len(source)
    return Split(
        name="train",
        sources={
            "image": source,
            "text": CaptionSource([["word"]], Vocabulary((*MARKS, "word"))),
        },
        groups={"image": np.arange(len(source), dtype=np.int32), "text": np.zeros(1, np.int32)},
        rows={"image": rows, "text": np.zeros(len(rows), np.int32)},
        ids={"image": [], "text": []},
    )
