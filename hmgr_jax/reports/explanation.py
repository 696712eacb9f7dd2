"""The parts of a model's score of an image and a sentence: attention, steps and relations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from hmgr_jax.data.split import Items
from hmgr_jax.errors import FoundNonFinite, UserError
from hmgr_jax.evaluation.retriever import Retriever
from hmgr_jax.models import get_model, list_models
from hmgr_jax.models.base import Model

DIRECTIONS = ("t2i", "i2t")
EDGES = 24
"""Number of strongest relations per item and layer in the JSON."""


class Attention(NamedTuple):
    """Attention of Q words or regions to Y regions or words, in K steps."""

    weights: np.ndarray
    """float [K, Q, Y]: each row sums to 1, or less if a query also attends to its own side."""
    cosines: np.ndarray
    """float [K, Q]: of every query with its attended context."""


class Edge(NamedTuple):
    """The weight of one node's attention to another."""

    to: int
    source: int
    weight: float


def strongest_edges(weights: np.ndarray, count: int = EDGES) -> list[Edge]:
    """The strongest edges between different nodes of a layer [N, N], strongest first."""
    apart = np.where(np.eye(len(weights), dtype=bool), -1.0, weights)
    order = np.argsort(-apart, axis=None, kind="stable")[:count]
    pairs = (divmod(int(place), len(weights)) for place in order)
    return [Edge(to, j, float(weights[to, j])) for to, j in pairs if apart[to, j] > 0]


@dataclass(frozen=True)
class PairExplanation:
    """The parts of the score of one image and one sentence, without padding."""

    words: tuple[str, ...]
    """W, from ``<start>`` to ``<end>``; unknown words in their original form."""
    unknown: tuple[str, ...]
    boxes: np.ndarray
    """float [R, 4]: x1, y1, x2, y2 in 0..1."""
    score: float
    """The score for ranking."""
    steps: tuple[float, ...]
    """The score of every matching step."""
    attention: Mapping[str, Attention]
    """``t2i``: words attend to regions; ``i2t``: regions to words."""
    relations: Mapping[str, np.ndarray] = field(default_factory=dict)
    """{modality: float [K, N, N]}: weights of edges to the first node from the second, in K graph
    layers; empty if the system has none."""

    def strongest(self, modality: str, layer: int, count: int = EDGES) -> list[Edge]:
        """The strongest edges between different nodes of a modality, strongest first."""
        return strongest_edges(self.relations[modality][layer], count)

    def rows(self) -> dict[str, Any]:
        """For JSON: lists, and weights as rows of one query each."""
        steps = [
            {"step": step + 1, "score": self.steps[step]}
            | {
                direction: {"weights": plain(a.weights[step]), "cosines": plain(a.cosines[step])}
                for direction, a in self.attention.items()
            }
            for step in range(len(self.steps))
        ]
        return {
            "words": list(self.words),
            "unknown_words": list(self.unknown),
            "boxes": plain(self.boxes),
            "score": self.score,
            "steps": steps,
        } | ({"relations": self._relation_rows()} if self.relations else {})

    def _relation_rows(self) -> dict[str, Any]:
        return {
            modality: [
                {"layer": layer + 1, "to": to, "from": source, "weight": round(weight, 7)}
                for layer in range(len(weights))
                for to, source, weight in self.strongest(modality, layer)
            ]
            for modality, weights in self.relations.items()
        }


def check_explainable(retriever: Retriever) -> None:
    """Check that the system explains the scores of pairs, or its vectors.

    Raises:
        UserError: it explains neither; the message names the systems that do.
    """
    if not explains(retriever.model):
        able = [name for name in list_models() if explains(get_model(name))]
        raise UserError(
            f"{retriever.config.model.name} has neither attention between regions and words nor "
            f"weights of them to explain: use {', '.join(able)}."
        )


def explains(model: Model) -> bool:
    """Whether a system explains the scores of pairs, or its vectors."""
    return model.explainable() or model.explains_vectors()


def read_words(retriever: Retriever, sentence: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that the model reads, from ``<start>`` to ``<end>``, and the unknown ones.

    Unknown words are in their original form, and a warning names them.
    """
    known = retriever.vocabulary
    tokens = known.tokenize(sentence)[: retriever.max_words]
    unknown = tuple(dict.fromkeys(t for t in tokens if t not in known))
    if unknown:
        warnings.warn(
            f"the model does not know {', '.join(unknown)}: each is read as {known.unknown}",
            RuntimeWarning,
            stacklevel=3,
        )
    return (*known.ends[0], *tokens, *known.ends[1]), unknown


def explain_pair(
    retriever: Retriever, image: Items, sentence: str, text: Items | None = None
) -> PairExplanation:
    """Explain the score of an image (one item with ``boxes``, leading axis 1) and a sentence.

    ``text`` are the arrays of the sentence if the model reads more than its words.

    Raises:
        UserError: the items do not fit the system.
        FoundNonFinite: a score or weight is NaN or infinite.
    """
    words, unknown = read_words(retriever, sentence)
    regions = int(image["n_regions"][0])
    given = {"image": image, "text": retriever.read([sentence]) if text is None else text}
    codes = (retriever.encode("image", image), retriever.encode("text", given["text"]))
    score = retriever.score(("image", codes[0]), ("text", codes[1]))
    found = jax.device_get(jax.jit(retriever.model.explain)(retriever.variables, *codes))
    counts = {"t": len(words), "i": regions}
    attention = {}
    for direction in (d for d in DIRECTIONS if d in found.attention):
        weights, cosines = found.attention[direction]
        query, context = (counts[side] for side in direction.split("2"))
        attention[direction] = Attention(weights[:, :query, :context], cosines[:, :query])
    relations = _relations(retriever, given, {"image": regions, "text": len(words)})
    numbers = jax.tree.leaves((score, found.scores, attention, relations))
    if not all(np.isfinite(x).all() for x in numbers):
        raise FoundNonFinite("The score of the pair holds NaN or infinity: train the model again.")
    steps = tuple(plain(found.scores))
    boxes = np.asarray(image["boxes"][0, :regions])
    return PairExplanation(words, unknown, boxes, float(score[0, 0]), steps, attention, relations)


def _relations(
    retriever: Retriever, given: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Edges within the items, without padding, for the modalities with edges."""
    found = {m: retriever.relations(m, items) for m, items in given.items()}
    return {
        m: weights[0, :, : counts[m], : counts[m]]
        for m, weights in found.items()
        if weights is not None
    }


def plain(values: np.ndarray | float) -> Any:
    """Numbers or lists of numbers, rounded to the precision of float32."""
    return np.round(np.asarray(values, np.float64), 7).tolist()
