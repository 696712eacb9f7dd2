"""Every option of HMGR's ablation has the documented effect.

The options of the memory are compared with the equations of docs/models/hmgr.md in plain numpy, one
instance at a time. For every option the outputs that it changes are listed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import AFTER, ITEMS, B, D, codes, hmgr, row, variables_of
from layer_cases import as64, linear, softmax, unit

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import LocalAxis

MODALITIES = ("image", "text")
KEYS = Keys.at(jnp.int32(0), jnp.int32(AFTER), jnp.arange(B))


@functools.cache
def base():
    return variables_of(hmgr())


def starting(model):
    """Variables with the parameters and slots of the default model, where shapes agree."""
    variables = variables_of(model, base=base())
    start = base().memory.slots[:, : model.slots]
    if model.memory == "learned":
        variables.params["slots"] = start
    elif model.memory != "none" and start.shape[1] == model.slots:
        slots = jnp.broadcast_to(start, (len(variables.memory.slots), *start.shape[1:]))
        variables = variables.replace(memory=variables.memory.replace(slots=slots))
    return variables


# --- the memory in numpy -----------------------------------------------------------


def hop(p, modality, slots, h, gain):
    """(h after one more hop, the content that was read, its address)."""
    q, k = linear(p[f"query_{modality}"], gain * h), linear(p["key"], gain * slots)
    address = softmax(q @ k.T / np.sqrt(k.shape[1]))
    read = address @ slots
    both = np.concatenate([h, read], axis=1)
    g = 1 / (1 + np.exp(-linear(p[f"hop_gate_{modality}"], both)))
    return g * h + (1 - g) * np.tanh(linear(p[f"hop_content_{modality}"], both)), read, address


def memory_in_numpy(
    variables,
    *,
    memories=1,
    groups=8,
    hops=2,
    rate=0.1,
    rule="slotwise",
    address="learned",
    gain=1.0,
    writers=MODALITIES,
):
    """(vectors after the memory, slots [memories, S, D]) of one batch."""
    p, x = as64(variables.params["memory"]), as64(codes())
    start = variables.params["slots"] if variables.memory.slots is None else variables.memory.slots
    slots = [np.array(m, np.float64) for m in start]
    hats = {m: np.zeros((B, D)) for m in MODALITIES}
    for group in range(groups):
        rows = np.arange(group, B, groups)
        read, written, place = {}, {}, {}
        for number, m in enumerate(MODALITIES):
            h = x[m][rows]
            for _ in range(hops):
                h, read[m], place[m] = hop(p, m, slots[number % memories], h, gain)
            hats[m][rows] = unit(h)
            both = np.concatenate([x[m][rows], read[m]], axis=1)
            written[m] = np.tanh(linear(p[f"write_content_{m}"], both))
            if address == "learned":
                place[m] = softmax(linear(p[f"write_place_{m}"], gain * both))
        mean = (read["image"] + read["text"]) / 2
        gate = softmax(
            linear(p["write_gate"], np.concatenate([*(x[m][rows] for m in MODALITIES), mean], 1))
        )
        for i in range(len(rows)):
            for number in range(memories):
                write = np.zeros((slots[number].shape[0], D))
                erased = np.zeros(slots[number].shape[0])
                for share, m in enumerate(MODALITIES, start=1):
                    if m not in writers or (memories > 1 and number != share - 1):
                        continue
                    w = (rate if rule == "slotwise" else 1.0) * gate[i, share] * place[m][i]
                    write, erased = write + np.outer(w, written[m][i]), erased + w
                keep = 1 - erased if rule == "slotwise" else gate[i, 0]
                slots[number] = np.reshape(keep, (-1, 1)) * slots[number] + write
    return hats, np.stack(slots)


SPECIFIED = {
    "default": ({}, {}),
    "separate": ({"memory": "separate"}, {"memories": 2}),
    "visual-only": ({"memory": "visual_only_write"}, {"writers": ("image",)}),
    "text-only": ({"memory": "text_only_write"}, {"writers": ("text",)}),
    "learned": ({"memory": "learned"}, {"writers": ()}),
    "slots": ({"slots": 5}, {}),
    "hops-1": ({"hops": 1}, {"hops": 1}),
    "hops-3": ({"hops": 3}, {"hops": 3}),
    "hme": ({"write_rule": "hme"}, {"rule": "hme"}),
    "rate": ({"write_rate": 0.5}, {"rate": 0.5}),
    "content": ({"write_address": "content"}, {"address": "content"}),
    "gain": ({"address_gain": 4.0}, {"gain": 4.0}),
    "groups-2": ({"memory_groups": 2}, {"groups": 2}),
    "groups-1": ({"memory_groups": 1}, {"groups": 1}),
}


@functools.cache
def step_of(name):
    """(variables, terms, next memory) of a step from given codes."""
    model = hmgr(**SPECIFIED[name][0])
    variables = starting(model)

    @jax.jit
    def run(variables):
        keys, axis = KEYS, LocalAxis()
        return model.loss(variables, codes(), row(), step=jnp.int32(AFTER), keys=keys, axis=axis)

    _, terms, _, memory = run(variables)
    return variables, terms, memory


@pytest.mark.parametrize("name", SPECIFIED)
def test_a_memory_equals_its_equations(name):
    variables, terms, memory = step_of(name)
    hats, slots = memory_in_numpy(variables, **SPECIFIED[name][1])
    scores = jnp.asarray(hats["image"] @ hats["text"].T, jnp.float32)
    expected = float(triplet(scores, negatives(jnp.ones(B, bool))))
    np.testing.assert_allclose(terms["triplet"], expected, rtol=1e-4)
    if name == "learned":
        np.testing.assert_array_equal(slots, variables.params["slots"])
    else:
        np.testing.assert_allclose(memory.slots, slots, rtol=0, atol=1e-5)
    if name != "default":
        assert abs(float(terms["triplet"] - step_of("default")[1]["triplet"])) > 1e-3


# --- outputs that an option changes ------------------------------------------------------

EVERYTHING = ("image", "text", "before", "after", "total", "slots", "score")
VISUAL = tuple(name for name in EVERYTHING if name != "text")
TEXTUAL = tuple(name for name in EVERYTHING if name != "image")
MEMORY = ("after", "total", "slots", "score")

CHANGES = [
    ({"visual_graph": False}, VISUAL),
    ({"text_graph": False}, TEXTUAL),
    ({"graph_layers": 2}, EVERYTHING),
    ({"pool": "mean"}, EVERYTHING),  # the others in test_hmgr.py
    ({"memory": "none"}, ("after", "total", "slots", "score")),
    ({"memory": "separate"}, MEMORY),
    ({"memory": "visual_only_write"}, MEMORY),
    ({"memory": "text_only_write"}, MEMORY),
    ({"memory": "learned"}, MEMORY),
    ({"memory": "episodic"}, ("slots", "score")),
    ({"slots": 5}, MEMORY),
    ({"hops": 1}, MEMORY),
    ({"hops": 3}, MEMORY),
    ({"write_rule": "hme"}, MEMORY),
    ({"write_rate": 0.5}, MEMORY),
    ({"write_address": "content"}, MEMORY),
    ({"address_gain": 4.0}, MEMORY),
    ({"memory_groups": 2}, MEMORY),
    ({"pre_memory_loss": 0.0}, ("total",)),
    ({"memory_warmup_steps": AFTER + 1}, ("after", "total", "score")),
    ({"sum_warmup_steps": AFTER + 1}, ("before", "after", "total")),
]


def facts(switch):
    """Codes, losses, next slots and the scores with them, of a step on real inputs."""
    model = hmgr(**switch)

    @jax.jit
    def run(variables):
        def encode(variables, train):
            return {
                m: model.encode(variables, m, ITEMS[m], train=train, keys=None)[0]
                for m in MODALITIES
            }

        before = encode(variables, True)
        total, terms, _, memory = model.loss(
            variables, before, row(), step=jnp.int32(AFTER), keys=KEYS, axis=LocalAxis()
        )
        after = encode(variables.replace(memory=memory), False)
        score = model.score(variables, ("image", after["image"]), ("text", after["text"]))
        slots = None if memory is None else memory.slots
        pre = terms.get("triplet_pre", terms["triplet"])
        return {
            **before,
            "before": pre,
            "after": terms["triplet"],
            "total": total,
            "slots": slots,
            "score": score,
        }

    return run(starting(model))


@functools.cache
def default():
    return facts({})


def differs(a, b):
    if a is None or b is None or a.shape != b.shape:
        return True
    return float(np.abs(np.asarray(a) - np.asarray(b)).max()) > 1e-4


@pytest.mark.parametrize(("switch", "changed"), CHANGES, ids=[str(c[0]) for c in CHANGES])
def test_an_option_changes_the_documented_outputs_only(switch, changed):
    found = facts(switch)
    assert {name for name in EVERYTHING if differs(found[name], default()[name])} == set(changed)
    if switch.get("memory") == "none":
        assert found["total"] == found["before"] == found["after"]
        np.testing.assert_allclose(found["score"], found["image"] @ found["text"].T, atol=1e-6)
    if switch.get("memory") == "episodic":
        np.testing.assert_array_equal(found["slots"], base().memory.slots)
    if "pre_memory_loss" in switch:
        assert found["total"] == found["after"]


def test_zero_graph_layers_equal_no_graphs():
    one, other = facts({"graph_layers": 0}), facts({"visual_graph": False, "text_graph": False})
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_loss_before_the_memory_is_weighted():
    found = facts({"pre_memory_loss": 0.5})
    np.testing.assert_allclose(found["total"], found["after"] + 0.5 * found["before"], rtol=1e-6)
    expected = default()["after"] + default()["before"]
    np.testing.assert_allclose(default()["total"], expected, rtol=1e-6)
