"""The workload of a training benchmark: a registered system of some size on random items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.models import defaults, get_model, unknown_name
from hmgr_jax.models.base import Feature, Model, Plan

F8K_LENGTHS = (8, 9, 10, 11, 11, 12, 12, 13, 14, 14, 15, 16, 16, 17, 19, 22)
"""Equally likely lengths of Flickr8k's captions, with <start> and <end>."""
PLAN_STEPS, PLAN_EPOCH = 1000, 100
VIEWS, SIDE, POINTS, FACES, CLASSES = 2, 112, 1024, 1024, 40
"""Sizes of ModelNet40's objects in training (Jing et al., CVPR 2021)."""


@dataclass(frozen=True)
class Workload:
    """A system and the sizes of its batches; raises UserError for invalid sizes.

    Captions are padded to ``words`` words. With ``lengths="full"`` all words are used; with
    ``"f8k"`` the lengths are those of Flickr8k (mean 14). ``options`` sets further
    hyper-parameters: ``variant=text,steps=3``.
    """

    model: str = "hmgr"
    batch: int = 128
    dim: int = 1024
    dtype: str = "float32"
    regions: int = 36
    region_dim: int = 2048
    words: int = 24
    lengths: str = "full"
    vocabulary: int = 10000
    options: str = ""

    def __post_init__(self) -> None:
        sizes = (self.batch, self.dim, self.regions, self.region_dim, self.words)
        if min(sizes) < 1 or self.vocabulary < 4:
            raise UserError(
                "Every size must be at least 1, and the vocabulary 4: raise the one that is not."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"--dtype must be float32 or bfloat16, got {self.dtype!r}.")
        if self.lengths not in ("full", "f8k"):
            raise UserError(f"--lengths must be full or f8k, got {self.lengths!r}.")

    def plan(self) -> Plan:
        """The schedule and data sizes of this workload."""
        features: dict[str, dict[str, tuple[int, ...]]] = {
            "image": {"regions": (self.regions, self.region_dim), "n_regions": ()},
            "text": {"tokens": (), "lengths": ()},
        }
        features["image"]["boxes"] = (self.regions, 4)
        features["video"] = {"frames": (self.regions, self.region_dim), "n_frames": ()}
        features["image"]["views"] = (VIEWS, SIDE, SIDE, 3)
        features["point"] = {"points": (POINTS, 3)}
        features["mesh"] = {"faces": (FACES, 15), "neighbours": (FACES, 3)}
        return Plan(PLAN_STEPS, PLAN_EPOCH, self.vocabulary, features, CLASSES)

    def system(self) -> Model:
        """The system with its hyper-parameters.

        Raises:
            UserError: an unknown system or hyper-parameter.
        """
        options = parse_options(self.model, self.options)
        return get_model(self.model, dim=self.dim, dtype=self.dtype, **options).fit_to(self.plan())

    def items(self, system: Model, batch: int = 0) -> dict[str, dict[str, np.ndarray]]:
        """A batch of random items, of ``batch`` items if given."""
        sizes = (batch or self.batch, self.words, self.regions, self.vocabulary)
        return random_batch(system, *sizes, self.lengths)


def random_batch(
    model: Model, batch: int, words: int, regions: int, vocabulary: int, lengths: str = "full"
) -> dict[str, dict[str, np.ndarray]]:
    """Random items of every modality of ``model``, with all regions or frames used."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(F8K_LENGTHS, batch) if lengths == "f8k" else np.full(batch, words)
    counts = {"lengths": np.minimum(drawn, words), "n_regions": np.full(batch, regions)}
    counts["n_frames"] = counts["n_regions"]

    def draw(name: str, feature: Feature) -> np.ndarray:
        free = VIEWS if name == "views" else words
        shape = (batch, *(free if extent is None else extent for extent in feature.shape))
        if feature.dtype.startswith("float"):
            return rng.random(shape, np.float32).astype(feature.dtype)
        if name in counts:
            return counts[name].astype(feature.dtype)
        return rng.integers(0, feature.num_classes or vocabulary, shape).astype(feature.dtype)

    found = {
        modality: {name: draw(name, feature) for name, feature in features.items()}
        for modality, features in model.inputs().items()
    }
    number = np.arange(batch, dtype=np.int32)
    row = {"index": number, "valid": np.ones(batch, bool), "group": number, "item": number}
    if model.needs_labels:
        row["labels"] = np.eye(CLASSES, dtype=np.uint8)[number % CLASSES]
    return {**found, "row": row}


def parse_options(model: str, options: str) -> dict[str, Any]:
    """Parse ``"variant=text,steps=3"`` to hyper-parameters with the types of the model's fields."""
    known, found = defaults(model), {}
    for option in filter(None, options.split(",")):
        name, _, text = option.partition("=")
        if name not in known:
            raise UserError(unknown_name(f"hyper-parameter of {model}", name, list(known)))
        kind = type(known[name])
        try:
            found[name] = text == "True" if kind is bool else kind(text)
        except ValueError:
            raise UserError(f"--options {name} must be {kind.__name__}, got {text!r}.") from None
    return found
