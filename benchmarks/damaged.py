"""Items with a part removed: words of captions, regions of images, a rectangle of a picture.

The removed part depends on the seed and the item. A part that is removed at one level is removed
at every higher level too, so that levels can be compared item by item.
"""

from __future__ import annotations

import math

import numpy as np

from hmgr_jax.data.pictures.pixels import ERASED_ASPECT
from hmgr_jax.data.split import Items, Source
from hmgr_jax.data.text.vocabulary import PAD

WORDS, ROWS, RECTANGLES = 0, 1, 2
"""Purposes of a random stream."""
PADDING = {"labels": -1, "attributes": -1}
"""{array of regions: its padding}; others are padded with 0."""


def _stream(seed: int, purpose: int, item: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, item])


def _as_numbers(items: np.ndarray) -> np.ndarray:
    return np.asarray(items, np.int64).reshape(-1)


class FewerWords:
    """Captions without ``count`` of their words, drawn at random; at least one word stays.

    ``<start>`` and ``<end>`` stay too. ``source`` has tokens and lengths. Word graphs, which would
    no longer fit, are left out.
    """

    def __init__(self, source: Source, count: int, seed: int = 0) -> None:
        if source.lengths is None:
            raise ValueError("captions have lengths")
        self.source, self.count, self.seed = source, count, seed
        self._removed = np.minimum(count, np.maximum(source.lengths - 3, 0)).astype(np.int32)
        self.lengths: np.ndarray | None = source.lengths - self._removed

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"tokens": int32 [k, L] padded with 0, "lengths": int32 [k]}``; see `CaptionSource`."""
        items = _as_numbers(items)
        whole = self.source.gather(items)
        lengths = whole["lengths"] - self._removed[items]
        longest = int(lengths.max(initial=1))
        tokens = np.full((len(items), length or longest), PAD, np.int32)
        for k, item in enumerate(items.tolist()):
            words = _stream(self.seed, WORDS, item).permutation(int(whole["lengths"][k]) - 2) + 1
            kept = np.delete(
                whole["tokens"][k, : whole["lengths"][k]], words[: self._removed[item]]
            )
            tokens[k, : len(kept)] = kept
        return {"tokens": tokens, "lengths": lengths}


class FewerRegions:
    """Images without a ``share`` (0..1) of their regions, or videos without one of their frames.

    ``name`` is the input and ``number`` the input that counts its true rows. At least one row
    stays. Rows that stay move up in order, with their boxes and labels; the rest is padding.
    """

    lengths: np.ndarray | None = None

    def __init__(
        self, source: Source, share: float, seed: int = 0, *, name: str, number: str
    ) -> None:
        self.source, self.share, self.seed = source, share, seed
        self.name, self.number = name, number

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """The arrays of ``source`` with fewer true rows."""
        items = _as_numbers(items)
        whole = self.source.gather(items)
        shape, counts = whole[self.name].shape[:2], whole[self.number]
        gone = np.minimum(np.rint(self.share * counts), np.maximum(counts - 1, 0)).astype(np.int32)
        found = {
            name: np.full_like(x, PADDING.get(name, 0)) if x.shape[:2] == shape else x
            for name, x in whole.items()
        }
        found[self.number] = counts - gone
        for k, item in enumerate(items.tolist()):
            order = _stream(self.seed, ROWS, item).permutation(int(counts[k]))
            kept = np.sort(order[gone[k] :])
            for name, x in whole.items():
                if x.shape[:2] == shape:
                    found[name][k, : len(kept)] = x[k, kept]
        return found


class Erased:
    """Pictures with a rectangle, a ``share`` (0..1) of the area, set to the mean colour.

    The mean colour is 0 after normalisation. Place and shape of the rectangle are the same at every
    share, as far as the picture has room.
    """

    lengths: np.ndarray | None = None

    def __init__(self, source: Source, share: float, seed: int = 0) -> None:
        self.source, self.share, self.seed = source, share, seed
        self.item_bytes = int(getattr(source, "item_bytes", 0))

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, items: np.ndarray, length: int | None = None) -> Items:
        """``{"pixels": float32 [k, S, S, 3]}``."""
        items = _as_numbers(items)
        pixels = np.array(self.source.gather(items)["pixels"])
        for k, item in enumerate(items.tolist()):
            rows, columns = self.rectangle(item, *pixels.shape[1:3])
            pixels[k, rows, columns] = 0
        return {"pixels": pixels}

    def rectangle(self, item: int, height: int, width: int) -> tuple[slice, slice]:
        """(rows, columns) of an item's erased rectangle."""
        shape, across, down = _stream(self.seed, RECTANGLES, item).random(3).tolist()
        low, high = map(math.log, ERASED_ASPECT)
        aspect = math.exp(low + shape * (high - low))
        area = self.share * height * width
        w = min(width, math.sqrt(area * aspect))
        h = min(height, area / w) if w else 0.0
        w = area / h if h else 0.0  # where it would be higher than the picture
        left, top = across * (width - w), down * (height - h)
        return slice(round(top), round(top + h)), slice(round(left), round(left + w))
