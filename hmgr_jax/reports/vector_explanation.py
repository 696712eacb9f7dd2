"""The vectors behind a search: weights of words and regions, pairs read, ranks without the memory.

For a caption and the gallery of a split. Without the memory means that no item reads it and that
scores are not calibrated by stored vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hmgr_jax.data.split import Items, Split
from hmgr_jax.errors import FoundNonFinite
from hmgr_jax.evaluation.calibration import Calibration
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.evaluation.named_items import Caption
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.layers.bank import EMPTY
from hmgr_jax.models.base import Variables
from hmgr_jax.reports.explanation import plain, read_words
from hmgr_jax.reports.split_pictures import SplitPictures

RESULTS = 10
"""Results in the JSON."""


class StoredPair(NamedTuple):
    """A training pair that an item read from the memory."""

    slot: int
    weight: float
    picture: int
    """Number of its image or clip in the training split."""
    caption: int
    """Number of its caption; `EMPTY` if training wrote the slot, which then is unknown."""


@dataclass(frozen=True)
class Ranking:
    """The images of a split by their scores with one caption."""

    scores: np.ndarray
    """float [n]."""

    @cached_property
    def order(self) -> list[int]:
        """Numbers of the images, best first."""
        found: list[int] = np.argsort(-self.scores, kind="stable").tolist()
        return found

    @cached_property
    def ranks(self) -> dict[int, int]:
        """{image: its rank, from 1}."""
        return {image: place + 1 for place, image in enumerate(self.order)}


@dataclass(frozen=True)
class VectorExplanation:
    """A caption, an image and the gallery, without padding."""

    image: int
    """Number of the image in the gallery."""
    words: tuple[str, ...]
    """W, from ``<start>`` to ``<end>``; unknown words in their original form."""
    unknown: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    """{modality: weight of each word, region or frame in the pool}; without pools of weights {}."""
    boxes: np.ndarray | None
    """float [R, 4] of the regions: x1, y1, x2, y2 in 0..1; None if the data have none."""
    pairs: Mapping[str, Sequence[StoredPair]]
    """{modality that reads the memory: what its item read, strongest first}."""
    correct: frozenset[int]
    """Images of the caption; of a new sentence, the image of the pair."""
    found: Ranking
    """By the scores that evaluation uses."""
    without: Ranking | None = None
    """Without the memory; None if the run has none."""
    uncalibrated: Ranking | None = None
    """After the read, without calibration; None unless the run has both."""
    calibration: Calibration | None = None
    """Of the scores that evaluation uses."""
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    """{modality: σ of its item}, of systems with uncertainties."""
    without_word: np.ndarray | None = None
    """float [W]: σ of the caption without each of its words; NaN for its ends."""

    def best_correct(self) -> int:
        """The correct image of the best rank."""
        return min(self.correct, key=self.found.ranks.__getitem__)

    def describe_rank(self, image: int) -> str:
        """The rank of an image, and how it came about."""
        text = f"{self.found.ranks[image]} of {len(self.found.scores):,}"
        if self.without is None:
            return text
        text += f" ({self.without.ranks[image]} without the memory"
        if self.uncalibrated is not None:
            text += f", {self.uncalibrated.ranks[image]} by the read alone"
        return f"{text})"

    def rise(self, image: int) -> int:
        """By how many ranks the memory moves an image up; negative: down."""
        if self.without is None:
            return 0
        return self.without.ranks[image] - self.found.ranks[image]

    def rows(self, gallery: SplitPictures, train: SplitPictures | None) -> dict[str, Any]:
        """For JSON; ``train`` has the stored pairs."""
        found: dict[str, Any] = {
            "words": list(self.words),
            "unknown_words": list(self.unknown),
            "score": plain(self.found.scores[self.image]),
            **self._ranks(self.image),
            "weights": self._weight_rows(gallery.split.visual),
        }
        if self.uncertainty:
            found["uncertainty"] = {m: plain(sigma) for m, sigma in self.uncertainty.items()}
        if self.without_word is not None:
            found["uncertainty_without"] = [
                {"word": word, "uncertainty": plain(sigma)}
                for word, sigma in zip(self.words, self.without_word, strict=True)
                if np.isfinite(sigma)
            ]
        if self.calibration is not None:
            numbers = {"strength": self.calibration.strength}
            found["calibration"] = numbers | {"sharpness": self.calibration.sharpness}
        if train is not None:
            found["memory"] = {
                modality: [_pair_row(pair, train) for pair in pairs]
                for modality, pairs in self.pairs.items()
            }
        found["results"] = self._result_rows(self.found, gallery)
        if self.without is not None:
            found["results_without_memory"] = self._result_rows(self.without, gallery)
            shown = {*self.found.order[:RESULTS], *self.without.order[:RESULTS], *self.correct}
            moved = sorted((i for i in shown if self.rise(i) > 0), key=self.rise, reverse=True)
            found["moved_up"] = [{"image": gallery.id(i), **self._ranks(i)} for i in moved]
        return found

    def _ranks(self, image: int) -> dict[str, int]:
        ranks = {"rank": self.found.ranks[image]}
        if self.without is not None:
            ranks["rank_without_memory"] = self.without.ranks[image]
        if self.uncalibrated is not None:
            ranks["rank_uncalibrated"] = self.uncalibrated.ranks[image]
        return ranks

    def _weight_rows(self, visual: str) -> dict[str, Any]:
        """Words in order; regions or frames by their weights."""
        rows: dict[str, Any] = {}
        if "text" in self.weights:
            pairs = zip(self.words, plain(self.weights["text"]), strict=True)
            rows["text"] = [{"word": word, "weight": weight} for word, weight in pairs]
        if visual in self.weights:
            weights = self.weights[visual]
            what = "region" if visual == "image" else "frame"
            rows[visual] = [
                {what: k, "weight": plain(weights[k])}
                | ({} if self.boxes is None else {"box": plain(self.boxes[k])})
                for k in np.argsort(-weights, kind="stable").tolist()
            ]
        return rows

    def _result_rows(self, ranking: Ranking, gallery: SplitPictures) -> list[dict[str, Any]]:
        return [
            {
                "image": gallery.id(image),
                "file": _text(gallery.file(image)),
                "correct": image in self.correct,
                "score": plain(ranking.scores[image]),
                **self._ranks(image),
            }
            for image in ranking.order[:RESULTS]
        ]


def explain_vectors(
    retriever: Retriever, split: Split, image: int, caption: Caption, train: Split | None
) -> VectorExplanation:
    """Explain the search of a split with a caption.

    Args:
        retriever: a trained run of a system with pool weights.
        split: the gallery.
        image: an image (or clip) of the split.
        caption: a caption of the split, or a new sentence.
        train: the training split, whose pairs the memory stores; None without memory.

    Raises:
        FoundNonFinite: a score or weight is NaN or infinite.
        UserError: the memory stores another training split.
    """
    visual, model = split.visual, retriever.model
    words, unknown = read_words(retriever, caption.sentence)
    texts = retriever.sentence_source([caption.sentence])
    items = {
        visual: split.sources[visual].gather(np.array([image])),
        "text": texts.gather(np.arange(1)),
    }
    weights = _weights(retriever, items)
    sources = {visual: split.sources[visual], "text": texts}
    evaluator = retriever.evaluator

    def encode(variables: Variables) -> dict[str, Any]:
        return {m: evaluator.encode(variables, m, source) for m, source in sources.items()}

    def rank(codes: Mapping[str, Any], by: Evaluator) -> Ranking:
        given = (visual, codes[visual], "text", codes["text"])
        return Ranking(by.scores(retriever.variables, *given)[:, 0])

    codes = encode(retriever.variables)
    found, plainly = rank(codes, evaluator), evaluator.calibrated(None)
    pairs, without, uncalibrated, before = {}, None, None, codes
    if train is not None:
        before = encode(model.before_finalize(retriever.variables))
        own = {visual: before[visual][image : image + 1], "text": before["text"]}
        pairs = _pairs(retriever, own, train)
    calibrated = evaluator.calibration is not None and evaluator.calibration.strength > 0
    if pairs or calibrated:
        without = rank(before, plainly)
    if pairs and calibrated:
        uncalibrated = rank(codes, plainly)
    if not all(np.isfinite(x).all() for x in (found.scores, *weights.values())):
        raise FoundNonFinite("A score or weight holds NaN or infinity: train the model again.")
    boxes = items[visual].get("boxes")
    sigmas = _uncertainty(evaluator, codes, {visual: image, "text": 0})
    return VectorExplanation(
        image=image,
        words=words,
        unknown=unknown,
        weights=weights,
        boxes=None if boxes is None else np.asarray(boxes[0, : int(items[visual]["n_regions"][0])]),
        pairs=pairs,
        correct=_correct(split, image, caption),
        found=found,
        without=without,
        uncalibrated=uncalibrated,
        calibration=evaluator.calibration,
        uncertainty=sigmas,
        without_word=_without_each_word(retriever, items["text"]) if "text" in sigmas else None,
    )


def _uncertainty(
    evaluator: Evaluator, codes: Mapping[str, Any], numbers: Mapping[str, int]
) -> dict[str, float]:
    """σ of the item with a number in the codes of each modality that has one."""
    found = {m: evaluator.uncertainty(codes[m]) for m in numbers}
    return {m: float(sigma[numbers[m]]) for m, sigma in found.items() if sigma is not None}


def _without_each_word(retriever: Retriever, text: Items) -> np.ndarray | None:
    """σ [W] of a caption without each word but its ends; None of fewer than two words."""
    (count,), (tokens,) = text["lengths"].tolist(), text["tokens"]
    inner = range(1, count - 1)
    if len(inner) < 2:
        return None
    shorter = np.stack([np.append(np.delete(tokens, place), 0) for place in inner])
    lengths = np.full(len(shorter), count - 1, np.int32)
    codes = retriever.encode("text", {"tokens": shorter, "lengths": lengths})
    found: Any = retriever.evaluator.uncertainty(codes)
    return np.array([np.nan, *found.tolist(), np.nan])


def _weights(retriever: Retriever, items: Mapping[str, Items]) -> dict[str, np.ndarray]:
    """Pool weights [n] of the fragments of one item of each modality."""
    found = {}
    for modality, item in items.items():
        weights = retriever.pool_weights(modality, item)
        if weights is not None:
            names = ("lengths", "n_regions", "n_frames")
            counts = (int(item[name][0]) for name in names if name in item)
            count = next(counts, weights.shape[1])  # a picture in pixels has all its cells
            found[modality] = np.asarray(weights[0, :count], np.float64)
    return found


def _pairs(
    retriever: Retriever, codes: Mapping[str, Any], train: Split
) -> dict[str, list[StoredPair]]:
    """What one item of each modality reads from the memory."""
    model, variables = retriever.model, retriever.variables
    readings = {m: model.readings(variables, m, code) for m, code in codes.items()}
    if not any(readings.values()):
        return {}
    stored = model.stored_items(variables, train.rows)
    pictures, captions = stored[train.visual].tolist(), stored["text"].tolist()
    found = {}
    for modality, reading in readings.items():
        if reading is not None:
            slots, weights = (np.asarray(x[0]).tolist() for x in (reading.slots, reading.weights))
            found[modality] = [
                StoredPair(slot, weight, pictures[slot], captions[slot])
                for slot, weight in zip(slots, weights, strict=True)
                if weight > 0
            ]
    return found


def _correct(split: Split, image: int, caption: Caption) -> frozenset[int]:
    if caption.id is None:
        return frozenset([image])
    group = split.groups["text"][list(split.ids["text"]).index(caption.id)]
    return frozenset(np.flatnonzero(split.groups[split.visual] == group).tolist())


def _pair_row(pair: StoredPair, train: SplitPictures) -> dict[str, Any]:
    known = pair.caption != EMPTY
    return {
        "slot": pair.slot,
        "weight": plain(pair.weight),
        "image": train.id(pair.picture),
        "file": _text(train.file(pair.picture)),
        "caption": train.split.ids["text"][pair.caption] if known else None,
        "sentence": train.sentences[pair.caption] if known else None,
    }


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
