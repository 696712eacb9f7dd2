"""The sizes that a model is shown with while its data is not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ml_collections import ConfigDict

from hmgr_jax.models.base import Plan

REGIONS, WORDS, LENGTH, CLASSES = (36, 2048), 10_000, 16, 40
VECTORS = {"image": 4096, "text": 300}
SAID = {
    "regions": "{} regions of {:,} numbers",
    "frames": "{} frames of {:,} numbers",
    "pixels": "pictures of {} x {} pixels",
    "views": "{} views of {} x {} pixels",
    "points": "{:,} points",
    "faces": "{:,} faces",
    "features": "{of} vectors of {:,} numbers",
}
"""{feature: its shape, in a message}."""


def assumed_plan(config: ConfigDict) -> Plan:
    """A plan for the model of ``config`` without its data; an epoch is all steps."""
    data, side = config.data, config.data.pixels.size
    regions = {"regions": REGIONS, "n_regions": (), "boxes": (REGIONS[0], 4)}
    text: dict[str, tuple[int, ...]] = {"tokens": (LENGTH,), "lengths": ()}
    views = (data.objects.views, data.image_size, data.image_size, 3)
    features: dict[str, dict[str, tuple[int, ...]]] = {"image": dict(regions), "text": text}
    if data.get("visual", "image") == "video":
        features = {"video": {"frames": REGIONS, "n_frames": ()}, "text": text}
    if data.source in ("pictures", "cub"):
        features["image"] = {"pixels": (side, side, 3)}
    elif data.source == "features":
        features = {m: {"features": (size,)} for m, size in VECTORS.items()}
    elif data.source == "modelnet":
        features = {
            "image": {"views": views},
            "point": {"points": (data.points, 3)},
            "mesh": {"faces": (data.faces, 15), "neighbours": (data.faces, 3)},
        }
    elif data.source == "vqa":
        features = {"question": {**regions, **text, "picture": ()}, "answer": {"number": ()}}
    classes = data.vqa.answers if data.source == "vqa" else CLASSES
    return Plan(config.train.steps, config.train.steps, WORDS, features, classes)


def describe(plan: Plan, inputs: Mapping[str, Collection[str]]) -> str:
    """The sizes in ``plan`` on which a model of these ``inputs`` depends, for messages."""
    found = [
        SAID[name].format(*shape, of=modality)
        for modality, names in inputs.items()
        for name, shape in plan.features[modality].items()
        if name in names and name in SAID
    ]
    if any("tokens" in names for names in inputs.values()):
        return ", ".join([*found, f"a vocabulary of {plan.vocabulary_size:,} words"])
    return ", ".join([*found, f"{plan.classes} classes"])  # without captions, labels are learned
