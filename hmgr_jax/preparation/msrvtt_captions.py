"""MSR-VTT captions: the JSON of the challenge, the CSV of 1k-A, and the files of HGR."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.text.captioned import (
    Captioned,
    check_distinct,
    clean_caption,
    clean_captions,
    clean_name,
    file_names,
    hash_order,
    read_split,
)
from hmgr_jax.data.text.captions_files import cell, load_json, table_rows
from hmgr_jax.errors import UserError
from hmgr_jax.files.arrays import read_npy
from hmgr_jax.files.reading import readable

COLUMNS = (("video_id", "video", "vid"), ("sentence", "caption"))
HGR = {"train": "trn_names.npy", "dev": "val_names.npy", "test": "tst_names.npy"}
HELD_OUT = 0.05
"""Share of the training videos held out for dev if no file names a dev split."""


def read_challenge(paths: Sequence[Path]) -> list[Captioned]:
    """The videos of ``videodatainfo.json``, or of ``train_val_`` and ``test_videodatainfo.json``.

    Captions are in the order of the file; the entry of a video names its split.
    """
    videos: list[Captioned] = []
    for path in paths:
        found = load_json(path, "MSR-VTT's videos and sentences")
        captions: dict[str, list[str]] = {}
        for number, video in enumerate(_listed(path, found, "videos")):
            where = f"{path}, video {number}"
            name = clean_name(_of(video, "video_id", where), where)
            split = read_split(clean_name(_of(video, "split", where), where), where)
            videos.append(Captioned(file_names(name), split, captions.setdefault(name, []), where))
        for number, sentence in enumerate(_listed(path, found, "sentences")):
            where = f"{path}, sentence {number}"
            name = clean_name(_of(sentence, "video_id", where), where)
            if name not in captions:
                raise UserError(
                    f"{where} is of {name}, which is none of the {len(captions)} videos of the "
                    "file: give the file that lists it, or remove the sentence."
                )
            captions[name].append(clean_caption(_of(sentence, "caption", where), where))
    videos = check_distinct(videos)
    lacking = next((video for video in videos if not video.captions), None)
    if lacking is not None:
        raise UserError(
            f"{lacking.where} ({lacking.id}) has no sentence: give a file with its captions, or "
            "remove the video."
        )
    return videos


def read_1ka(path: Path) -> list[Captioned]:
    """The videos of ``MSRVTT_JSFUSION_test.csv``, one caption each."""
    videos = []
    for where, row in table_rows(path, COLUMNS):
        names = file_names(clean_name(cell(row, COLUMNS[0], where), where))
        videos.append(
            Captioned(names, "test", [clean_caption(cell(row, COLUMNS[1], where), where)], where)
        )
    if not videos:
        raise UserError(f"{path} holds no rows where 1k-A has a video and its caption a row.")
    return check_distinct(videos)


def read_hgr(path: Path, names: Path) -> list[Captioned]:
    """The videos of ``ref_captions.json`` that ``{trn,val,tst}_names.npy`` in ``names`` list."""
    found = load_json(path, "{video: captions}")
    videos = []
    for split, file in HGR.items():
        for number, name in enumerate(_names(names / file)):
            where = f"{names / file}, row {number}"
            captions = found.get(name)
            if not isinstance(captions, list) or not captions:
                raise UserError(
                    f"{where} is {name}, of which {path} has no captions: give the files of one "
                    "release."
                )
            texts = clean_captions(captions, f"{path}, {name},")
            videos.append(Captioned(file_names(name), split, texts, where))
    return check_distinct(videos)


def split_1ka(
    videos: Sequence[Captioned], tests: Sequence[Captioned], dev: float | None
) -> dict[str, list[Captioned]]:
    """1k-A: ``tests`` are the test split, other ``videos`` (if any) train and dev."""
    # By names without endings: one file may say video7 where the other says video7.mp4.
    ids = {video.names["stem"] for video in tests}
    rest = [video for video in videos if video.names["stem"] not in ids]
    if videos and not rest:
        raise UserError(
            "All videos of --json are among those of --csv, so none is left to train on: give the "
            "JSON of all videos."
        )
    return hold_out(rest, dev) | {"test": list(tests)} if rest else {"test": list(tests)}


def hold_out(videos: Sequence[Captioned], dev: float | None) -> dict[str, list[Captioned]]:
    """Split into train and dev by a digest of the ids; ``dev`` is a share below 1 or a count."""
    given = HELD_OUT if dev is None else dev
    whole = given >= 1 and math.isfinite(given) and given == int(given)
    count = int(given) if whole else max(1, round(given * len(videos))) if 0 < given < 1 else 0
    if not 0 < count < len(videos):
        raise UserError(
            f"--dev is {given:g} where a share between 0 and 1, or a whole number below the "
            f"{len(videos)} videos to train on, was expected: correct it."
        )
    held = set(hash_order(videos)[:count])
    return {
        "train": [video for i, video in enumerate(videos) if i not in held],
        "dev": [video for i, video in enumerate(videos) if i in held],
    }


def _names(path: Path) -> list[str]:
    found = read_npy(path, "save it as a plain array of text with numpy.save.")
    if found.ndim != 1 or found.dtype.kind not in "US" or not found.size:
        raise UserError(
            f"{path} has shape {found.shape} and type {found.dtype} where names of videos were "
            "expected: save a plain array of text."
        )
    with readable(path, "a list of names", "save a plain array of text."):
        return found.astype(np.str_).tolist()


def _listed(path: Path, found: Mapping[str, Any], key: str) -> list[Any]:
    listed = found.get(key)
    if not isinstance(listed, list) or not listed:
        raise UserError(
            f"{path} holds no list {key!r} where MSR-VTT has videos and sentences: give "
            "videodatainfo.json, or train_val_videodatainfo.json and test_videodatainfo.json."
        )
    return listed


def _of(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise UserError(
            f"{where} (counted from 0) lacks {key!r} where MSR-VTT has it: download the file again."
        )
    return entry[key]
