"""Contact sheets of generated data: ``python -m hmgr_jax.reports.world_sheets --out sheet.png``.

Options: ``--clips`` for clips instead of scenes, ``--seed 0``, ``--split train|dev|test``, and
``--families 3``. A family of scenes is a row of the sheet, a clip is a row of its own.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hmgr_jax.command import Parser, guarded
from hmgr_jax.data.generated.worlds import make_family
from hmgr_jax.data.generated.worlds.clip import MOST_FRAMES, draw_clips
from hmgr_jax.data.generated.worlds.clip_captions import describe_clip
from hmgr_jax.data.generated.worlds.frames import render_frames
from hmgr_jax.data.generated.worlds.regions import detect
from hmgr_jax.data.generated.worlds.render import render
from hmgr_jax.data.generated.worlds.scene import SIBLINGS
from hmgr_jax.errors import UserError

SCENE, FRAME = 370, 135
"""Pixels per side of a scene and of a frame of a clip."""
GAP, HEAD, NOTES = 24, 24, 220
"""Pixels between pictures, for the title above a picture, and for captions below a scene."""
LINE, WRAP = 16, 58
"""Pixels per line of captions, and characters in a line below a scene."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 for a user's mistake."""
    return guarded(run, argv)


def run(arguments: Sequence[str]) -> int:
    """Parse the command line and write the sheet; ``UserError`` for invalid options."""
    parser = Parser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clips", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("train", "dev", "test"), default="train")
    parser.add_argument("--families", type=int, default=3)
    options = parser.parse(arguments)
    if options.help:
        print(__doc__)
        return 0
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
    draw(options.seed, options.split, options.families).save(options.out)
    count, what = options.families * SIBLINGS, "clips" if options.clips else "scenes"
    print(f"{options.out}: {count} {what} of {options.families} families")
    return 0


def draw_scene_sheet(seed: int, split: str, families: int) -> Image.Image:
    """Draw a row per family and a column per sibling, with boxes and captions."""
    width, height = SIBLINGS * (SCENE + GAP) + GAP, families * (HEAD + SCENE + NOTES)
    sheet = Image.new("RGB", (width, height), "white")
    for row in range(families):
        family = make_family(seed, split, row)
        for column, (scene, captions) in enumerate(
            zip(family.scenes, family.captions, strict=True)
        ):
            left, top = GAP + column * (SCENE + GAP), row * (HEAD + SCENE + NOTES) + HEAD
            picture = _scaled(render(scene), SCENE)
            pen = ImageDraw.Draw(picture)
            for box in (detect(scene) * SCENE).tolist():
                pen.rectangle(box, outline="#444444")
            sheet.paste(picture, (left, top))
            _write(sheet, (left, top - HEAD + 4), [f"{split} {scene.index} (family {row})"])
            _write(sheet, (left, top + SCENE + 6), _wrapped(c.text for c in captions))
    return sheet


def draw_clip_sheet(seed: int, split: str, families: int) -> Image.Image:
    """Draw a row per clip: its frames in order, with captions beside them."""
    clips = [clip for family in range(families) for clip in draw_clips(seed, split, family)]
    notes = GAP + MOST_FRAMES * (FRAME + GAP // 4)
    rise = HEAD + FRAME + GAP
    sheet = Image.new("RGB", (notes + 560, len(clips) * rise), "white")
    for row, clip in enumerate(clips):
        top = row * rise + HEAD
        for frame, picture in enumerate(render_frames(clip)):
            left = GAP + frame * (FRAME + GAP // 4)
            sheet.paste(_scaled(picture, FRAME), (left, top))
        title = f"{split} {clip.index} (family {clip.family}, {clip.frames} frames)"
        _write(sheet, (GAP, top - HEAD + 4), [title])
        _write(sheet, (notes, top), _wrapped(describe_clip(clip), 80))
    return sheet


def _scaled(picture: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)


def _wrapped(captions: Iterable[str], width: int = WRAP) -> list[str]:
    return [
        line
        for caption in captions
        for line in textwrap.wrap(caption, width, initial_indent="- ", subsequent_indent="  ")
    ]


def _write(sheet: Image.Image, place: tuple[int, int], lines: Sequence[str]) -> None:
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + number * LINE), line, "#222222", font)


if __name__ == "__main__":
    sys.exit(main())
