"""Text-IMRAM as PyTorch would compute it: by official names and layouts, one pair after another."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from imram_cases import IN, WORD, D, V, official

from hmgr_jax.interop.known_answers import weights

LENGTHS = (4, 3, 2)
REGIONS, STEPS, SHARPNESS, MARGIN = 3, 2, 9.0, 0.2


def write(path, weight_norm=False):
    """A case with the answers of this file, in the format of the known answers."""
    params = [[name, x.shape] for name, x in official(weight_norm=weight_norm).items()]
    meta = {
        **{"model": "imram", "mode": "text_IMRAM", "steps": STEPS, "seed": 5, "params": params},
        **{"embed_dim": D, "word_dim": WORD, "vocab": V, "grad_names": [n for n, _ in params]},
        **{"lambda_softmax": SHARPNESS, "raw_feature_norm": "clipped_l2norm"},
        **{"memory_norm": False, "encoder": "weight_norm" if weight_norm else "basic"},
    }
    arrays = _inputs()
    np.savez(path, meta=json.dumps(meta), **arrays, **answers(weights(params, 5), arrays))


def _inputs():
    rng = np.random.default_rng(6)
    captions = np.zeros((len(LENGTHS), max(LENGTHS)), np.int64)
    for row, length in zip(captions, LENGTHS, strict=True):
        row[:length] = rng.integers(1, V, length)
    images = np.float32(rng.standard_normal((len(LENGTHS), REGIONS, IN)))
    return {"images": images, "captions": captions, "lengths": np.array(LENGTHS)}


def answers(state, arrays):
    """All outputs of the weights ``state`` for inputs ``arrays``."""
    found = {name: np.asarray(x) for name, x in _forward(state, arrays).items()}
    for kind in ("hard", "sum"):
        value, gradients = jax.value_and_grad(_loss)(state, arrays, kind)
        norms = [np.linalg.norm(gradients[name]) for name in state]
        found |= {f"loss_{kind}": np.asarray(value), f"gradnorm_{kind}": np.asarray(norms)}
    return found


def _forward(state, arrays):
    text, units = ({n: x for n, x in state.items() if k in n} for k in ("txt_enc", "t2i"))
    images = [_unit(_linear(state, "img_enc.fc_local", x)) for x in arrays["images"]]
    texts = [
        _words(text, tokens[:length])
        for tokens, length in zip(arrays["captions"], LENGTHS, strict=True)
    ]
    scores = [[_score(units, words, image) for words, _ in texts] for image in images]
    padded = [jnp.pad(words, ((0, max(LENGTHS) - len(words)), (0, 0))) for words, _ in texts]
    return {
        "image_emb": jnp.stack(images),
        "caption_emb": jnp.stack(padded),
        "caption_vec": jnp.stack([sentence for _, sentence in texts]),
        "scores": jnp.stack([jnp.stack(row) for row in scores]),
    }


def _loss(state, arrays, kind):
    scores = _forward(state, arrays)["scores"]
    own, others = jnp.diagonal(scores), ~np.eye(len(LENGTHS), dtype=bool)
    reduce = jnp.max if kind == "hard" else jnp.sum
    rows = jnp.where(others, jax.nn.relu(MARGIN + scores - own[:, None]), 0.0)
    columns = jnp.where(others, jax.nn.relu(MARGIN + scores - own[None, :]), 0.0)
    return jnp.sum(reduce(rows, axis=1)) + jnp.sum(reduce(columns, axis=0))


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _linear(state, name, x):
    if f"{name}.weight" in state:
        weight = state[f"{name}.weight"]
    else:
        direction = state[f"{name}.weight_v"]
        weight = state[f"{name}.weight_g"] * direction / jnp.sqrt(jnp.sum(direction**2))
    return x @ weight.T + state[f"{name}.bias"][None, :]


@jax.jit
def _words(state, tokens):
    x = state["txt_enc.embed.weight"][tokens]
    forward, backward = _gru(state, x, ""), _gru(state, x[::-1], "_reverse")[::-1]
    return _unit((forward + backward) / 2), _unit((forward[-1] + backward[0]) / 2)


def _gru(state, x, suffix):
    w_i, w_h, b_i, b_h = (
        state[f"txt_enc.rnn.{kind}_l0{suffix}"]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, states = jnp.zeros(D), []
    for row in x:
        inputs, hidden = jnp.split(w_i @ row + b_i, 3), jnp.split(w_h @ h + b_h, 3)
        reset, update = (jax.nn.sigmoid(inputs[k] + hidden[k]) for k in (0, 1))
        h = (1 - update) * jnp.tanh(inputs[2] + reset * hidden[2]) + update * h
        states.append(h)
    return jnp.stack(states)


@jax.jit
def _score(state, words, regions):
    query, score = words, 0.0
    for _ in range(STEPS):
        z = jax.nn.leaky_relu(regions @ query.T, 0.1)
        z = z / (jnp.linalg.norm(z, axis=1, keepdims=True) + 1e-8)
        context = jax.nn.softmax(SHARPNESS * z, axis=0).T @ regions
        score += jnp.mean(jnp.sum(words * _unit(context), axis=1))
        both = jnp.concatenate([query, context], axis=1)
        gate = jax.nn.sigmoid(_linear(state, "gate_t2i", both))
        query = gate * query + (1 - gate) * jnp.tanh(_linear(state, "linear_t2i", both))
    return score
