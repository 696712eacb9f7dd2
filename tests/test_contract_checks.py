"""The contract tests accept a sound toy system and reject broken ones."""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
import test_contract
from contract_cases import (
    LEARNING_RATE,
    LENGTH,
    SMALL,
    System,
    assert_devices_agree,
    assert_learns,
    data_of,
)
from test_contract import ITEMS

from hmgr_jax import layers
from hmgr_jax.layers.dropout import dropout
from hmgr_jax.layers.masking import l2n
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import Feature, Model, Variables

DIM = 4


@dataclass(frozen=True)
class Toy(Model):
    """Sums of regions and of words; the memory is the running mean of image codes."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")

    words: int = 0
    region_dim: int = 0

    def fit_to(self, plan):
        _, region_dim = plan.features["image"]["regions"]
        return replace(self, words=plan.vocabulary_size, region_dim=region_dim)

    def inputs(self):
        regions = Feature((None, self.region_dim), "float16")
        return {"image": {"regions": regions}, "text": {"tokens": Feature((None,), "int32")}}

    def parts(self):
        return {"image": ("image",), "text": ("text",)}

    def init(self, key, tables=None):
        image = jax.random.normal(key, (self.region_dim, DIM))
        text = jax.random.normal(key, (self.words, DIM))
        return Variables({"image": image, "text": text}, None, jnp.zeros(DIM), tables)

    def encode(self, variables, modality, items, *, train, keys):
        x = items["regions"].astype(jnp.float32) if modality == "image" else items["tokens"]
        own = variables.params[modality]
        x = jnp.sum(x, 1) @ own if modality == "image" else jnp.sum(own[x], 1)
        return dropout(l2n(x), 0.2, keys, modality), variables.stats

    def loss(self, variables, codes, row, *, step, keys, axis):
        valid, image, text = axis.gather((row["valid"], codes["image"], codes["text"]))
        total = triplet(jnp.einsum("ad,bd->ab", image, text), negatives(valid), hard=False)
        mean = jnp.sum(jnp.where(valid[:, None], image, 0.0), axis=0) / jnp.sum(valid, dtype=float)
        return total, {}, variables.stats, mean

    def write_memory(self, memory, written, good, axis):
        return jnp.where(good, 0.9 * memory + 0.1 * written, memory)


def of_local_rows(codes, row):
    return jnp.sum(jnp.where(row["valid"], codes["image"][:, 0] ** 2, 0.0))


class WithTerm(Toy):
    """A term of local rows, summed over devices."""

    def loss(self, variables, codes, row, *, axis, **others):
        total, *rest = super().loss(variables, codes, row, axis=axis, **others)
        return total + axis.sum(of_local_rows(codes, row)), *rest


class WithPairRows(Toy):
    """Each device computes its own rows of the score matrix."""

    def loss(self, variables, codes, row, *, axis, **others):
        _, *rest = super().loss(variables, codes, row, axis=axis, **others)
        scores = axis.pair_rows(
            lambda a, b: jnp.einsum("ad,bd->ab", a, b), codes["image"], codes["text"]
        )
        return triplet(scores, negatives(axis.gather(row["valid"])), hard=False), *rest


class WithTable(Toy):
    """A constant that the loss depends on."""

    def init(self, key, tables=None):
        tables = {"weights": jnp.arange(3.0)} if tables is None else tables
        return super().init(key, tables)

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total * (1.0 + variables.tables["weights"][0]), *rest


class WithLocalSum(Toy):
    """``axis.sum`` is missing: wrong by the number of devices, without an error."""

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total + of_local_rows(codes, row), *rest


class WithLocalMean(Toy):
    """``axis.mean`` is missing: the gradient is right, but devices report different losses."""

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total + of_local_rows(codes, row) / row["valid"].shape[0], *rest


class WithLocalMemory(Toy):
    """Each device writes only its own rows."""

    def loss(self, variables, codes, row, **others):
        *rest, _ = super().loss(variables, codes, row, **others)
        return *rest, jnp.mean(codes["image"], axis=0)


class WithDeviceRandomness(Toy):
    """Random numbers depend on the row on the device instead of the global row."""

    def encode(self, variables, modality, items, *, train, keys):
        if keys is not None:
            keys = keys.replace(rows=jnp.arange(keys.rows.shape[0]))
        return super().encode(variables, modality, items, train=train, keys=keys)


class WithPaddingCounted(Toy):
    """Rows that only fill up the batch count."""

    def loss(self, variables, codes, row, **others):
        row = row | {"valid": jnp.ones_like(row["valid"])}
        return super().loss(variables, codes, row, **others)


class Collapsing(Toy):
    """All items get the same code, and the loss falls by a penalty on the parameters."""

    def encode(self, variables, modality, items, *, train, keys):
        x = items["regions"] if modality == "image" else items["tokens"]
        code = l2n(jnp.sum(variables.params[modality], axis=0, keepdims=True))
        return jnp.broadcast_to(code, (x.shape[0], DIM)), variables.stats

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total + sum(jnp.sum(x**2) for x in variables.params.values()), *rest


class Reversed(Toy):
    """The score has the wrong sign: positives are ranked last."""

    def score(self, variables, a, b):
        return -super().score(variables, a, b)


@pytest.mark.parametrize("sound", [Toy, WithTerm, WithPairRows])
def test_a_sound_system_passes(sound):
    system = System(sound())
    assert_devices_agree(system.one, system.eight)


def test_a_system_that_learns_passes():
    assert_learns(System(Toy(), LEARNING_RATE))


@pytest.mark.parametrize(
    ("broken", "message"),
    [(Collapsing, "with constant codes"), (Reversed, "image to text: positives score")],
)
def test_a_falling_loss_without_learning_is_caught(broken, message):
    system = System(broken(), LEARNING_RATE)
    assert system.loss(system.fitted) < 0.9 * system.loss(system.start())
    with pytest.raises(AssertionError, match=rf"{message}.*set LEARNING_RATES\['toy'\]"):
        assert_learns(system)


def test_sizes_of_codes_differ_from_all_block_sizes():
    """An array cut along the wrong axis goes unnoticed if the axis is as long as the block."""
    shape = data_of(("image", "text")).splits["train"].sources["image"].gather(ITEMS)["regions"]
    sizes = {SMALL["dim"], SMALL["width"], SMALL["bert_width"], LENGTH, shape.shape[1]}
    blocks = set()
    for module in pkgutil.iter_modules(layers.__path__, f"{layers.__name__}."):
        if "pair" in module.name or "match" in module.name:
            constants = vars(importlib.import_module(module.name)).items()
            of_module = [value for name, value in constants if name.isupper()]
            blocks |= {x for x in jax.tree.leaves(of_module) if type(x) is int}
    assert {16, 24} <= blocks, "no block sizes found"
    assert not sizes & blocks


def test_tables_reach_the_loss_and_are_swapped_without_compiling():
    test_contract.test_tables_are_swapped_without_compiling(System(WithTable()))


@pytest.mark.parametrize(
    "broken",
    [WithLocalSum, WithLocalMean, WithLocalMemory, WithDeviceRandomness, WithPaddingCounted],
)
def test_a_broken_system_is_caught(broken):
    system = System(broken())
    with pytest.raises(AssertionError, match=r"another device|Not equal to tolerance"):
        assert_devices_agree(system.one, system.eight)
