"""RACG as its equations say: one pair at a time, with one graph of all its nodes."""

import jax
import jax.numpy as jnp


def linear(own, x):
    return x @ own["kernel"] + (own["bias"][None, :] if "bias" in own else 0.0)


def concepts(model, cross, regions, words):
    """C [N, d] of a pair: (A Z W + Z) F + b, with or without the blocks of A between the items."""
    z = jnp.concatenate([regions, words])
    a = linear(cross["query"], z) @ linear(cross["key"], z).T / len(z)
    side = jnp.arange(len(z)) >= len(regions)
    same = side[:, None] == side[None, :]
    on = jnp.where(same, 1.0, float(model.inter_blocks))
    return linear(cross["concept"], a * on @ linear(cross["value"], z) + z)


def attended(x, y):
    """The attended context in y of every node of x (SCAN)."""
    raw = jax.nn.leaky_relu(x @ y.T, 0.1)
    raw = raw / (jnp.sqrt(jnp.sum(raw**2, axis=0, keepdims=True) + 1e-16) + 1e-8)
    return jax.nn.softmax(9.0 * raw, axis=1) @ y


def rebuilt(model, x, c):
    logits = x @ c.T
    if model.recon_logit == "cos":
        logits = logits / jnp.linalg.norm(c, axis=1)[None, :]
    return jax.nn.softmax(model.sharpness * logits, axis=1) @ c


def both_rebuilt(model, params, regions, words):
    if not model.reconstruction:
        return attended(regions, words), attended(words, regions)
    c = concepts(model, params["cross"], regions, words)
    of_regions, of_words = c[: len(regions)], c[len(regions) :]
    if model.recon_source == "all":
        return rebuilt(model, regions, c), rebuilt(model, words, c)
    return rebuilt(model, regions, of_words), rebuilt(model, words, of_regions)


def similarity(model, head, x, r):
    x, r = (v.reshape(len(v), model.heads, -1) for v in (x, r))
    size = jnp.linalg.norm(x, axis=2) * jnp.linalg.norm(r, axis=2)
    cosines = jnp.sum(x * r, axis=2) / size
    return jnp.mean(linear(head["out"], jnp.tanh(linear(head["hidden"], cosines))))


def pair(model, params, regions, words):
    heads = params["heads"]
    of_regions, of_words = both_rebuilt(model, params, regions, words)
    score = similarity(model, heads["image"], regions, of_regions)
    return score + similarity(model, heads["text"], words, of_words)


def scores(model, params, images, texts, counts, lengths):
    """[I, C] from nodes [I, R, d] and [C, L, d], cut to those that are there."""
    rows = []
    for v, n in zip(images, counts, strict=True):
        cut = [t[: int(m)] for t, m in zip(texts, lengths, strict=True)]
        rows.append(jnp.stack([pair(model, params, v[: int(n)], t) for t in cut]))
    return jnp.stack(rows)


def distance(model, params, regions, words):
    """λ_rec's term of a pair."""
    found = []
    for x, r in zip((regions, words), both_rebuilt(model, params, regions, words), strict=True):
        cosine = jnp.sum(x * r, axis=1) / (jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(r, axis=1))
        found.append(jnp.mean(1 - cosine))
    return (found[0] + found[1]) / 2
