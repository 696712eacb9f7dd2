"""Every option of HMGR's ablation changes the outputs that docs/models/hmgr.md lists for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmgr_cases import ITEMS, B, hmgr, row, variables_of

from hmgr_jax.layers.dropout import Keys
from hmgr_jax.models.base import LocalAxis

MODALITIES = ("image", "text")
STEP = 5
KEYS = Keys.at(jnp.int32(0), jnp.int32(STEP), jnp.arange(B))


@functools.cache
def base():
    return variables_of(hmgr())


EVERYTHING = ("image", "text", "total", "bank", "score")
VISUAL = tuple(name for name in EVERYTHING if name != "text")
TEXTUAL = tuple(name for name in EVERYTHING if name != "image")

CHANGES = [
    ({"visual_graph": False}, VISUAL),
    ({"text_graph": False}, TEXTUAL),
    ({"graph_layers": 2}, EVERYTHING),
    ({"pool": "mean"}, EVERYTHING),  # the others in test_hmgr.py
    ({"memory": "none"}, ("bank", "score")),
    ({"slots": 5}, ("bank", "score")),
    ({"visual_read": 0.0}, ("score",)),
    ({"text_read": 0.8}, ("score",)),
    ({"read_top": 1}, ("score",)),
    ({"read_temperature": 1.0}, ("score",)),
    ({"hops": 2}, ("score",)),
    ({"learned_reads": True}, ("total", "score")),
    ({"memory_warmup_steps": STEP + 2}, ("score",)),
    ({"sum_warmup_steps": STEP + 1}, ("total",)),
    ({"objective": "infonce"}, ("total",)),
]


def facts(switch):
    """Codes before the memory, the loss, the next bank and the scores with it."""
    model = hmgr(**switch)

    @jax.jit
    def run(variables):
        def encode(variables, train):
            return {
                m: model.encode(variables, m, ITEMS[m], train=train, keys=None)[0]
                for m in MODALITIES
            }

        before = encode(variables, True)
        total, _, _, written = model.loss(
            variables, before, row(), step=jnp.int32(STEP), keys=KEYS, axis=LocalAxis()
        )
        memory = model.write_memory(variables.memory, written, jnp.asarray(True), LocalAxis())
        after = encode(variables.replace(memory=memory), False)
        score = model.score(variables, ("image", after["image"]), ("text", after["text"]))
        bank = None if memory is None else jnp.stack(list(memory.bank.vectors.values()))
        return {**before, "total": total, "bank": bank, "score": score}

    return run(variables_of(model, base=base()))


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


def test_zero_graph_layers_equal_no_graphs():
    one, other = facts({"graph_layers": 0}), facts({"visual_graph": False, "text_graph": False})
    jax.tree.map(np.testing.assert_array_equal, one, other)
