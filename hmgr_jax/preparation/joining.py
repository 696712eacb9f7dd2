"""Images and features are joined by id, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hmgr_jax.data.text.captioned import Captioned
from hmgr_jax.errors import UserError

KINDS = ("filename", "stem", "cocoid", "padded", "imgid")


def join(
    splits: Mapping[str, Sequence[Captioned]], have: Mapping[str, Any], place: str, kind: str | None
) -> dict[str, list[str]]:
    """{split: the features' id of each image}.

    ``have`` is {id of features: what they are}, so that two ids may be the same features;
    ``place`` is where they are, for people; ``kind`` says which names of an image the ids are,
    None that the one kind is taken which fits all images.

    Raises:
        UserError: the first image that has no features, or several kinds fit differently.
    """
    images = [image for found in splits.values() for image in found]
    kinds = _kinds(images, kind)
    missing = {k: next((i for i in images if i.names[k] not in have), None) for k in kinds}
    fitting = [k for k in kinds if missing[k] is None]
    if not fitting:
        closest = max(kinds, key=lambda k: sum(i.names[k] in have for i in images))
        first = missing[closest]
        assert first is not None
        raise UserError(
            f"{place} has no features of {first.names[closest]!r} ({first.where}), looked for by "
            f"{closest}: extract them, take its captions out, or say with --key what the ids of "
            "the features are."
        )
    chosen = fitting[0]
    for other in fitting[1:]:
        apart = next((i for i in images if have[i.names[other]] != have[i.names[chosen]]), None)
        if apart is not None:
            raise UserError(
                f"{place} has features of {apart.names[chosen]!r} and of {apart.names[other]!r}, "
                f"which are {chosen} and {other} of {apart.id}: say with --key which is meant."
            )
    _demand_once(images, chosen, have)
    return {name: [image.names[chosen] for image in found] for name, found in splits.items()}


def _kinds(images: Sequence[Captioned], kind: str | None) -> list[str]:
    """The kinds of ids that every image has, or the one that was asked for."""
    kinds = [k for k in KINDS if all(k in image.names for image in images)]
    if kind is None:
        return kinds
    if kind not in kinds:
        raise UserError(f"--key is {kind!r} where the images have {', '.join(kinds)}: choose one.")
    return [kind]


def _demand_once(images: Sequence[Captioned], kind: str, have: Mapping[str, Any]) -> None:
    """Two images must not share their features."""
    seen: dict[Any, Captioned] = {}
    for image in images:
        former = seen.setdefault(have[image.names[kind]], image)
        if former is not image:
            raise UserError(
                f"{image.where} and {former.where} are both {image.names[kind]!r} by {kind}: name "
                "one of them otherwise."
            )
