"""Contact sheets of generated data: ``python -m hmgr_jax.reports.world_sheets --out sheet.png``.

Options: ``--clips`` for clips instead of scenes, ``--seed 0``, ``--split train|dev|test``, and
``--families 3``. A family of scenes is a row of the sheet, a clip is a row of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.command import Parser, guarded
from hmgr_jax.data.generated.worlds import make_family
from hmgr_jax.data.generated.worlds.clip import MOST_FRAMES, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import describe_clip
from hmgr_jax.data.generated.worlds.frames import render_frames
from hmgr_jax.data.generated.worlds.regions import detect
from hmgr_jax.data.generated.worlds.render import PIXELS, render
from hmgr_jax.data.generated.worlds.scene import SIBLINGS, Scene
from hmgr_jax.errors import UserError
from hmgr_jax.reports.grid import Thumbnail, bullets, draw_grid


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for invalid options."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and write the sheet; ``UserError`` for invalid options."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clips", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="train")
    parser.add_argument("--families", type=int, default=3)
    options = parser.parse(arguments)
    if options.out is None:
        raise UserError("--out is missing: give the PNG file to write, as --out sheet.png.")
    if options.seed < 0 or options.families < 1:
        raise UserError(
            f"--seed must be at least 0 and --families at least 1, got {options.seed} and "
            f"{options.families}: correct them."
        )
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out must name a PNG file, got {options.out}: end it in .png.")
    if options.out.exists():
        raise UserError(f"{options.out} exists already: give another name, or move it away.")
    if not options.out.parent.is_dir():
        raise UserError(f"{options.out.parent} is not a folder: make it, or give another path.")
    draw = draw_clip_sheet if options.clips else draw_scene_sheet
    draw(options.out, seed=options.seed, split=options.split, families=options.families)
    count, what = options.families * SIBLINGS, "clips" if options.clips else "scenes"
    print(f"{options.out}: {count} {what} of {options.families} families")
    return 0


def draw_scene_sheet(path: Path, *, seed: int, split: str = "train", families: int = 3) -> None:
    """Write a PNG of scenes, with one row per family and one column per sibling."""
    rows = []
    for number in range(families):
        family = make_family(seed, split, number)
        captions = (bullets([c.text for c in some], 54) for some in family.captions)
        rows.append([_scene(*each) for each in zip(family.scenes, captions, strict=True)])
    draw_grid(path, rows, side=3.7, above=0.25, below=2.2)


def draw_clip_sheet(path: Path, *, seed: int, split: str = "train", families: int = 3) -> None:
    """Write a PNG of clips, with one row of frames per clip and its captions beside them."""
    clips = [clip for family in range(families) for clip in draw_clips(seed, split, family)]
    rows = []
    for clip in clips:
        frames = [Thumbnail(frame) for frame in render_frames(clip)]
        name = f"{clip.split} {clip.index}   (family {clip.family}, {clip.frames} frames)"
        rows.append([Thumbnail(frames[0].picture, above=name), *frames[1:]])
    notes = [bullets(describe_clip(clip), 78) for clip in clips]
    draw_grid(
        path,
        rows,
        side=1.35,
        above=0.25,
        columns=MOST_FRAMES,
        notes=notes,
        notes_width=5.6,
        group=SIBLINGS,
    )


def _scene(scene: Scene, captions: str) -> Thumbnail:
    return Thumbnail(
        np.asarray(render(scene)),
        above=f"{scene.split} {scene.index}   (family {scene.family})",
        below=captions,
        boxes=(detect(scene) * PIXELS).tolist(),
    )


if __name__ == "__main__":
    sys.exit(main())
