"""A small service: a tiny CLIP, and an index of a few pictures."""

import clip_files
import numpy as np
from PIL import Image

import hmgr_jax
from hmgr_jax.search import following

NAMES = ("a.png", "b.png", "sub/c.png", "sub/d <script>.png", "sub/e.png", "f.png")


def draw(file, seed):
    """Write a picture of random pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def made(root):
    """``root`` with ``clip``, ``pictures`` and ``index``."""
    clip_files.written(root / "clip", "clip")
    for number, name in enumerate(NAMES):
        draw(root / "pictures" / name, number)
    retriever = hmgr_jax.load(root / "clip")
    found = following.build(retriever, [root / "pictures"], root / "blocks")
    found.save(root / "index")
    return root
