"""Graded relevance: scores of the pairs that people judged (``eval.judgments``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hmgr_jax.data.split import Split
from hmgr_jax.data.text.flickr8k import Judgments, image_name, read_judgments
from hmgr_jax.data.text.text_graph import open_sentences
from hmgr_jax.data.text.vocabulary import Vocabulary
from hmgr_jax.errors import UserError
from hmgr_jax.evaluation.evaluate import Evaluator
from hmgr_jax.metrics.graded import rank_correlation, rater_agreement
from hmgr_jax.models.base import Variables

PREFIX = "judgments/"
WHO = {
    "expert": "each rating (1 to 4) of three experts is an observation",
    "crowd": "the share of yes of three workers or more",
}


@dataclass(frozen=True)
class Judged:
    """The judged pairs with an image in a split; their captions may be of any image."""

    split: Split
    sets: Mapping[str, Judgments]
    """{"expert" | "crowd": the pairs with their image in the split}."""
    totals: Mapping[str, int]
    """{name: number of all judged pairs}."""

    @property
    def captions(self) -> dict[str, str]:
        """Every judged caption once, {id: text}: the columns of the score matrix."""
        return {
            caption: text
            for judgments in self.sets.values()
            for caption, text in zip(judgments.captions, judgments.texts, strict=True)
        }

    def scores(
        self, evaluator: Evaluator, variables: Variables, data: ConfigDict, vocabulary: Vocabulary
    ) -> np.ndarray:
        """Scores float32 [images of the split, judged captions] of a model.

        Args:
            evaluator: of the model.
            variables: of the model, finalised.
            data: the ``data`` part of the configuration, with the maximal length of a caption.
            vocabulary: of the model.
        """
        wanted = evaluator.model.inputs()["text"]
        limit = max(1, min(data.max_words, max(data.buckets) - 2))  # with <start> and <end>
        source = open_sentences([*self.captions.values()], vocabulary, wanted, limit)
        images = evaluator.encode(variables, "image", self.split.sources["image"])
        captions = evaluator.encode(variables, "text", source)
        return evaluator.scores(variables, "image", images, "text", captions)

    def metrics(self, scores: np.ndarray) -> dict[str, float]:
        """Rank correlations, ``judgments/expert/kendall_tau_c`` and so on.

        The main metrics leave out an image's own captions, as usual on Flickr8k-Expert.
        ``.../with_own/...`` includes them. ``.../human/...`` is the agreement of one expert with
        the other two on the pairs of the main metrics.
        """
        row = {image_name(name): i for i, name in enumerate(self.split.ids["image"])}
        column = {caption: j for j, caption in enumerate(self.captions)}
        found: dict[str, dict[str, float]] = {}
        for name, judgments in self.sets.items():
            rows = [row[image] for image in judgments.images]
            judged = scores[rows, [column[caption] for caption in judgments.captions]]
            others = ~judgments.own
            found[name] = rank_correlation(judged[others], judgments.ratings[others])
            found[f"{name}/with_own"] = rank_correlation(judged, judgments.ratings)
            if judgments.ratings.shape[1] > 1:
                found[f"{name}/human"] = rater_agreement(judgments.ratings[others])
        return {f"{PREFIX}{name}/{m}": v for name, of in found.items() for m, v in of.items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """{name: {"judged", "with_image", "own"}}: numbers of pairs, recorded with the metrics."""
        return {
            name: {
                "judged": self.totals[name],
                "with_image": len(judgments),
                "own": int(judgments.own.sum()),
            }
            for name, judgments in self.sets.items()
        }


def open_judged(evaluation: ConfigDict, split: Split) -> Judged | None:
    """The judgments of ``eval.judgments`` for the images of ``split``, or None.

    Raises:
        UserError: the files are missing or malformed, the split has no images, or none of the
            judged images is in it.
    """
    folder = evaluation.get("judgments", "")  # older runs lack this key
    if not folder:
        return None
    if not {"image", "text"} <= split.sources.keys():
        raise UserError(
            f"eval.judgments needs images and captions, but {split.name} has "
            f"{' and '.join(split.sources)}: leave it empty."
        )
    everything = read_judgments(folder)
    names = {image_name(name) for name in split.ids["image"]}
    sets = {
        name: judgments.pick(np.array([image in names for image in judgments.images]))
        for name, judgments in everything.items()
    }
    for name, judgments in sets.items():
        if not len(judgments):
            raise UserError(
                f"none of the {len(set(everything[name].images)):,} images of {folder} that "
                f"{name} judgments are of is in {split.name} (its first is "
                f"{split.ids['image'][0]}): evaluate a split that holds some, with their names as "
                "ids."
            )
        if len(np.unique(judgments.ratings[~judgments.own])) < 2:
            raise UserError(
                f"{name} judgments of {folder} have no two different ratings of captions of other "
                f"images than those of {split.name}, so they have no order to compare: give more."
            )
    return Judged(split, sets, {name: len(judged) for name, judged in everything.items()})


def describe(counts: Mapping[str, Mapping[str, Any]], split: str) -> list[str]:
    """A line for each kind of judgment, printed with the metrics."""
    return [
        f"{PREFIX}{name}: rank correlation times 100 of scores and judgments; {WHO[name]}; "
        f"{n['with_image'] - n['own']:,} of {n['judged']:,} judged pairs: {n['with_image']:,} have "
        f"their image in {split}, of which {n['own']:,} with a caption of the image itself count "
        "in with_own alone"
        for name, n in counts.items()
    ]
