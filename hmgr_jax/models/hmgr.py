"""HMGR: heterogeneous memory enhanced graph reasoning network (Ji et al., SCIS 65, 2022).

An image is R regions and a text L words (a clip with ``visual="video"``: T frames). Each item is
encoded to a unit vector: ``graph_layers`` graph layers update its fragments x [N, D], which are
pooled,

    x_i <- x_i + LN_0((1/n Σ_j A_ij (x_j W_g)) W_o),   A_ij = (x_i W_θ)·(x_j W_φ)
    v = l2n(Σ_i a_i x_i),   a = softmax_i w·(tanh(x_i W_1) ⊙ tanh(mean(x) W_2))

The memory is a bank of training pairs (v_s, t_s). An item looks up the pairs whose vectors of its
own modality are like it, and reads their vectors of the other modality (`hmgr_jax.layers.bank`),

    x <- l2n(x + g_m ⊙ r(x) W_m),   hops times,

which restores what the gap between the modalities hides; the score is s(v, t) = v̂·t̂. By default
the bank is read at evaluation only, with a scalar gate and no map. With ``learned_reads`` it is
read in training too, through learned gates and maps, and the loss is the ranking objective after
the memory plus λ_pre times the objective before it. ``vse`` is the preset without graphs and
memory. Only the paper's abstract was available: docs/models/hmgr.md lists our design choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hmgr_jax.errors import UserError
from hmgr_jax.layers import bank as banks
from hmgr_jax.layers.bank import Bank, Reading
from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout
from hmgr_jax.layers.frames import sample_frames, time_waves
from hmgr_jax.layers.graph import GraphReasoning, full_support
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.masking import l2n
from hmgr_jax.layers.pooling import POOLS, GlobalPool
from hmgr_jax.layers.regions import (
    EMBEDDINGS,
    SCALES,
    RegionEmbedding,
    read_regions,
    scale_features,
)
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    Parts,
    Plan,
    Terms,
    Variables,
    frames_and_tokens,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.text_side import ReadsWords, word_states
from hmgr_jax.models.vector_scored import RankedVectors
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

VISUALS = {"image": "regions", "video": "frames"}
"""{visual modality: its fragments}."""
SAMPLINGS = ("uniform", "random")
MEMORIES = ("bank", "none")
MOST_SLOTS = 32_768
"""Pairs stored by default, if the training split has as many; more are split over the devices."""
ROUND = 4096
"""The slots of a split bank are a multiple of it, and so of most numbers of devices."""
ROWS = 1024
"""Items of `HMGR.memory_report` whose cosines with all slots are in memory at once."""


@struct.dataclass
class Memory:
    """The state of HMGR's memory."""

    bank: Bank
    active: Bool[Array, ""]
    """Whether the bank is read (after the warm-up), in training and at inference."""


# --- towers -----------------------------------------------------------------------------------


class VisualTower(nn.Module):
    """Regions or frames to a unit vector."""

    model: HMGR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Embed, reason, pool."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        time = None
        if m.visual == "image":
            x, mask = read_regions(items, m.region_scale, m.region_dropout, m.feature_dropout, keys)
        else:
            x, mask, time = read_frames(m, items, keys)
        x = RegionEmbedding(
            m.dim, m.region_embedding, m.region_hidden, m.residual_gain, dtype, name="regions"
        )(x)
        if m.visual_graph:
            for layer in range(m.graph_layers):
                boxes = items["boxes"] if m.boxes else None
                graph = _graph(m, layer, m.boxes)
                x = graph(x, full_support(mask), boxes, time if m.frame_times else None)
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(x, mask, keys)


class TextTower(nn.Module):
    """Words to a unit vector."""

    model: HMGR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Encode, reason, pool."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = word_states(m, items, keys)
        if m.text_graph:
            for layer in range(m.graph_layers):
                x = _graph(m, layer)(x, full_support(mask))
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(x, mask, keys)


def _graph(m: HMGR, layer: int, boxes: bool = False) -> GraphReasoning:
    dtype, name = jnp.dtype(m.dtype), f"graph{layer}"
    return GraphReasoning(m.dim, boxes, m.graph_gate, m.residual_gain, dtype, name=name)


