"""Pictures, and frames of videos, as stores of grid features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.files import ENDINGS, read_picture
from hmgr_jax.errors import UserError
from hmgr_jax.preparation.plan import BOXES, FEATURES
from hmgr_jax.preparation.stores import Store

CLIP_ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".MP4", ".AVI", ".MOV")
CELL = 16
"""Size of a patch in pixels."""
COARSE = 8
"""Size of the reduced patch that enters the vector, in pixels."""
ORIENTATIONS = 8
SIZE = 3 * COARSE**2 + 6 + 4 * ORIENTATIONS
"""Numbers per patch: 192 of pixels, 6 of colour, 32 of gradients."""


def encode_grid(picture: np.ndarray, grid: int) -> np.ndarray:
    """``picture`` (uint8 [H, W, 3]) as float32 [grid * grid, SIZE], all in 0..1, row by row.

    The picture is stretched to ``grid`` patches a side, of 16 x 16 pixels each. A patch's vector
    holds its pixels halved to 8 x 8 x RGB; mean and standard deviation of each colour; and for each
    quarter of it a histogram of 8 orientations of the brightness' gradient over half a turn,
    weighted by its length. No number is negative.
    """
    side = grid * CELL
    small = Image.fromarray(picture).resize((side, side), Image.Resampling.BOX, reducing_gap=None)
    pixels = np.asarray(small, np.float32) / np.float32(255)
    parts = [_coarse(pixels, grid), _colours(pixels, grid), _gradients(pixels, grid)]
    return np.concatenate(parts, axis=1)


def grid_boxes(grid: int) -> np.ndarray:
    """The boxes of the patches, float32 [grid * grid, 4] xyxy in 0..1, row by row."""
    y, x = np.divmod(np.arange(grid * grid), grid)
    return (np.stack([x, y, x + 1, y + 1], axis=1) / grid).astype(np.float32)


def _patches(values: np.ndarray, grid: int) -> np.ndarray:
    """[side, side, C] as [grid * grid, cell, cell, C]."""
    cell = values.shape[0] // grid
    apart = values.reshape(grid, cell, grid, cell, values.shape[2]).swapaxes(1, 2)
    return apart.reshape(grid * grid, cell, cell, values.shape[2])


def _coarse(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 192]: means of 2 x 2 pixels."""
    patches = _patches(pixels, grid)
    step = CELL // COARSE
    means = patches.reshape(grid * grid, COARSE, step, COARSE, step, 3).mean(axis=(2, 4))
    return means.reshape(grid * grid, -1)


def _colours(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 6]: mean and doubled standard deviation (at most 1) of each colour."""
    patches = _patches(pixels, grid)
    spread = np.minimum(2 * patches.std(axis=(1, 2)), np.float32(1))
    return np.concatenate([patches.mean(axis=(1, 2)), spread], axis=1)


def _gradients(pixels: np.ndarray, grid: int) -> np.ndarray:
    """[patches, 32]: a histogram of orientations of each quarter; its sum is the mean length."""
    brightness = pixels.mean(axis=2)
    dy, dx = np.gradient(brightness)
    length = np.minimum(np.hypot(dx, dy), np.float32(1))
    turn = np.mod(np.arctan2(dy, dx), np.float32(np.pi)) / np.float32(np.pi)
    which = np.minimum((turn * ORIENTATIONS).astype(np.int64), ORIENTATIONS - 1)
    votes = length[..., None] * np.eye(ORIENTATIONS, dtype=np.float32)[which]
    quarters = _patches(votes, 2 * grid).mean(axis=(1, 2))
    rows = quarters.reshape(grid, 2, grid, 2, ORIENTATIONS).swapaxes(1, 2)
    return rows.reshape(grid * grid, -1)


class PictureStore(Store):
    """Pictures by file name and, if unique, by name without ending.

    Features are those of `encode_grid`, boxes the patches.
    """

    has_boxes = True
    size = SIZE

    def __init__(self, path: Path, grid: int) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --pictures the folder of the pictures.")
        self.path, self.grid = path, grid
        self.files = self.ids = find_files(path, ENDINGS)
        if not self.files:
            raise UserError(f"{path} holds no .jpg, .jpeg or .png: give the folder of pictures.")

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The number of patches, equal for all pictures."""
        return np.full(len(ids), self.grid**2)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Features and boxes of a picture."""
        picture = read_picture(self.ids[name])
        return {FEATURES: encode_grid(picture, self.grid), BOXES: grid_boxes(self.grid)}


def find_files(root: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Find files with one of ``endings``, by name and, if unique, by name without ending."""
    found = [file for file in sorted(root.rglob("*")) if file.suffix in endings]
    files = {file.relative_to(root).as_posix(): file for file in found}
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in found]
    times = Counter(stems)
    for stem, file in zip(stems, found, strict=True):
        if times[stem] == 1:
            files.setdefault(stem, file)
    return files


