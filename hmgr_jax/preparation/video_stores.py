"""Videos as stores of frames: extracted features, or the clips themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.preparation.picture_store import SIZE, encode_grid, find_files
from hmgr_jax.preparation.plan import FEATURES
from hmgr_jax.preparation.stores import Store

ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".MP4", ".AVI", ".MOV")


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

    A frame is cut into ``grid`` x ``grid`` patches, each described as those of pictures
    (`hmgr_jax.preparation.picture_store`); all patches of a frame are one row.
    """

    exact = False
    slow = True

    def __init__(self, path: Path, frames: int, grid: int) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --videos the folder of the clips.")
        self.path, self.frames, self.grid = path, frames, grid
        self.size = grid * grid * SIZE
        self.files = self.ids = find_files(path, ENDINGS)
        if not self.files:
            raise UserError(f"{path} holds no .mp4, .avi, .mkv, .webm or .mov: give the folder.")
        demand_av(path)

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

    Raises:
        UserError: PyAV is missing, or the file holds no moving pictures that can be decoded.
    """
    av = demand_av(path)
    try:
        count = _packets(av, path)
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


def demand_av(path: Path) -> Any:
    """Import PyAV, or raise a UserError that names the extra."""
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path} needs PyAV to be decoded: install it with pip install 'hmgr-jax[video]'."
        ) from None
    return av


def _packets(av: Any, path: Path) -> int:
    with av.open(str(path)) as container:
        stream = _stream(container)
        return sum(packet.size > 0 for packet in container.demux(stream))


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
