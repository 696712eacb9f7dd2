"""The checks of the contract catch what they are for: a sound toy passes, broken ones do not."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
import test_contract
from contract_cases import System, assert_devices_agree

from hmgr_jax.layers.dropout import dropout
from hmgr_jax.layers.masking import l2n
from hmgr_jax.losses.triplet import negatives, triplet
from hmgr_jax.models.base import Feature, Model, Variables

DIM = 4


@dataclass(frozen=True)
class Toy(Model):
    """Bags of regions and words, and the mean image seen so far as a memory."""

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
        memory = 0.9 * variables.memory + 0.1 * mean
        return total, {}, variables.stats, memory


def of_local_rows(codes, row):
    return jnp.sum(jnp.where(row["valid"], codes["image"][:, 0] ** 2, 0.0))


class WithTerm(Toy):
    """A term of local rows, as it should be."""

    def loss(self, variables, codes, row, *, axis, **others):
        total, *rest = super().loss(variables, codes, row, axis=axis, **others)
        return total + axis.sum(of_local_rows(codes, row)), *rest


class WithPairRows(Toy):
    """Every device computes its own rows of the score matrix."""

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
    """``axis.sum`` forgotten: wrong by the number of devices, and silent."""

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total + of_local_rows(codes, row), *rest


class WithLocalMean(Toy):
    """``axis.mean`` forgotten: the gradient is right, but the loss is not the same everywhere."""

    def loss(self, variables, codes, row, **others):
        total, *rest = super().loss(variables, codes, row, **others)
        return total + of_local_rows(codes, row) / row["valid"].shape[0], *rest


class WithLocalMemory(Toy):
    """Every device writes its own rows only."""

    def loss(self, variables, codes, row, **others):
        *rest, _ = super().loss(variables, codes, row, **others)
        return *rest, 0.9 * variables.memory + 0.1 * jnp.mean(codes["image"], axis=0)


class WithDeviceRandomness(Toy):
    """Random numbers of the place on the device instead of the global row."""

    def encode(self, variables, modality, items, *, train, keys):
        if keys is not None:
            keys = keys.replace(rows=jnp.arange(keys.rows.shape[0]))
        return super().encode(variables, modality, items, train=train, keys=keys)


class WithPaddingCounted(Toy):
    """Rows that fill up the batch are taken for rows."""

    def loss(self, variables, codes, row, **others):
        row = row | {"valid": jnp.ones_like(row["valid"])}
        return super().loss(variables, codes, row, **others)


@pytest.mark.parametrize("sound", [Toy, WithTerm, WithPairRows])
def test_a_sound_system_passes(sound):
    system = System(sound())
    assert_devices_agree(system.one, system.eight)


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
