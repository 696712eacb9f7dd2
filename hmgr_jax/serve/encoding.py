"""Queries as vectors, in batches of fixed shapes: one compiled program per bucket of lengths."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from hmgr_jax.data.open import augmentation_of
from hmgr_jax.data.pictures.pixels import PixelSource
from hmgr_jax.data.split import Items
from hmgr_jax.data.text.captions import CaptionSource
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.interop.picture_encoder import Encoder

SENTENCES = 16
"""Sentences in one batch."""


class QueryEncoder:
    """The encoders of a run for a few queries at a time; used by one thread."""

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        given = retriever.evaluator
        self._devices = given.mesh.devices.size
        sizes = {"text": SENTENCES, "image": 1}
        self._evaluators = {
            modality: Evaluator(
                retriever.model, given.mesh, batch_size=size, buckets=given.buckets
            ).calibrated(given.calibration)
            for modality, size in sizes.items()
        }
        self.variables = given.to_local_devices(retriever.variables)

    def sentences(
        self, sentences: Sequence[str], against: str
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Vectors float32 [n, E] that search items of modality ``against``, and codes of each."""
        wanted = self.retriever.model.inputs()["text"]
        source = open_sentences(
            sentences, self.retriever.vocabulary, wanted, self.retriever.max_words
        )
        vectors: list[Any] = [None] * len(sentences)
        codes: list[Any] = [None] * len(sentences)
        for length, numbers in self._groups(source):
            for first in range(0, len(numbers), SENTENCES):
                some = numbers[first : first + SENTENCES]
                found, own = self._encode("text", source.gather(some, length), len(some), against)
                for place, number in enumerate(some.tolist()):
                    vectors[number] = found[place]
                    codes[number] = _row(own, place)
        return np.stack(vectors), codes

    def picture(self, picture: Image.Image, against: str) -> tuple[np.ndarray, Any]:
        """The vector float32 [E] of a picture, and its codes."""
        found, codes = self._encode("image", self.picture_items(picture), 1, against)
        return found[0], _row(codes, 0)

    def picture_items(self, picture: Image.Image) -> Items:
        """A picture as the inputs of the model, with a leading axis of 1."""
        if "pixels" in self.retriever.model.inputs()["image"]:
            source = PixelSource(_One(picture), augmentation_of(self.retriever.config.data))
            return source.gather(np.zeros(1, np.int64))
        encoder = self._encoder
        regions = encoder.regions(encoder.preprocess(picture)[None]).astype(np.float16)
        boxes = encoder.boxes(*picture.size)[None]
        return {"regions": regions, "n_regions": np.full(1, len(boxes[0]), "i4"), "boxes": boxes}

    def reads_pictures(self) -> bool:
        """Whether the run reads picture files."""
        from hmgr_jax.errors import UserError

        try:
            self.retriever.picture_source([""])
        except UserError:
            return False
        return "image" in self.retriever.model.modalities

    def warm(self, modality: str) -> int:
        """Compile every program for queries of an index of ``modality``; returns their number."""
        model, count = self.retriever.model, 0
        if "text" in model.modalities:
            known = self.retriever.vocabulary.words[-1]
            for length in self._lengths():
                self.sentences([" ".join([known] * max(1, length - 2))], modality)
                count += 1
        if self.reads_pictures() and (model.coarse_exact or modality != "image"):
            self.picture(Image.new("RGB", (64, 64)), modality)
            count += 1
        return count

    @functools.cached_property
    def _encoder(self) -> Encoder:
        encoder = copy.copy(self.retriever.picture_encoder)
        encoder.batch = self._devices  # a query is one picture
        return encoder

    def _lengths(self) -> list[int]:
        """The buckets that sentences can have."""
        buckets = sorted(self.retriever.evaluator.buckets)
        most = self.retriever.max_words + self.retriever.vocabulary.num_ends
        return [n for n, before in zip(buckets, [0, *buckets], strict=False) if before < most]

    def _groups(self, source: CaptionSource) -> list[tuple[int | None, np.ndarray]]:
        """(padded length, numbers) of the sentences of each bucket."""
        if source.lengths is None:
            return [(None, np.arange(len(source)))]
        place = np.searchsorted(self._lengths(), source.lengths)
        groups = ((n, np.flatnonzero(place == at)) for at, n in enumerate(self._lengths()))
        return [(length, numbers) for length, numbers in groups if len(numbers)]

    def _encode(
        self, modality: str, items: Items, count: int, against: str
    ) -> tuple[np.ndarray, Any]:
        evaluator = self._evaluators[modality]
        rows = np.minimum(np.arange(evaluator.batch_size), count - 1)
        padded = {name: value[rows] for name, value in items.items()}
        codes = evaluator.encode_batch(self.variables, modality, padded, rows.astype(np.int32))
        vectors = evaluator.vectors(self.variables, modality, codes, against=against)
        return vectors[:count], codes


def _row(codes: Any, place: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[place : place + 1], codes)


class _One:
    """One decoded picture as `Pictures`."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture

    def __len__(self) -> int:
        return 1

    def load(self, number: int) -> Image.Image:
        """The picture."""
        return self._picture
