"""Where the words of a sentence look in a picture, as data for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hmgr_jax.data.pictures.decode import load_picture
from hmgr_jax.data.split import Items
from hmgr_jax.errors import UserError
from hmgr_jax.reports.explanation import explain_pair, explains, plain, strongest_edges
from hmgr_jax.search.gallery import ALL, ROLES
from hmgr_jax.search.index import Item
from hmgr_jax.serve.encoding import QueryEncoder
from hmgr_jax.serve.snapshot import Snapshot


def explain(encoder: QueryEncoder, snapshot: Snapshot, item: Item, sentence: str) -> dict[str, Any]:
    """Words, boxes, and weights of every word on every region.

    Systems that attend have one map per matching step. Those of pooled vectors weigh words and
    regions apart; their map is the score of each word alone with each region alone.

    Raises:
        UserError: the system explains nothing, or the regions of the item are unknown.
    """
    retriever = encoder.retriever
    if not explains(retriever.model) or snapshot.searcher.modality != "image":
        raise UserError(f"{retriever.config.model.name} does not explain its results.")
    image = _image_items(encoder, snapshot, item)
    if "boxes" not in image:
        raise UserError(f"The places of the regions of {item.id} are unknown.")
    if retriever.model.explainable():
        found = explain_pair(retriever, image, sentence)
        attention = found.attention.get("t2i")
        weights = () if attention is None else tuple(attention.weights)
        return {
            "words": [{"word": word, "weight": None} for word in found.words],
            "unknown": list(found.unknown),
            "boxes": plain(found.boxes),
            "score": found.score,
            "maps": [
                {"name": f"step {n + 1}", "words": plain(step)} for n, step in enumerate(weights)
            ],
        }
    return _of_vectors(encoder, image, sentence)


def _of_vectors(encoder: QueryEncoder, image: Items, sentence: str) -> dict[str, Any]:
    retriever = encoder.retriever
    known = retriever.vocabulary
    tokens = known.tokenize(sentence)[: retriever.max_words]
    words = [*known.ends[0], *tokens, *known.ends[1]]
    regions = int(image["n_regions"][0])
    text = retriever.read([sentence])
    of_words = retriever.pool_weights("text", text)
    of_regions = retriever.pool_weights("image", image)
    edges = retriever.relations("image", image)
    vectors, _ = encoder.sentences([sentence, *words], "image")
    whole = _vectors(encoder, image)
    alone = _vectors(encoder, _each_alone(image, regions))
    found: dict[str, Any] = {
        "words": [
            {"word": word, "weight": None if of_words is None else plain(of_words[0, place])}
            for place, word in enumerate(words)
        ],
        "unknown": [word for word in dict.fromkeys(tokens) if word not in known],
        "boxes": plain(image["boxes"][0, :regions]),
        "score": plain((whole @ vectors[0])[0]),
        "maps": [{"name": "each word with each region", "words": plain((alone @ vectors[1:].T).T)}],
    }
    if of_regions is not None:
        found["regions"] = plain(of_regions[0, :regions])
    if edges is not None:
        layer = edges[0, -1, :regions, :regions]
        found["edges"] = [edge._asdict() for edge in strongest_edges(layer)]
    return found


def _vectors(encoder: QueryEncoder, image: Items) -> np.ndarray:
    retriever = encoder.retriever
    wanted = {name: image[name] for name in retriever.model.inputs()["image"] if name in image}
    codes = retriever.encode("image", wanted)
    return retriever.evaluator.vectors(retriever.variables, "image", codes, against="text")


def _each_alone(image: Items, regions: int) -> Items:
    """Items of one region each, which stands first."""
    found = {"n_regions": np.ones(regions, np.int32)}
    for name in ("regions", "boxes"):
        whole = image[name][0]
        found[name] = np.zeros((regions, *whole.shape), whole.dtype)
        found[name][:, 0] = whole[:regions]
    return found


def _image_items(encoder: QueryEncoder, snapshot: Snapshot, item: Item) -> Items:
    """The picture of an item as the system reads it, by its file or from its split."""
    if item.picture and encoder.reads_pictures():
        return encoder.picture_items(load_picture(Path(item.picture)))
    role = snapshot.searcher.index.about["split"]
    for name in ROLES if role == ALL else filter(None, [role]):
        split = encoder.retriever.open((name,)).splits[name]
        ids = list(split.ids["image"])
        if item.id in ids:
            return split.sources["image"].gather(np.array([ids.index(item.id)]))
    raise UserError(f"The regions of {item.id} are unknown: the index has no file of it.")