class FrameStore(Store):
    """Features of frames, at most ``frames`` of a video, spread evenly over those of ``store``."""

    def __init__(self, store: Store, frames: int) -> None:
        self.store, self.frames = store, frames
        self.path, self.size, self.exact = store.path, store.size, store.exact
        self.files, self.ids = store.files, store.ids

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The number of frames taken from each."""
        return np.minimum(self.store.regions(ids), self.frames)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The features of the chosen frames."""
        values = self.store.read(name)[FEATURES]
        return {FEATURES: values[choose_frames(len(values), self.frames)]}

    def where(self, name: str) -> str:
        """Of the inner store."""
        return self.store.where(name)

    def identity(self, ids: Sequence[str]) -> str:
        """Of the inner store."""
        return self.store.identity(ids)


class ClipStore(Store):
    """Clips by file name, with and without its ending; at most ``frames`` of each are described.

    A row is a frame: the features of its ``grid`` x ``grid`` patches (see `encode_grid`).
    """

    exact = False
    slow = True

    def __init__(self, path: Path, frames: int, grid: int) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --videos the folder of the clips.")
        self.path, self.frames, self.grid = path, frames, grid
        self.size = grid * grid * SIZE
        self.files = self.ids = find_files(path, CLIP_ENDINGS)
        if not self.files:
            raise UserError(f"{path} holds no .mp4, .avi, .mkv, .webm or .mov: give the folder.")
        import_av(path)

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The maximum of frames; the exact number is known after decoding."""
        return np.full(len(ids), self.frames)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The features of the chosen frames of a clip."""
        return {FEATURES: np.stack(read_frames(self.ids[name], self.frames, self._describe))}

    def _describe(self, frame: np.ndarray) -> np.ndarray:
        return encode_grid(frame, self.grid).reshape(-1)


def choose_frames(count: int, most: int) -> np.ndarray:
    """Choose ``most`` of ``count`` frames, int [min(count, most)], evenly spread, ends included."""
    if count <= most:
        return np.arange(count)
    return np.round(np.linspace(0, count - 1, most)).astype(np.int64)


def read_frames(
    path: Path, most: int, describe: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Apply ``describe`` to at most ``most`` frames (uint8 [H, W, 3], rotated for display).

    The choice depends on the number of frames, which is nearly always the number of packets of the
    file; otherwise the clip is decoded twice.
    """
    av = import_av(path)
    try:
        with av.open(str(path)) as container:
            packets = container.demux(_stream(container))
            count = sum(packet.size > 0 for packet in packets)
        found, seen = _decode(av, path, choose_frames(count, most), describe)
        if seen != count:
            found, seen = _decode(av, path, choose_frames(seen, most), describe)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} holds no clip that can be decoded ({why}): replace the file or take its "
            "captions out."
        ) from None
    if not found:
        raise UserError(f"{path} holds no frames: replace the file or take its captions out.")
    return found


def import_av(path: Path) -> Any:
    """Import PyAV, or raise a UserError that names the extra."""
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path} needs PyAV to be decoded: install it with pip install 'hmgr-jax[video]'."
        ) from None
    return av


def _decode(
    av: Any, path: Path, chosen: np.ndarray, describe: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[np.ndarray], int]:
    """Features of the chosen frames, and the number of frames."""
    wanted, found, seen = set(chosen.tolist()), [], 0
    with av.open(str(path)) as container:
        stream = _stream(container)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if seen in wanted:
                picture = frame.to_ndarray(format="rgb24")
                found.append(describe(np.rot90(picture, round(frame.rotation / 90))))
            seen += 1
    return found, seen


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it has no pictures")
    return container.streams.video[0]
