"""Pictures, and frames of videos, as stores of the features of an encoder."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hmgr_jax.data.pictures.decode import read_ahead
from hmgr_jax.data.pictures.equal import warn_equal
from hmgr_jax.data.pictures.files import pictures_below
from hmgr_jax.data.pictures.pca import Pca
from hmgr_jax.errors import UserError
from hmgr_jax.files.manifest import ENCODER_PCA
from hmgr_jax.files.npy_rows import NpyRows
from hmgr_jax.files.walk import files_below
from hmgr_jax.preparation.frames import CLIP_ENDINGS, choose_frames, import_av, read_frames
from hmgr_jax.preparation.plan import BOXES, FEATURES
from hmgr_jax.preparation.stores import Store
from hmgr_jax.progress import Progress

if TYPE_CHECKING:
    from hmgr_jax.interop.picture_encoder import Encoder  # which loads JAX

FIT_ON, FRAMES_TO_FIT = 1000, 4000
"""Most pictures, and most frames of clips, to which a PCA is fitted."""


class EncodedStore(Store):
    """Pictures or clips as an encoder describes them.

    Without a PCA of its own, the encoder may be followed by one of ``components``, which `begin`
    fits to the training split.
    """

    slow = True
    encoder: Encoder
    components: int | None
    fit_on: int
    """Most pictures or clips to which the PCA is fitted."""

    @property
    def features(self) -> int:
        """Numbers of a cell in the folder."""
        return self.components or self.encoder.size

    def begin(self, folder: Path, train: Sequence[str]) -> list[str]:
        """Fit the PCA where ``folder`` has none, and save the encoder there."""
        if self.components is not None:
            path = folder / ENCODER_PCA
            pca = Pca.read(path) if path.is_file() else self._fit(train)
            self.encoder = self.encoder.with_pca(pca, sqrt=self.encoder.sqrt)
        self.encoder.save(folder)
        return [ENCODER_PCA] if self.encoder.pca is not None else []

    def described(self) -> dict[str, Any]:
        """The encoder, for the manifest."""
        return {"encoder": self.encoder.describe()}

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one picture or clip."""
        return next(self.stream([name]))

    def _fit(self, train: Sequence[str]) -> Pca:
        assert self.components is not None
        count = min(len(train), self.fit_on)
        chosen = [train[i] for i in np.linspace(0, len(train) - 1, count).astype(int)]
        with Progress(count, "items", title="fitting the PCA", stream=sys.stderr) as bar:
            found = (one[FEATURES] for one in bar.over(self.stream(chosen)))
            return Pca.fit((x.reshape(-1, self.encoder.size) for x in found), self.components)


class PictureStore(EncodedStore):
    """Pictures by file name and, if unique, by name without ending; boxes are those of cells."""

    has_boxes = True
    fit_on = FIT_ON

    def __init__(self, path: Path, encoder: Encoder, components: int | None = None) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --pictures the folder of the pictures.")
        self.path, self.encoder, self.components = path, encoder, components
        self.size = self.features
        self.files = self.ids = by_names(path, pictures_below(path))
        if not self.files:
            raise UserError(f"{path} holds no picture: give a folder of JPEG, PNG or other files.")

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The number of cells, equal for all pictures."""
        return np.full(len(ids), self.encoder.grid**2)

    def stream(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Features and boxes of pictures."""
        for regions, boxes in self.encoder.encode_files(self.ids[name] for name in names):
            yield {FEATURES: regions, BOXES: boxes}

    def end(self, folder: Path, names: Mapping[str, Sequence[str]]) -> None:
        """Warn of equal features."""
        files = [NpyRows(folder / f"{split}_{FEATURES}.npy") for split in names]
        rows = (one.gather(np.array([row])) for one in files for row in range(len(one)))
        pictures = [self.ids[name] for found in names.values() for name in found]
        warn_equal(rows, pictures, str(self.path))


def by_names(root: Path, found: Sequence[Path]) -> dict[str, Path]:
    """Files below ``root`` by name and, if unique, by name without ending."""
    files = {file.relative_to(root).as_posix(): file for file in found}
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in found]
    times = Counter(stems)
    for stem, file in zip(stems, found, strict=True):
        if times[stem] == 1:
            files.setdefault(stem, file)
    return files


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
        return {FEATURES: values[choose_frames(range(len(values)), self.frames)]}

    def where(self, name: str) -> str:
        """Of the inner store."""
        return self.store.where(name)

    def identity(self, ids: Sequence[str]) -> str:
        """Of the inner store."""
        return self.store.identity(ids)


class ClipStore(EncodedStore):
    """Clips by file name, with and without its ending; at most ``frames`` of each are described.

    A row is a frame: the features of all its cells.
    """

    exact = False

    def __init__(
        self, path: Path, frames: int, encoder: Encoder, components: int | None = None
    ) -> None:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give --videos the folder of the clips.")
        self.path, self.frames, self.encoder, self.components = path, frames, encoder, components
        self.fit_on = max(1, FRAMES_TO_FIT // frames)
        self.size = encoder.grid**2 * self.features
        clips = files_below(path, CLIP_ENDINGS)
        self.files = self.ids = by_names(path, clips)
        if not self.files:
            raise UserError(f"{path} holds no .mp4, .avi, .mkv, .webm or .mov: give the folder.")
        import_av(path)

    def regions(self, ids: Sequence[str]) -> np.ndarray:
        """The maximum of frames; the exact number is known after decoding."""
        return np.full(len(ids), self.frames)

    def stream(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """The features of the chosen frames of clips."""
        clips = read_ahead(self._read_pixels, names, most=2, threads=2)
        for regions in self.encoder.stream(clips):
            yield {FEATURES: regions.reshape(len(regions), -1)}

    def _read_pixels(self, name: str) -> np.ndarray:
        return np.stack(read_frames(self.ids[name], self.frames, self._preprocess))

    def _preprocess(self, frame: np.ndarray) -> np.ndarray:
        return self.encoder.preprocess(Image.fromarray(frame))