def read_frames(
    m: HMGR, items: Items, keys: Keys | None
) -> tuple[Float[Array, "B K F"], Bool[Array, "B K"], Float[Array, "B K"]]:
    """Scaled features of the sampled frames, their mask and their times.

    With ``frame_positions`` the `time_waves` of the times are further features.
    """
    x, mask, time = sample_frames(
        items["frames"], items["n_frames"], m.frames, m.frame_sampling, keys
    )
    x = dropout(scale_features(x, m.region_scale), m.feature_dropout, keys, "features")
    mask = drop_nodes(mask, m.region_dropout, keys, "frame_nodes")
    if m.frame_positions:
        x = jnp.concatenate([x, time_waves(time)], axis=-1)
    return x, mask, time


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class HMGR(ReadsWords, RankedVectors):
    """Hyper-parameters of HMGR; sizes of 0 come from the data, warm-ups of -1 from the schedule."""

    visual: str = option("image", choices=tuple(VISUALS))
    word_dim: int = option(300, at_least=1)
    # fragments
    region_scale: str = option("none", choices=SCALES)
    region_embedding: str = option("linear", choices=EMBEDDINGS)
    region_hidden: int = option(0, at_least=0)
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    frames: int = option(0, at_least=0)
    """Maximum number of frames read per clip; 0: all."""
    frame_sampling: str = option("uniform", choices=SAMPLINGS)
    frame_positions: bool = False
    """Add sines and cosines of a frame's time to its features."""
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    # graphs
    visual_graph: bool = True
    text_graph: bool = True
    graph_layers: int = option(2, at_least=0)
    graph_gate: bool = False
    residual_gain: float = 0.0
    """Initial gain of graph layers and of the region MLP; at 0 they start as the identity."""
    frame_times: bool = False
    """Edges depend on the time between two frames, and messages are differences."""
    boxes: bool = False
    pool: str = option("attention", choices=POOLS)
    pool_dropout: float = 0.4
    # memory
    memory: str = option("bank", choices=MEMORIES)
    slots: int = option(0, at_least=0)
    """S, the number of stored pairs; 0: the training pairs, up to `MOST_SLOTS`.

    Above `MOST_SLOTS` it is rounded up to a multiple of `ROUND`."""
    visual_read: float = option(0.0, at_least=0.0)
    """g of pictures or clips, which read texts; 0: they read nothing."""
    text_read: float = option(0.4, at_least=0.0)
    """g of texts, which read pictures or clips."""
    read_top: int = option(32, at_least=1)
    """k, the number of pairs that an item reads."""
    read_temperature: float = option(0.1, above=0.0)
    """τ of the look-up; its first value with ``learned_reads``."""
    hops: int = option(1, at_least=1)
    learned_reads: bool = False
    """Read in training too, with learned g, W and τ."""
    memory_warmup_steps: int = option(-1, at_least=-1)
    """Steps before the bank is read; -1: an epoch."""
    rewrite_bank: bool = True
    """Before the final evaluation, store the training pairs as the final weights encode them."""
    pre_memory_loss: float = option(1.0, at_least=0.0)
    """λ_pre of ``learned_reads``."""

    @property
    def modalities(self) -> tuple[str, str]:
        """The visual modality and the text, which are also the keys of the towers' parameters."""
        return (self.visual, "text")

    def tower(self, modality: str) -> nn.Module:
        """The tower of a modality."""
        return TextTower(self) if modality == "text" else VisualTower(self)

    # --- encode -------------------------------------------------------------------------------

    def to_codes(
        self, variables: Variables, modality: str, output: Any, *, train: bool, keys: Keys | None
    ) -> Float[Array, "B D"]:
        """Unit vectors: before the memory in training, after it at inference."""
        if train or self.memory == "none":
            return output
        after, _ = self.remember(variables, modality, output)
        return jnp.where(variables.memory.active, after, output)

    def remember(
        self,
        variables: Variables,
        modality: str,
        x: Float[Array, "n D"],
        not_from: Int[Array, " n"] | None = None,
        axis: Axis | None = None,
    ) -> tuple[Float[Array, "n D"], Reading | None]:
        """The vectors after all hops, and what the first hop read; None if they read nothing.

        In training ``not_from`` is the picture of each item, whose own pairs it does not read.
        With ``axis`` the bank is this device's part of it.
        """
        gate = self.visual_read if modality == self.visual else self.text_read
        if not gate:
            return x, None
        first, after = None, x
        temperature: Any = self.read_temperature
        if self.learned_reads:
            own = variables.params["memory"]
            temperature = jnp.exp(own["log_temperature"])
        for _ in range(self.hops):
            found = banks.read(
                variables.memory.bank,
                after,
                modality,
                top=self.read_top,
                temperature=temperature,
                not_from=not_from,
                axis=axis,
            )
            first, step = first or found, gate * found.content
            if self.learned_reads:
                mapped = einsum("nd,de->ne", found.content, own[modality]["map"])
                step = own[modality]["gate"][None, :] * mapped
            after = l2n(after + step)
        return after, first

    # --- loss ---------------------------------------------------------------------------------

    def loss(
        self,
        variables: Variables,
        codes: Mapping[str, Array],
        row: Items,
        *,
        step: Int[Array, ""],
        keys: Keys,
        axis: Axis,
    ) -> tuple[Float[Array, ""], Terms, Tree, Tree]:
        """The objective of the codes, and the pairs to be written into the bank.

        With ``learned_reads`` L(v̂, t̂) + λ_pre L(v, t).
        """
        total = self.rank_vectors(variables.params, codes, row, step, axis)
        terms = {self.objective: total}
        if self.memory == "none":
            return total, terms, variables.stats, None
        written = {"pairs": dict(codes), "group": row["group"], "valid": row["valid"]}
        if self.learned_reads:
            active = variables.memory.active
            hats, slots, reports = self._read_batch(variables, codes, row, axis)
            written["slots"] = slots
            read = {m: jnp.where(active, hats[m], codes[m]) for m in codes}
            after = self.rank_vectors(variables.params, read, row, step, axis)
            terms |= {"before_memory": total, self.objective: after, **reports}
            total = after + self.pre_memory_loss * total
        gathered = jax.lax.stop_gradient(axis.gather(written))
        return total, terms, variables.stats, {**gathered, "step": step}

    def write_memory(
        self, memory: Memory | None, written: Tree, good: Bool[Array, ""], axis: Axis
    ) -> Memory | None:
        """The bank with the valid pairs of the batch, and the slots that it read marked."""
        if memory is None:
            return None
        bank, valid, step = memory.bank, written["valid"] & good, written["step"]
        parts = axis if self.split_slots else None
        for slots in written.get("slots", {}).values():
            bank = banks.mark_read(bank, slots, valid & memory.active, parts)
        bank = banks.write(bank, written["pairs"], written["group"], valid, step, parts)
        return Memory(bank, jnp.where(good, step + 1 >= self.memory_warmup_steps, memory.active))

    def _read_batch(
        self, variables: Variables, codes: Mapping[str, Array], row: Items, axis: Axis
    ) -> tuple[dict[str, Array], dict[str, Array], Terms]:
        """The codes after the memory, the slots that they read, and what tells its use."""
        hats: dict[str, Array] = {}
        slots: dict[str, Array] = {}
        terms: Terms = {}
        count = jnp.maximum(axis.sum(jnp.sum(row["valid"])), 1).astype(jnp.float32)
        for m, x in codes.items():
            parts = axis if self.split_slots else None
            hats[m], found = self.remember(variables, m, x, row["group"], parts)
            if found is None:
                continue
            slots[m] = found.slots
            for name, each in banks.reading_report(found, x, hats[m]).items():
                mean = axis.sum(jnp.sum(jnp.where(row["valid"], each, 0.0))) / count
                terms[f"memory/{m}/{name}"] = jax.lax.stop_gradient(mean)
        ever = jnp.mean(variables.memory.bank.read.astype(jnp.float32))
        return hats, slots, {**terms, "memory/slots_read": axis.mean(ever)}

    # --- the memory at evaluation -------------------------------------------------------------

    @property
    def needs_train(self) -> bool:
        """The bank is written in training, and anew only at its end."""
        return False

    @property
    def needs_train_at_end(self) -> bool:
        """Whether the bank is written anew after training."""
        return self.remembers and self.rewrite_bank

    @property
    def remembers(self) -> bool:
        """Whether any item reads the bank."""
        return self.memory == "bank" and bool(self.visual_read or self.text_read)

    @property
    def split_slots(self) -> int:
        """Slots of a bank that one device should not hold alone; 0: it can."""
        return self.slots if self.memory == "bank" and self.slots > MOST_SLOTS else 0

    def encode_over_parts(
        self, variables: Variables, modality: str, items: Items, axis: Axis
    ) -> Float[Array, "B D"]:
        """Unit vectors after the memory, by a device that holds a part of the bank."""
        x, _ = self.apply_tower(variables, modality, items)
        after, _ = self.remember(variables, modality, x, axis=axis)
        return jnp.where(variables.memory.active, after, x)

    def before_finalize(self, variables: Variables) -> Variables:
        """Put the memory to sleep: the bank stores the vectors before it."""
        if self.memory == "none":
            return variables
        return replace(variables, memory=variables.memory.replace(active=jnp.zeros((), bool)))

    def finalize(
        self,
        variables: Variables,
        train_codes: Mapping[str, Codes],
        rows: Mapping[str, np.ndarray],
    ) -> Variables:
        """Store the training items by the final weights: each picture with the mean of its texts.

        Of more than S pictures a fixed random sample is stored.
        """
        if not self.needs_train_at_end:
            return variables
        old, pictures = variables.memory.bank, np.asarray(train_codes[self.visual])
        texts = np.zeros(pictures.shape, np.float64)
        np.add.at(texts, rows[self.visual], np.asarray(train_codes["text"])[rows["text"]])
        texts /= np.linalg.norm(texts, axis=1, keepdims=True) + 1e-8
        drawn = self._stored_pictures(rows, len(old.group))
        bank = banks.stored(old, {self.visual: pictures[drawn], "text": texts[drawn]}, drawn)
        return replace(variables, memory=variables.memory.replace(bank=bank))

    def stored_vectors(self, variables: Variables) -> dict[str, Float[np.ndarray, "S D"]] | None:
        """The pairs that `finalize` stored."""
        if not self.needs_train_at_end:
            return None
        bank = variables.memory.bank
        filled = np.asarray(bank.group) != banks.EMPTY
        return {m: np.asarray(x)[filled] for m, x in bank.vectors.items()}

    def _stored_pictures(self, rows: Mapping[str, np.ndarray], slots: int) -> Int[np.ndarray, " n"]:
        """The picture in each slot that `finalize` writes."""
        return np.random.default_rng(0).permutation(np.unique(rows[self.visual]))[:slots]

    def readings(self, variables: Variables, modality: str, codes: Codes) -> Reading | None:
        """What the first hop reads, once the bank is read."""
        if self.memory == "none" or not bool(variables.memory.active):
            return None
        return self.remember(variables, modality, jnp.asarray(codes))[1]

    def stored_items(
        self, variables: Variables, rows: Mapping[str, np.ndarray]
    ) -> dict[str, Int[np.ndarray, " S"]]:
        """The picture or clip of each slot, and its first caption if `finalize` wrote the bank.

        Raises:
            UserError: the bank was written from another training split.
        """
        pictures = np.asarray(variables.memory.bank.group)
        captions = np.full(len(pictures), banks.EMPTY, np.int32)
        if self.needs_train_at_end:
            drawn = self._stored_pictures(rows, len(pictures))
            if not np.array_equal(pictures[: len(drawn)], drawn):
                raise UserError(
                    "The memory holds pairs of another training split than the one that was "
                    "opened: give the data that the run was trained on."
                )
            known, first = np.unique(rows[self.visual], return_index=True)
            captions[: len(drawn)] = rows["text"][first[np.searchsorted(known, drawn)]]
        return {self.visual: pictures, "text": captions}

    def memory_report(
        self, variables: Variables, codes: Mapping[str, Codes]
    ) -> tuple[dict[str, Codes], dict[str, float]]:
        """Codes of a split after the memory, from those before it, and what tells its use.

        A memory that is still asleep changes no code, and there is nothing to tell.
        """
        if not variables.memory.active:
            return dict(codes), {}
        after, report = {}, {}
        for m, x in codes.items():
            size = max(1, ROWS * MOST_SLOTS // max(MOST_SLOTS, len(variables.memory.bank.group)))
            blocks = [jnp.asarray(x[first : first + size]) for first in range(0, len(x), size)]
            hats, found = zip(*(self.remember(variables, m, some) for some in blocks), strict=True)
            after[m] = jnp.concatenate(hats)
            if found[0] is None:
                continue
            reading = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)
            slots, of = np.unique(reading.slots), len(variables.memory.bank.group)
            report[f"memory/{m}/slots_read"] = int(np.sum(slots != banks.EMPTY)) / of
            for name, each in banks.reading_report(reading, jnp.asarray(x), after[m]).items():
                report[f"memory/{m}/{name}"] = float(jnp.mean(each))
        return after, report

    # --- reports ------------------------------------------------------------------------------

    def pool_weights(
        self, variables: Variables, modality: str, items: Items
    ) -> Float[Array, "B N"] | None:
        """The attention of the pool; other pools have no weight per fragment."""
        if self.pool != "attention":
            return None
        given = {"params": variables.params[modality]}
        _, kept = self.tower(modality).apply(given, items, None, mutable="intermediates")
        weights: Array = kept["intermediates"]["pool"]["weights"][0]
        return weights

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learned_reads and not self.remembers:
            raise UserError(
                "model.learned_reads needs a modality that reads the bank: set model.text_read or "
                "model.visual_read above 0 and model.memory to bank, or learned_reads to false."
            )
        if self.visual == "video" and self.boxes:
            raise UserError("model.boxes needs model.visual image, got video: set it to false.")

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The number of regions or frames, and of their features."""
        regions, region_dim = features[self.visual][VISUALS[self.visual]]
        return {"regions": regions, "region_dim": region_dim}

    def fit_to(self, plan: Plan) -> HMGR:
        """Sizes from the data; the bank is read after an epoch."""
        warmup, slots = self.memory_warmup_steps, self.slots or min(plan.rows, MOST_SLOTS)
        return replace(
            super().fit_to(plan),
            memory_warmup_steps=plan.steps_per_epoch if warmup < 0 else warmup,
            slots=-(-slots // ROUND) * ROUND if slots > MOST_SLOTS else slots,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions (with ``boxes`` also their boxes) or frames, and tokens."""
        if self.visual == "video":
            return frames_and_tokens(self.regions, self.region_dim)
        found = dict(super().inputs())
        if self.boxes:
            found["image"] = {**found["image"], "boxes": Feature((self.regions, 4), "float32")}
        return found

    def parts(self) -> Parts:
        """Both towers, word vectors, graphs, and the maps of the memory."""
        parts = {self.visual: (self.visual,), **self.text_parts()}
        switches = zip(self.modalities, (self.visual_graph, self.text_graph), strict=True)
        graphs = [tower for tower, on in switches if on]
        if graphs and self.graph_layers:
            layers = range(self.graph_layers)
            parts["graphs"] = tuple(f"{t}/graph{layer}" for t in graphs for layer in layers)
        if self._has_maps:
            parts["memory"] = ("memory",)
        return {**parts, **self.loss_parts()}

    @property
    def _has_maps(self) -> bool:
        return self.memory == "bank" and self.learned_reads

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters and an empty bank; learned reads start as the others stay."""
        params, _ = self.init_towers(jax.random.split(key, 2))
        if self.memory == "none":
            return Variables(params, None, None, tables)
        if self._has_maps:
            gates = {self.visual: self.visual_read, "text": self.text_read}
            params["memory"] = {
                "log_temperature": jnp.float32(math.log(self.read_temperature)),
                **{
                    m: {"map": jnp.eye(self.dim), "gate": jnp.full((self.dim,), gate)}
                    for m, gate in gates.items()
                    if gate
                },
            }
        bank = banks.empty_bank(self.modalities, max(self.slots, 1), self.dim)
        return Variables(params, None, Memory(bank, jnp.zeros((), bool)), tables)
