"""SCAN's "precomp" folders: a file of features, of captions and of ids per split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hmgr_jax.data.fingerprint import fingerprint
from hmgr_jax.data.regions.regions import RegionSource, open_features
from hmgr_jax.data.regions.row_arrays import GIVEN, read_array, read_boxes, read_counts
from hmgr_jax.data.regions.scan_files import (
    CAPTIONS,
    ScanFiles,
    check_files,
    check_same_files,
    find_split,
    pair_captions,
)
from hmgr_jax.data.split import DataSet, Split
from hmgr_jax.data.text.captions import MAX_WORDS, CaptionSource, captioned_split
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
    splits: Mapping[str, str] | None = None,
    visual: str = "image",
    captions: str = CAPTIONS,
    find: Callable[[str], ScanFiles] | None = None,
) -> DataSet:
    """Open a folder of region or frame features and captions.

    Every split has ``{split}_ims.npy`` (or ``_feat.npy``; floats [rows, R, D]) and
    ``{split}_caps.txt`` (UTF-8, one caption a line). Optional are ``{split}_ids.txt`` (a name or
    number per row), ``{split}_cap_ids.txt`` (the id of the image of each caption, for unequal
    numbers of captions), ``{split}_counts.npy`` (true regions of a row; the others are zero),
    ``{split}_labels.npy`` and ``_scores.npy`` ([rows, R]), ``{split}_boxes.npy`` ([rows, R, 4] xyxy
    in 0..1) or ``{split}_ims_bbx.npy`` in pixels with ``{split}_ims_size.npy`` [rows, 2], and
    ``{split}_caps.conllu`` (`hmgr_jax.data.text.text_graph`).

    Images are runs of equal ids: SCAN's dev and test files store an image once per caption; then
    the first row of each run is kept, and caption i belongs to the image of row i. Otherwise each
    row has the same number of captions, in order, unless ``_cap_ids`` assigns them. Without ids, as
    many rows as captions mean one caption per image, unless ``captions_per_image`` tells that rows
    repeat or identical neighbours show it.

    Args:
        root: the folder.
        vocabulary: by default built from the captions of train and dev (threshold 4, as in SCAN);
            required without train.
        captions_per_image: see above.
        vocabulary_captions: {image: captions} counted for the vocabulary too, except those in train
            and dev already and those of dev and test images, which takes their ids.
        max_words: longer captions are cut.
        splits: {train, dev, test: names in the folder}; leave out splits that are not wanted.
        visual: ``"image"`` (of regions) or ``"video"`` (of frames).
        captions: files in place of ``{split}_caps.txt``, such as those of another language.
        find: locates a split whose features are not in ``.npy``.

    Raises:
        UserError: something is missing or malformed; names file and row.
    """
    root = Path(root)
    if splits is None:
        splits = {"train": "train", "dev": "dev", "test": "test"}
    if find is None:
        check_files(root, splits.values(), captions)
        find = functools.partial(find_split, root, captions=captions)
    files = {role: find(name) for role, name in splits.items()}
    split = vocabulary.tokenize if vocabulary else tokenize
    tokens = {role: [split(one) for one in found.sentences] for role, found in files.items()}
    if vocabulary is None:
        more = vocabulary_captions or {}
        sentences = {role: found.sentences for role, found in files.items()}
        held_out = _held_out(files) if more else set()
        vocabulary = build_vocabulary(root, sentences, tokens, more, held_out)
    check_same_files(files, ("boxes", *GIVEN))
    texts_of = {role: found.captions for role, found in files.items()}
    # Word graphs connect words, not pieces.
    graphs = find_word_graphs(texts_of) if vocabulary.whole_words else {}
    opened = {}
    for role, found in files.items():
        arcs = read_word_graphs(graphs[role], found.sentences) if role in graphs else None
        texts = CaptionSource(
            tokens[role], vocabulary, max_words=max_words, captions=found.sentences, arcs=arcs
        )
        opened[role] = _open_split(role, found, texts, captions_per_image, visual)
    paths = [path for found in files.values() for path in found.paths()]
    paths += graphs.values()
    _check_feature_sizes({role: split.sources[visual] for role, split in opened.items()}, files)
    return DataSet(root.resolve().name, opened, vocabulary, fingerprint(paths, root))


def _held_out(files: Mapping[str, ScanFiles]) -> set[str]:
    """Ids of the images of all splits but train, whose captions from elsewhere are omitted."""
    ids: set[str] = set()
    for role, found in files.items():
        if role == "train":
            continue
        if found.ids is None:
            raise UserError(
                f"{found.ids_file} is missing, so captions of {role} images among those from "
                "elsewhere cannot be left out: add it, or leave data.captions_from empty."
            )
        ids.update(found.ids)
    return ids


def _open_split(
    role: str, files: ScanFiles, texts: CaptionSource, per_image: int | None, visual: str
) -> Split:
    """Pair the rows of one split with its captions."""
    shape = open_features(files.features).shape
    counts = read_counts(files.counts, (shape[0], shape[1]))
    images = RegionSource(files.features, counts=counts, visual=visual)
    kept, image_of_caption = pair_captions(files, images.file, per_image)
    ids = [files.ids[row] if files.ids else str(row) for row in kept.tolist()]
    source = images.keep(kept, _beside(files, kept, images))
    return captioned_split(role, visual, source, texts, image_of_caption, ids)


def _beside(files: ScanFiles, kept: np.ndarray, images: RegionSource) -> dict[str, np.ndarray]:
    """Boxes, labels, attributes and scores of the ``kept`` rows, if given."""
    shape = (len(images), images.feature_shape[0])
    found: dict[str, np.ndarray] = {}
    if files.boxes:
        found["boxes"] = read_boxes(files.boxes, kept, shape, images.counts)
    for name in GIVEN:
        if name in files.arrays:
            found[name] = read_array(name, files.arrays[name], kept, shape)
    return found


def _check_feature_sizes(images: Mapping[str, object], files: Mapping[str, ScanFiles]) -> None:
    """Check that the features of all splits have one size."""
    sources = {role: found for role, found in images.items() if isinstance(found, RegionSource)}
    first, *others = sources
    for role in others:
        sizes = [sources[name].feature_shape[1] for name in (first, role)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{files[first].features} has {sizes[0]} features per region but "
                f"{files[role].features} has {sizes[1]}: extract both with one model."
            )
