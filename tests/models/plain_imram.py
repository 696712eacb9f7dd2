"""IMRAM as its equations say: one caption at a time, nothing split or shared."""

import jax
import jax.numpy as jnp

NORMS = {
    # The 1e-16 only keeps the gradient of a row of zeros finite.
    "l2norm": lambda z: z / (jnp.sqrt(jnp.sum(z * z, axis=1, keepdims=True) + 1e-16) + 1e-8),
    "l1norm": lambda z: z / (jnp.sum(jnp.abs(z), axis=1, keepdims=True) + 1e-8),
    "softmax": lambda z: jax.nn.softmax(z, axis=1),
    "no_norm": lambda z: z,
}


def attend(model, x, y):
    """The attended context of every query [q, d] in a context [c, d]."""
    z = y @ x.T  # [c, q]
    name = model.raw_norm
    if name.startswith("clipped"):
        z = jax.nn.leaky_relu(z, model.slope)
        name = name.removeprefix("clipped_") if name != "clipped" else "no_norm"
    weight = jax.nn.softmax(model.sharpness * NORMS[name](z), axis=0)
    return weight.T @ y


def linear(own, u):
    return u @ own["kernel"] + own["bias"][None, :]


def refine(model, own, x, c):
    u = jnp.concatenate([x, c], axis=1)
    if model.unit == "gate_full":
        gate = jax.nn.sigmoid(linear(own["gate"], u))
        x = gate * x + (1 - gate) * jnp.tanh(linear(own["out"], u))
    elif model.unit == "add":
        x = x + c
    elif model.unit == "mlp":
        x = jnp.tanh(linear(own["out"], u))
    elif model.unit == "gate":
        gate = jax.nn.sigmoid(linear(own["gate"], u))
        x = gate * x + (1 - gate) * c
    else:
        w = own["weight"]["kernel"]
        share = jax.nn.softmax(jnp.concatenate([x @ w, c @ w], axis=1), axis=1)
        x = share[:, :1] * x + share[:, 1:] * c
    return x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-8) if model.memory_norm else x


def pair(model, units, x, y, direction):
    """Scores [K] of one pair in one direction: x attends to y."""
    first, scores = x, []
    for step in range(model.steps):
        c = attend(model, x, y)
        cosine = jnp.sum(first * c, axis=1) / (
            jnp.linalg.norm(first, axis=1) * jnp.linalg.norm(c, axis=1)
        )
        scores.append(jnp.mean(cosine))
        if step + 1 < model.steps:
            x = refine(model, units.get(direction), x, c)
    return jnp.stack(scores)


def step_scores(model, units, images, texts, lengths):
    """[K, I, C] from unit fragments [I, R, d] and [C, L, d]; every caption is cut to its words."""
    columns = []
    for text, words in zip(texts, lengths, strict=True):
        t = text[: int(words)]
        found = []
        if model.variant in ("full", "text"):
            found.append(jax.vmap(lambda v, t=t: pair(model, units, t, v, "t2i"))(images))
        if model.variant in ("full", "image"):
            found.append(jax.vmap(lambda v, t=t: pair(model, units, v, t, "i2t"))(images))
        columns.append(sum(found).T)
    return jnp.stack(columns, axis=2)
