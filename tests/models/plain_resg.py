"""ReSG as it is written down: one item and one pair after the other, cut to their true nodes."""

import jax
import jax.numpy as jnp

from hmgr_jax.layers.words import WordEncoder


def linear(own, x):
    y = x @ own["kernel"]
    return y + own["bias"] if "bias" in own else y


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def geometry(boxes):
    """Spec 5.2, edge by edge."""
    rows = []
    for a in boxes:
        row = []
        for b in boxes:
            (aw, ah), (bw, bh) = a[2:] - a[:2], b[2:] - b[:2]
            offset = (b[:2] + b[2:] - a[:2] - a[2:]) / 2
            far = jnp.sqrt(jnp.sum(offset**2) + 1e-12)
            shared = jnp.prod(jnp.maximum(jnp.minimum(a[2:], b[2:]) - jnp.maximum(a[:2], b[:2]), 0))
            ratio = [jnp.clip(jnp.log(r), -4, 4) for r in (bw / aw, bh / ah)]
            iou = shared / (aw * ah + bw * bh - shared)
            row.append(jnp.stack([far / 2**0.5, *(offset / far), *ratio, iou]))
        rows.append(jnp.stack(row))
    return jnp.stack(rows)


def layer(own, x, allowed, described, relation_edges, neighbours):
    """One graph layer over the nodes [N, D] of one item."""
    count, size = len(x), own["query"]["kernel"].shape[1]
    source, target = (
        (linear(own["source"], x), linear(own["target"], x)) if relation_edges else (None, None)
    )
    new = []
    for i in range(count):
        logit, edges = [], []
        for j in range(count):
            z = linear(own["query"], x[i]) @ linear(own["key"], x[j]) / size**0.5
            if relation_edges:
                e = jnp.maximum(source[i] + target[j] + described[i, j], 0)
                edges.append(e)
                z = z + (e @ own["weight"])[0]
            logit.append(z if allowed[i][j] else -jnp.inf)
        logit = jnp.stack(logit)
        if 0 < neighbours < count:
            logit = jnp.where(logit >= jnp.sort(logit)[-neighbours], logit, -jnp.inf)
        weight = jax.nn.softmax(logit)
        message = weight @ linear(own["message"], x)
        if relation_edges:
            message = message + linear(own["relation"], weight @ jnp.stack(edges))
        update = linear(own["out"], message)
        centred = update - update.mean()
        norm = centred / jnp.sqrt(jnp.mean(centred**2) + 1e-6)
        new.append(x[i] + norm * own["norm"]["scale"] + own["norm"]["bias"])
    return jnp.stack(new)


def gru(own, x):
    """Last state of a GRU in PyTorch's form."""
    size = x.shape[1]
    h = jnp.zeros(size)
    for one in x:
        gates, hidden = linear(own["inputs"], one), h @ own["hidden_kernel"]
        r, z = (jax.nn.sigmoid(gates[s] + hidden[s]) for s in (slice(size), slice(size, 2 * size)))
        n = jnp.tanh(gates[2 * size :] + r * (hidden[2 * size :] + own["hidden_bias"]))
        h = (1 - z) * n + z * h
    return h


def image(model, params, items, k):
    """Nodes before the norm, and the vector, of picture k."""
    own, count = params["image"], int(items["n_regions"][k])
    x = linear(own["regions"]["linear"], items["regions"][k, :count].astype(jnp.float32))
    for kind in model.classes():
        vectors = own["classes"][kind]["vectors"][items[kind][k, :count].astype(jnp.int32) + 1]
        rows = {"labels": slice(0, model.word_dim)}[kind]
        x = x + vectors @ own["classes"]["out"]["kernel"][rows]
    boxes = items["boxes"][k, :count] if "boxes" in items else None
    for number in range(model.graph_layers if model.visual_graph else 0):
        graph = own[f"graph{number}"]
        described = None
        if model.relation_edges:
            numbers = jnp.zeros((count, count, 6))
            if model.boxes and boxes is not None:
                numbers = geometry(boxes)
            described = linear(graph["geometry"], numbers)
        everything = [[True] * count] * count
        x = layer(graph, x, everything, described, model.relation_edges, model.neighbours)
    order = list(range(count))
    if model.region_order == "left_to_right":
        order.sort(key=lambda i: float(boxes[i, 0] + boxes[i, 2]))
    if model.region_order == "area":
        order.sort(key=lambda i: -float(jnp.prod(boxes[i, 2:] - boxes[i, :2])))
    return x, read_out(model, own, x, x[jnp.array(order)])


def text(model, params, items, k):
    """Nodes before the norm, and the vector, of caption k."""
    own, count = params["text"], int(items["lengths"][k])
    tokens = items["tokens"][k : k + 1, :count]
    words = WordEncoder(model.vocabulary_size, model.word_dim, model.dim)
    x = words.apply({"params": own["words"]}, tokens, jnp.array([count]), None)[0][0]
    heads = [int(h) for h in items["heads"][k, :count]] if "heads" in items else None

    def allowed(i, j):
        if model.text_support == "window":
            return abs(i - j) <= model.text_window
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
        graph, described = own[f"graph{number}"], None
        if model.relation_edges:
            rows = jnp.array([[kind(i, j) for j in range(count)] for i in range(count)])
            described = graph["kinds"][rows] + graph["bias"]
        edges = [[allowed(i, j) for j in range(count)] for i in range(count)]
        x = layer(graph, x, edges, described, model.relation_edges, 0)
    return x, read_out(model, own, x, x)


def read_out(model, own, x, ordered):
    if model.readout == "none":
        return None
    pool = own["readout"]
    if model.readout == "gru":
        return unit(gru(pool["gru"], ordered))
    guide = jnp.tanh(linear(pool["guide"], x.mean(axis=0)))
    logits = linear(pool["weight"], jnp.tanh(linear(pool["local"], x)) * guide)[:, 0]
    return unit(jax.nn.softmax(logits) @ x)


def worth(model, heads, x, y):
    """Mean over the queries x [q, D] of what they are worth with the context y [c, D]."""
    z = y @ x.T
    z = jax.nn.leaky_relu(z, model.slope)
    z = z / (jnp.sqrt(jnp.sum(z * z, axis=1, keepdims=True) + 1e-16) + 1e-8)
    c = jax.nn.softmax(model.sharpness * z, axis=0).T @ y
    if model.match == "cosine":
        return jnp.mean(jnp.sum(x * unit(c), axis=1))
    x, c = (v.reshape(len(v), model.groups, -1) for v in (x, c))
    cosines = jnp.sum(unit(x) * unit(c), axis=2)
    return jnp.mean(linear(heads["out"], jnp.tanh(linear(heads["hidden"], cosines))))


def scores(model, params, items):
    """[I, C]."""
    images = [image(model, params, items["image"], k) for k in range(len(items["image"]["boxes"]))]
    texts = [text(model, params, items["text"], k) for k in range(len(items["text"]["lengths"]))]
    heads = params.get("heads", {"t2i": None, "i2t": None})

    def pair(a, b):
        v, t = unit(a[0]), unit(b[0])
        found = worth(model, heads["t2i"], t, v) + worth(model, heads["i2t"], v, t)
        return found if a[1] is None else found + model.global_weight * a[1] @ b[1]

    return jnp.stack([jnp.stack([pair(a, b) for b in texts]) for a in images])
