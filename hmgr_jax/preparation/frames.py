"""Frames of clips: spread evenly over the time of a clip, and as they are displayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError

CLIP_ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v")


def choose_frames(stamps: Sequence[float | None], most: int) -> np.ndarray:
    """Choose at most ``most`` frames, int64, evenly spread over time, ends included.

    The frames nearest to evenly spread times are chosen, each once: fewer where a clip stands
    still. If a time is missing or out of order, all frames count as equally long.

    Args:
        stamps: the time of each frame, in any unit.
        most: number of frames.
    """
    count = len(stamps)
    if count <= most:
        return np.arange(count)
    wanted = np.linspace(0, count - 1, most)
    times = np.array([np.nan if stamp is None else stamp for stamp in stamps])
    gaps = np.diff(times)
    if (gaps > 0).all() and gaps.min() < gaps.max():
        wanted = np.interp(np.linspace(times[0], times[-1], most), times, np.arange(count))
    return np.unique(np.round(wanted).astype(np.int64))


def read_frames(
    path: Path, most: int, describe: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Apply ``describe`` to at most ``most`` frames (uint8 [H, W, 3], turned and mirrored).

    The choice depends on the times of all frames, which are nearly always those of the packets of
    the file; otherwise the clip is decoded twice.
    """
    av = import_av(path)
    try:
        with av.open(str(path)) as container:
            packets = container.demux(_stream(container))
            stamps = [packet.pts for packet in packets if packet.size > 0]
        if None not in stamps:
            stamps.sort()  # packets come in the order of decoding
        found, seen = _decode(av, path, choose_frames(stamps, most), describe)
        if len(seen) != len(stamps):
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
) -> tuple[list[np.ndarray], list[float | None]]:
    """Features of the chosen frames, and the times of all frames."""
    wanted, found = set(chosen.tolist()), []
    seen: list[float | None] = []
    with av.open(str(path)) as container:
        stream = _stream(container)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if len(seen) in wanted:
                matrix = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
                picture = frame.to_ndarray(format="rgb24")
                found.append(describe(picture if matrix is None else displayed(picture, matrix)))
            seen.append(frame.pts)
    return found, seen


def displayed(picture: np.ndarray, matrix: Any) -> np.ndarray:
    """A picture [H, W, 3] in the nearest quarter turn of a display matrix, mirrored if it says so.

    ``matrix`` are the bytes of FFmpeg's nine int32 (a, b, u, c, d, v, x, y, w): a pixel (x, y) is
    displayed at (a x + c y, b x + d y).
    """
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it has no pictures")
    return container.streams.video[0]
