"""Small pictures of noise and gradients in files, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, width: int = 40, height: int = 30) -> np.ndarray:
    """A picture of coloured blocks that no other number has, uint8 [H, W, 3]."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR))


def write_picture(path: Path, number: int, width: int = 40, height: int = 30) -> Path:
    """`picture` as a file of the kind that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number, width, height)).save(path)
    return path
