"""SCAN's "precomp" folders: one feature file, one caption file and one id file a split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.regions.regions import RegionSource, open_features
from hmgr_jax.data.regions.row_arrays import GIVEN, read_array, read_boxes, read_counts
from hmgr_jax.data.regions.scan_files import (
    ScanFiles,
    demand_files,
    demand_same_files,
    find_split,
    pair_captions,
)
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource
from hmgr_jax.data.text.pieces import Pieces
from hmgr_jax.data.text.text_graph import find_word_graphs, read_word_graphs
from hmgr_jax.data.text.tokens import tokenize
from hmgr_jax.data.text.vocabulary import Vocabulary, build_vocabulary
from hmgr_jax.errors import UserError


def open_scan(
    root: str | Path,
    *,
    vocabulary: Vocabulary | None = None,
    captions_per_image: int | None = None,
    vocabulary_captions: Mapping[str, Sequence[str]] | None = None,
    max_words: int = MAX_WORDS,
    test_split: str = "test",
    splits: Mapping[str, str] | None = None,
    visual: str = "image",
    find: Callable[[str], ScanFiles] | None = None,
) -> DataSet:
    """Open a folder of region or frame features and captions.

    For every split there are ``{split}_ims.npy`` (or ``_feat.npy``; float16 or float32
    [rows, R, D]) and ``{split}_caps.txt`` (UTF-8, a caption a line), and there may be
    ``{split}_ids.txt`` (a name or number a row), ``{split}_cap_ids.txt`` (the id of its image a
    caption, where images have different numbers of captions), ``{split}_counts.npy`` (how many
    regions of a row are true, the first; the others are zero), ``{split}_labels.npy`` and
    ``_scores.npy`` ([rows, R]), ``{split}_boxes.npy`` ([rows, R, 4] xyxy in 0..1), or
    ``{split}_ims_bbx.npy`` in pixels with ``{split}_ims_size.npy`` [rows, 2].
    ``{split}_caps.conllu`` holds word graphs, see `hmgr_jax.data.text.text_graph`. ``visual`` says what
    the rows are: ``"image"``, of regions, or ``"video"``, of frames.

    Images are runs of equal ids: where every image is stored once a caption, as in SCAN's dev and
    test files, the first row of each run is kept and caption i belongs to the image of row i.
    Otherwise each row has the same number of captions, in order, unless ``_cap_ids`` says which are
    whose. Without ids as many rows as captions mean one caption an image, unless
    ``captions_per_image`` says that rows repeat.

    ``splits`` maps the names train, dev and test to the names in the folder, by default
    ``{"train": "train", "dev": "dev", "test": test_split}``; leave out what is not wanted. The
    vocabulary is built from the captions of train and dev (threshold 4, as SCAN does) and
    ``vocabulary_captions`` ({image: captions}; those already in train and dev are not counted
    again, those of dev and test images not at all, which takes their ids), unless ``vocabulary``
    is given; without train it must be given. ``find`` locates a split by its name in the folder,
    where its features are not in ``.npy``.

    Raises ``UserError`` (one sentence with file and row) for anything missing or malformed.
    """
    root = Path(root)
    if splits is None:
        splits = {"train": "train", "dev": "dev", "test": test_split}
    if find is None:
        demand_files(root, splits.values())
        find = functools.partial(find_split, root)
    files = {role: find(name) for role, name in splits.items()}
    split = vocabulary.tokenize if vocabulary else tokenize
    tokens = {role: [split(one) for one in found.sentences] for role, found in files.items()}
    if vocabulary is None:
        vocabulary = _build_vocabulary(root, files, tokens, vocabulary_captions or {})
    demand_same_files(files, ("boxes", *GIVEN))
    captions = {role: found.captions for role, found in files.items()}
    # Word graphs are between words, of which pieces know nothing.
    graphs = {} if isinstance(vocabulary, Pieces) else find_word_graphs(captions)
    opened = {}
    for role, found in files.items():
        arcs = read_word_graphs(graphs[role], found.sentences) if role in graphs else None
        texts = CaptionSource(
            tokens[role], vocabulary, max_words=max_words, captions=found.sentences, arcs=arcs
        )
        opened[role] = _open_split(role, found, texts, captions_per_image, visual)
    paths = [path for found in files.values() for path in found.paths()]
    paths += graphs.values()
    _demand_alike({role: split.sources[visual] for role, split in opened.items()}, files)
    return DataSet(root.resolve().name, opened, vocabulary, fingerprint(paths, root))


def _build_vocabulary(
    root: Path,
    files: Mapping[str, ScanFiles],
    tokens: Mapping[str, Sequence[Sequence[str]]],
    more: Mapping[str, Sequence[str]],
) -> Vocabulary:
    """The vocabulary of train and dev, and of those of ``more`` that they do not hold already."""
    if "train" not in files:
        raise UserError(
            f"{root} was opened without its train split, so no vocabulary can be built: give the "
            "one the model was trained with."
        )
    ours = [role for role in ("train", "dev") if role in files]
    return build_vocabulary(
        root,
        [sentence for role in ours for sentence in files[role].sentences],
        [words for role in ours for words in tokens[role]],
        more,
        _held_out(files) if more else set(),
    )


def _held_out(files: Mapping[str, ScanFiles]) -> set[str]:
    """The images of all splits but train; without ids nobody could tell whose captions to omit."""
    ids: set[str] = set()
    for role, found in files.items():
        if role == "train":
            continue
        if found.ids is None:
            raise UserError(
                f"{found.ids_file} is missing, so captions from elsewhere cannot be kept apart "
                f"from those of {role} images: add it, or give no other captions."
            )
        ids.update(found.ids)
    return ids


def _open_split(
    role: str,
    files: ScanFiles,
    texts: CaptionSource,
    per_image: int | None,
    visual: str,
) -> Split:
    """Pair the rows of one split with its captions."""
    shape = open_features(files.features).shape
    counts = read_counts(files.counts, (shape[0], shape[1]))
    images = RegionSource(files.features, counts=counts, visual=visual)
    kept, image_of_caption = pair_captions(files, len(images), per_image)
    names = [files.ids[row] if files.ids else str(row) for row in kept.tolist()]
    first = np.searchsorted(image_of_caption, image_of_caption)  # first caption of the same image
    number = np.arange(len(texts)) - first
    return Split(
        name=role,
        sources={visual: images.keep(kept, _beside(files, kept, images)), "text": texts},
        groups={visual: np.arange(len(kept), dtype=np.int32), "text": image_of_caption},
        rows={visual: image_of_caption, "text": np.arange(len(texts), dtype=np.int32)},
        ids={
            visual: names,
            "text": [f"{names[i]}#{k}" for i, k in zip(image_of_caption, number, strict=True)],
        },
    )


def _beside(files: ScanFiles, kept: np.ndarray, images: RegionSource) -> dict[str, np.ndarray]:
    """Boxes, labels, attributes and scores of the ``kept`` rows, as far as they are there."""
    shape = (len(images), images.feature_shape[0])
    found: dict[str, np.ndarray] = {}
    if files.boxes:
        found["boxes"] = read_boxes(files.boxes, kept, shape, images.counts)
    for name in GIVEN:
        if name in files.arrays:
            found[name] = read_array(name, files.arrays[name], kept, shape)
    return found


def _demand_alike(images: Mapping[str, object], files: Mapping[str, ScanFiles]) -> None:
    """Refuse splits whose features differ in size from those of the first."""
    sources = {role: found for role, found in images.items() if isinstance(found, RegionSource)}
    first, *others = sources
    for role in others:
        here, there = sources[first], sources[role]
        if here.feature_shape[1] != there.feature_shape[1]:
            raise UserError(
                f"{files[first].features} has {here.feature_shape[1]} features a region but "
                f"{files[role].features} has {there.feature_shape[1]}: extract both alike."
            )
