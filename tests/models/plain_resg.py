"""ReSG as its equations say: one item and one pair at a time, cut to their true nodes.

Computes with NumPy on NumPy arrays, and with JAX on JAX arrays, for gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.layers.words import WordEncoder
from hmgr_jax.models.resg import WINDOW


def of(x):
    return jnp if isinstance(x, jax.Array) else np


def linear(own, x):
    y = x @ own["kernel"]
    return y + own["bias"] if "bias" in own else y


def unit(x):
    return x / of(x).sqrt((x * x).sum(axis=-1, keepdims=True))


def softmax(x, axis=-1):
    powers = of(x).exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + of(x).exp(-x))


def geometry(boxes):
    """Relative place and size of boxes, edge by edge."""
    rows = []
    for a in np.asarray(boxes):
        row = []
        for b in np.asarray(boxes):
            (aw, ah), (bw, bh) = a[2:] - a[:2], b[2:] - b[:2]
            offset = (b[:2] + b[2:] - a[:2] - a[2:]) / 2
            far = np.sqrt(np.sum(offset**2) + 1e-12)
            shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
            ratio = [np.clip(np.log(r), -4, 4) for r in (bw / aw, bh / ah)]
            iou = shared / (aw * ah + bw * bh - shared)
            row.append([far / 2**0.5, *(offset / far), *ratio, iou])
        rows.append(row)
    return np.array(rows)


def layer(own, x, allowed, described, neighbours):
    """One graph layer over the nodes [N, D] of one item."""
    xp, size = of(x), own["query"]["kernel"].shape[1]
    logits = linear(own["query"], x) @ linear(own["key"], x).T / size**0.5
    source, target = linear(own["source"], x), linear(own["target"], x)
    edges = xp.maximum(source[:, None] + target[None, :] + described, 0)
    logits = logits + (edges @ own["weight"])[..., 0]
    logits = xp.where(np.array(allowed), logits, -1e30)
    if 0 < neighbours < len(x):
        least = xp.sort(logits, axis=1)[:, -neighbours][:, None]
        logits = xp.where(logits >= least, logits, -1e30)
    weights = softmax(logits)
    message = weights @ linear(own["message"], x)
    gathered = (weights[:, :, None] * edges).sum(axis=1)
    message = message + linear(own["relation"], gathered)
    update = linear(own["out"], message)
    centred = update - update.mean(axis=1, keepdims=True)
    norm = centred / xp.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return x + norm * own["norm"]["scale"] + own["norm"]["bias"]


def gru(own, x):
    """Last state of a GRU in PyTorch's form."""
    size = x.shape[1]
    h = of(x).zeros(size, x.dtype)
    for one in x:
        gates, hidden = linear(own["inputs"], one), h @ own["hidden_kernel"]
        r, z = (sigmoid(gates[s] + hidden[s]) for s in (slice(size), slice(size, 2 * size)))
        n = of(x).tanh(gates[2 * size :] + r * (hidden[2 * size :] + own["hidden_bias"]))
        h = (1 - z) * n + z * h
    return h


def image(model, params, items, k):
    """Nodes before the norm, and the vector, of picture k."""
    own, count = params["image"], int(items["n_regions"][k])
    x = linear(own["regions"]["linear"], np.asarray(items["regions"][k, :count], np.float64))
    for kind in model.classes():
        vectors = own["classes"][kind]["vectors"][np.asarray(items[kind][k, :count], int) + 1]
        x = x + vectors @ own["classes"]["out"]["kernel"]
    boxes = np.asarray(items["boxes"][k, :count], np.float64)
    for number in range(model.graph_layers if model.visual_graph else 0):
        graph = own[f"graph{number}"]
        numbers = geometry(boxes) if model.boxes else np.zeros((count, count, 6))
        described = linear(graph["geometry"], numbers)
        x = layer(graph, x, np.ones((count, count), bool), described, model.neighbours)
    return x, read_out(model, own, x)


def states(model, params, items):
    """Of all words: the encoder's own, which other tests hold against the length of a bucket."""
    words = WordEncoder(model.vocabulary_size, model.word_dim, model.dim)
    own = {"params": params["text"]["words"]}
    return words.apply(own, items["tokens"], items["lengths"], None)[0]


def text(model, params, items, x, k):
    """Nodes before the norm, and the vector, of caption k with the word states x [L, D]."""
    own, count = params["text"], int(items["lengths"][k])
    x = x[:count]
    heads = [int(h) for h in items["heads"][k, :count]] if "heads" in items else None

    def allowed(i, j):
        if model.text_support == "window":
            return abs(i - j) <= WINDOW
        return model.text_support == "full" or i == j or heads[i] == j or heads[j] == i

    def kind(i, j):
        if model.text_edges == "distance":
            return min(max(j - i, -8), 8) + 8
        if i == j:
            return 0
        if heads[i] == j:
            return 2 + 2 * int(items["relations"][k, i])
        return 3 + 2 * int(items["relations"][k, j]) if heads[j] == i else 1

    for number in range(model.graph_layers if model.text_graph else 0):
        graph = own[f"graph{number}"]
        rows = np.array([[kind(i, j) for j in range(count)] for i in range(count)])
        described = graph["kinds"][rows] + graph["bias"]
        edges = [[allowed(i, j) for j in range(count)] for i in range(count)]
        x = layer(graph, x, edges, described, 0)
    return x, read_out(model, own, x)


def read_out(model, own, x):
    return None if model.readout == "none" else unit(gru(own["readout"]["gru"], x))


def worth(model, heads, x, y):
    """Mean similarity of the queries x [q, D] with their attended contexts in y [c, D]."""
    xp, z = of(x), y @ x.T
    z = xp.where(z > 0, z, 0.1 * z)
    z = z / (xp.sqrt((z * z).sum(axis=1, keepdims=True) + 1e-16) + 1e-8)
    c = softmax(model.sharpness * z, axis=0).T @ y
    if model.match == "cosine":
        return (x * unit(c)).sum(axis=1).mean()
    x, c = (v.reshape(len(v), model.groups, -1) for v in (x, c))
    cosines = (unit(x) * unit(c)).sum(axis=2)
    return linear(heads["out"], xp.tanh(linear(heads["hidden"], cosines))).mean()


def encoded(model, params, items, words):
    """Nodes before the norm and vectors of all pictures, and of all captions.

    ``words`` are the `states` of the captions.
    """
    with jax.numpy_rank_promotion("allow"):
        pictures, captions = items["image"], items["text"]
        images = [image(model, params, pictures, k) for k in range(len(pictures["n_regions"]))]
        return images, [text(model, params, captions, x, k) for k, x in enumerate(words)]


def scores(model, params, items, words):
    """[I, C]."""
    images, texts = encoded(model, params, items, words)
    heads = params.get("heads", {"t2i": None, "i2t": None})

    def pair(a, b):
        v, t = unit(a[0]), unit(b[0])
        found = worth(model, heads["t2i"], t, v) + worth(model, heads["i2t"], v, t)
        return found if a[1] is None else found + model.global_weight * (a[1] @ b[1])

    with jax.numpy_rank_promotion("allow"):
        return of(words).stack([of(words).stack([pair(a, b) for b in texts]) for a in images])
