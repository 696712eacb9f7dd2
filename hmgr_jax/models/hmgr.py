"""HMGR: heterogeneous memory enhanced graph reasoning (SCIS 65, 2022), and VSE as its preset.

Each item alone: fragments (regions or words) are embedded, reason over a graph, and are pooled to
a unit vector. Then, over instances: the vector consults a memory of the pairs seen before, in a few
hops. The score of a pair is the inner product of the two results. Only the paper's abstract could
be read; what it leaves open follows the specification's section 3, and BUILD_NOTES.md says where.

With ``visual="video"`` the visual items are clips and their fragments are frames (spec 3.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys
from hmgr_jax.layers.frames import SAMPLINGS, read_frames
from hmgr_jax.layers.graph import AFFINITIES, GraphReasoning, full_support, window_support
from hmgr_jax.layers.grouped_memory import GroupedMemory
from hmgr_jax.layers.linear import einsum
from hmgr_jax.layers.memory import (
    WRITE_ADDRESSES,
    WRITE_RULES,
    MemoryAccess,
    MemoryState,
    initial_slots,
)
from hmgr_jax.layers.pooling import POOLS, GlobalPool
from hmgr_jax.layers.regions import EMBEDDINGS, SCALES, RegionEmbedding, read_regions
from hmgr_jax.losses.triplet import triplet_of_vectors
from hmgr_jax.models.base import (
    Axis,
    Codes,
    Feature,
    Items,
    LocalAxis,
    Parts,
    Plan,
    Terms,
    Variables,
    example,
    frames_and_tokens,
    regions_and_tokens,
)
from hmgr_jax.models.ranges import check_ranges
from hmgr_jax.models.text_side import TEXTS, ReadsWords, word_states
from hmgr_jax.shapes import Array, Float, Int, Tree

MEMORIES = (
    "joint",  # one memory, written and read by both modalities
    "none",
    "separate",  # one memory a modality
    "visual_only_write",
    "text_only_write",
    "learned",  # slots are ordinary parameters and never written
    "episodic",  # written within a step, reset after it
)


VISUALS = {"image": "regions", "video": "frames"}
"""What the visual items are, and what their fragments are."""


CHOICES = {
    "visual": tuple(VISUALS),
    "text": TEXTS,
    "frame_sampling": SAMPLINGS,
    "memory": MEMORIES,
    "write_rule": WRITE_RULES,
    "write_address": WRITE_ADDRESSES,
    "affinity": AFFINITIES,
    "pool": POOLS,
    "region_scale": SCALES,
    "region_embedding": EMBEDDINGS,
}
AT_LEAST = {
    "dim": 1,
    "word_dim": 1,
    "region_hidden": 0,
    "graph_layers": 0,
    "text_window": 0,
    "frames": 0,
    "frame_window": 0,
    "slots": 1,
    "key_dim": 1,
    "hops": 1,
    "memory_groups": 1,
    "rebuild_memory": 0,
    "address_gain": 0.0,
}
WRITTEN = ("joint", "separate", "visual_only_write", "text_only_write")
"""Memories that last and are written: they can be written anew before evaluation."""
REBUILD_BATCH = 128
"""Pairs that meet the memory together when it is rebuilt: a batch of the published schedule."""


@dataclass(frozen=True)
class HMGR(ReadsWords):
    """Hyper-parameters of HMGR; sizes of 0 come from the data, warm-ups of -1 from the schedule."""

    coarse_exact: ClassVar[bool] = True

    visual: str = "image"  # or "video": the clips' frames are their regions
    text: str = "gru"  # or "bert"
    dim: int = 1024
    word_dim: int = 300
    vocabulary_size: int = 0
    regions: int = 0
    region_dim: int = 0
    dtype: str = "float32"
    # fragments
    region_scale: str = "none"
    region_embedding: str = "linear"
    region_hidden: int = 0
    feature_dropout: float = 0.0
    region_dropout: float = 0.0
    frames: int = 0  # of a clip that are read at most; 0: all
    frame_sampling: str = "uniform"
    frame_positions: bool = False  # waves of a frame's time among its features
    word_dropout: float = 0.0
    vector_dropout: float = 0.0
    # graphs
    visual_graph: bool = True
    text_graph: bool = True
    graph_layers: int = 2
    affinity: str = "dot"
    graph_gate: bool = False
    residual_gain: float = 0.0  # of graph layers and region MLP at the start; 0 is the identity
    text_window: int = 0
    frame_times: bool = False  # edges know times, and messages are differences
    frame_window: int = 0  # edges between frames at most so far apart; 0: all
    boxes: bool = False
    pool: str = "attention"
    pool_dropout: float = 0.4
    # memory
    memory: str = "joint"
    slots: int = 128
    key_dim: int = 256
    hops: int = 2
    write_rate: float = 0.1
    write_rule: str = "slotwise"
    write_address: str = "learned"
    address_gain: float = 1.0  # of vectors on their way to an address; √dim makes logits of order 1
    memory_groups: int = 8
    memory_warmup_steps: int = -1
    rebuild_memory: int = 0  # batches of training pairs written anew before evaluation; 0: none
    # loss
    margin: float = 0.2
    pre_memory_loss: float = 1.0
    sum_warmup_steps: int = -1
    mask_same_image: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, choices=CHOICES, at_least=AT_LEAST, shares=("write_rate",))
        self.check_bert()
        if self.visual == "video" and self.boxes:
            raise UserError("model.boxes is for images, and model.visual is video: leave it off.")

    @property
    def modalities(self) -> tuple[str, str]:
        """The visual items and the text; a tower's parameters are named by its modality."""
        return (self.visual, "text")

    def fit_to(self, plan: Plan) -> HMGR:
        """Sizes from the data; the memory is read after max(1 epoch, 10% of the steps)."""
        regions, region_dim = plan.features[self.visual][VISUALS[self.visual]]
        epoch = plan.steps_per_epoch
        memory = max(epoch, plan.steps // 10)
        return replace(
            self,
            vocabulary_size=self.vocabulary_size or plan.vocabulary_size,
            regions=self.regions or regions,
            region_dim=self.region_dim or region_dim,
            memory_warmup_steps=memory
            if self.memory_warmup_steps < 0
            else self.memory_warmup_steps,
            sum_warmup_steps=epoch if self.sum_warmup_steps < 0 else self.sum_warmup_steps,
        )

    def inputs(self) -> Mapping[str, Mapping[str, Feature]]:
        """Regions (and their boxes where the switch is on) or frames, and tokens."""
        if self.visual == "video":
            return frames_and_tokens(self.regions, self.region_dim)
        found = regions_and_tokens(self.regions, self.region_dim)
        if self.boxes:
            found["image"]["boxes"] = Feature((self.regions, 4), "float32")
        return found

    def parts(self) -> Parts:
        """Encoders, the word vectors and graphs within them, and the access to the memory."""
        parts = {self.visual: (self.visual,), **self.text_parts()}
        switches = zip(self.modalities, (self.visual_graph, self.text_graph), strict=True)
        graphs = [tower for tower, on in switches if on]
        if graphs and self.graph_layers:
            layers = range(self.graph_layers)
            parts["graphs"] = tuple(f"{t}/graph{layer}" for t in graphs for layer in layers)
        if self.memory != "none":
            parts["memory"] = ("memory", "slots") if self.memory == "learned" else ("memory",)
        return parts

    # --- towers -------------------------------------------------------------------------------

    def _tower(self, modality: str) -> nn.Module:
        return TextTower(self) if modality == "text" else VisualTower(self)

    def _access(self) -> MemoryAccess:
        return MemoryAccess(
            features=self.dim,
            slots=self.slots,
            modalities=self.modalities,
            key_features=self.key_dim,
            hops=self.hops,
            write_address=self.write_address,
            gain=self.address_gain,
            dtype=jnp.dtype(self.dtype),
        )

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters, and a memory of random unit rows."""
        k_visual, k_text, k_memory, k_slots = jax.random.split(key, 4)
        items = {m: example(features) for m, features in self.inputs().items()}
        params = {
            m: self._tower(m).init(k, items[m], None)["params"]
            for m, k in zip(self.modalities, (k_visual, k_text), strict=True)
        }
        if self.memory == "none":
            return Variables(params, None, None, tables)
        slots = initial_slots(k_slots, 2 if self.memory == "separate" else 1, self.slots, self.dim)
        params["memory"] = self._access().init(k_memory, slots[0], method="touch")["params"]
        if self.memory == "learned":
            params["slots"] = slots
        kept = None if self.memory == "learned" else slots
        state = MemoryState(kept, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        return Variables(params, None, state, tables)

    def encode(
        self, variables: Variables, modality: str, items: Items, *, train: bool, keys: Keys | None
    ) -> tuple[Float[Array, "B D"], Tree]:
        """Unit vectors: before the memory in training, after it (frozen) at inference."""
        keys = keys.named(modality) if train and keys is not None else None
        x: Any = self._tower(modality).apply({"params": variables.params[modality]}, items, keys)
        if not train and self.memory != "none":
            hopped, _, _ = self._memory(variables).read(self._slots(variables), x, modality)
            x = jnp.where(variables.memory.active, hopped, x)
        return x, variables.stats

    def score(
        self, variables: Variables, a: tuple[str, Codes], b: tuple[str, Codes]
    ) -> Float[Array, "A B"]:
        """Inner products."""
        return einsum("ad,bd->ab", a[1], b[1])

    def coarse(self, variables: Variables, modality: str, codes: Codes) -> Float[Array, "n D"]:
        """The codes themselves: their inner product is the score."""
        return jnp.asarray(codes)

    # --- memory -------------------------------------------------------------------------------

    def _slots(self, variables: Variables) -> Float[Array, "M S D"]:
        if self.memory == "learned":
            return variables.params["slots"]
        return jax.lax.stop_gradient(variables.memory.slots)

    def _memory(self, variables: Variables) -> GroupedMemory:
        return GroupedMemory(
            self._access(),
            variables.params["memory"],
            groups=self.memory_groups,
            rate=self.write_rate,
            rule=self.write_rule,
            streams=(self.memory != "text_only_write", self.memory != "visual_only_write"),
            writes=self.memory != "learned",
        )

    @property
    def needs_train(self) -> bool:
        """To rebuild the memory."""
        return self.rebuild_memory > 0 and self.memory in WRITTEN

    def before_finalize(self, variables: Variables) -> Variables:
        """The memory asleep: what is written are the vectors before it."""
        if self.memory == "none":
            return variables
        memory = variables.memory.replace(active=jnp.zeros_like(variables.memory.active))
        return replace(variables, memory=memory)

    def finalize(
        self,
        variables: Variables,
        train_codes: Mapping[str, Codes],
        rows: Mapping[str, np.ndarray],
    ) -> Variables:
        """Write so many batches of training pairs into the stored memory (spec 3.6).

        The weights are final and there is no gradient ("precise memory"). The pairs are drawn
        without replacement, always the same, in an order that does not follow the images.
        """
        if not self.needs_train:
            return variables
        drawn = np.random.default_rng(0).permutation(len(rows["text"]))
        drawn = drawn[: self.rebuild_memory * REBUILD_BATCH]
        codes = {m: np.asarray(train_codes[m])[rows[m][drawn]] for m in self.modalities}
        return replace(variables, memory=_rebuilt(self, variables, codes))

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
        """Triplet loss after the memory, and λ_pre times the same before it (spec 3.7)."""

        def rank(vectors: Mapping[str, Array]) -> Array:
            return triplet_of_vectors(
                vectors[self.visual],
                vectors["text"],
                row["valid"],
                row["group"] if self.mask_same_image else None,
                axis,
                margin=self.margin,
                hard=step >= self.sum_warmup_steps,
            )

        before = rank(codes)
        if self.memory == "none":
            return before, {"triplet": before}, variables.stats, None
        hats, slots, use = self._memory(variables).read_then_write(
            self._slots(variables), codes, row["valid"], axis
        )
        slots = jax.lax.stop_gradient(slots)
        active = step >= self.memory_warmup_steps
        after = rank({m: jnp.where(active, hats[m], codes[m]) for m in codes})
        total = after + self.pre_memory_loss * before
        memory = variables.memory.replace(active=active)
        if self.memory not in ("learned", "episodic"):
            memory = memory.replace(
                slots=slots, written=memory.written + axis.sum(jnp.sum(row["valid"]))
            )
        terms = {
            "triplet": after,
            "triplet_pre": before,
            "memory/usage_entropy": -jnp.sum(use * jnp.log(use + 1e-12)) / 2,  # mean of modalities
            "memory/norm": jnp.sqrt(jnp.mean(jnp.sum(slots**2, axis=-1))),
        }
        return total, terms, variables.stats, memory


@partial(jax.jit, static_argnums=0)
def _rebuilt(model: HMGR, variables: Variables, codes: Mapping[str, Array]) -> MemoryState:
    memory = model._memory(variables)
    slots = memory.rewrite(model._slots(variables), codes, REBUILD_BATCH, LocalAxis())
    return variables.memory.replace(
        slots=slots, written=variables.memory.written + len(codes["text"])
    )


class VisualTower(nn.Module):
    """Regions or frames to a unit vector."""

    model: HMGR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Embed, reason, pool."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask, time = self._read(items, keys)
        regions = RegionEmbedding(
            m.dim, m.region_embedding, m.region_hidden, m.residual_gain, dtype, name="regions"
        )
        x = regions(x)
        if m.visual_graph:
            support = _support(mask, m.frame_window if m.visual == "video" else 0)
            for layer in range(m.graph_layers):
                boxes = items["boxes"] if m.boxes else None
                x = _graph(m, layer, m.boxes)(x, support, boxes, time)
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(x, mask, keys)

    def _read(self, items: Items, keys: Keys | None) -> tuple[Array, Array, Array | None]:
        m = self.model
        drops = m.region_dropout, m.feature_dropout
        if m.visual == "image":
            return *read_regions(items, m.region_scale, *drops, keys), None
        x, mask, time = read_frames(
            items,
            m.region_scale,
            m.frames,
            m.frame_sampling,
            m.frame_positions,
            *drops,
            keys,
        )
        return x, mask, time if m.frame_times else None


class TextTower(nn.Module):
    """Words to a unit vector."""

    model: HMGR

    @nn.compact
    def __call__(self, items: Items, keys: Keys | None) -> Float[Array, "B D"]:
        """Encode, reason, pool."""
        m, dtype = self.model, jnp.dtype(self.model.dtype)
        x, mask = word_states(m, items, keys)
        if m.text_graph:
            support = _support(mask, m.text_window)
            for layer in range(m.graph_layers):
                x = _graph(m, layer)(x, support)
        return GlobalPool(m.pool, m.pool_dropout, dtype, name="pool")(x, mask, keys)


def _support(mask: Array, window: int) -> Array:
    return window_support(mask, window) if window else full_support(mask)


def _graph(m: HMGR, layer: int, boxes: bool = False) -> GraphReasoning:
    dtype = jnp.dtype(m.dtype)
    name = f"graph{layer}"
    return GraphReasoning(m.dim, m.affinity, boxes, m.graph_gate, m.residual_gain, dtype, name=name)
