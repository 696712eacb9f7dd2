"""Frames of clips, by PyAV (the extra ``video``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError


def choose_frames(count: int, most: int) -> np.ndarray:
    """Which of ``count`` frames are taken, int [min(count, most)]: spread evenly, ends included."""
    if count <= most:
        return np.arange(count)
    return np.round(np.linspace(0, count - 1, most)).astype(np.int64)


def read_frames(
    path: Path, most: int, describe: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """``describe`` (of uint8 [H, W, 3], as it is meant to be seen) of at most ``most`` frames.

    Which frames these are hangs on their number, which the packets of the file nearly always tell;
    where they do not, the clip is decoded twice.

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
    """PyAV, or a sentence that names the extra."""
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
    """The chosen frames, described, and how many frames there are."""
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
