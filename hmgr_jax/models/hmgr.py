"""HMGR: heterogeneous memory enhanced graph reasoning network (Ji et al., SCIS 65, 2022).

An image is R regions and a text L words (a clip with ``visual="video"``: T frames). Each item is
encoded to a unit vector: ``graph_layers`` graph layers update its fragments x [N, D], which are
pooled,

    x_i <- x_i + LN_0((1/n Σ_j A_ij (x_j W_g)) W_o),   A_ij = (x_i W_θ)·(x_j W_φ)
    v = l2n(Σ_i a_i x_i),   a = softmax_i w·(tanh(x_i W_1) ⊙ tanh(mean(x) W_2))

The vector then reads a memory that training pairs have written, v̂ = l2n(hop(hop(v))), and the
score is s(v, t) = v̂·t̂ (`hmgr_jax.layers.memory` has hops and writes). The loss is the ranking
loss after the memory plus λ_pre times the ranking loss before it. ``vse`` is the preset without
graphs and memory. Only the paper's abstract was available: docs/models/hmgr.md lists our design
choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hmgr_jax.errors import UserError
from hmgr_jax.layers.dropout import Keys, drop_nodes, dropout
from hmgr_jax.layers.graph import AFFINITIES, GraphReasoning, full_support
from hmgr_jax.layers.masking import length_mask
from hmgr_jax.layers.memory import (
    WRITE_ADDRESSES,
    WRITE_RULES,
    GroupedMemory,
    MemoryAccess,
    MemoryState,
    initial_slots,
)
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
    LocalAxis,
    Parts,
    Plan,
    Terms,
    Variables,
    frames_and_tokens,
)
from hmgr_jax.models.options import option
from hmgr_jax.models.text_side import TEXTS, ReadsWords, word_states
from hmgr_jax.models.vector_scored import RankedVectors
from hmgr_jax.shapes import Array, Bool, Float, Int, Tree

VISUALS = {"image": "regions", "video": "frames"}
"""{visual modality: its fragments}."""
SAMPLINGS = ("uniform", "random")
WAVES = 4
"""Number of frequencies in `time_waves`."""
WRITTEN = ("joint", "separate", "visual_only_write", "text_only_write")
"""Memories that are written in training and kept between steps."""
MEMORIES = (
    "joint",  # one memory, written and read by both modalities
    "none",
    "separate",  # one memory for each modality
    "visual_only_write",
    "text_only_write",
    "learned",  # slots are ordinary parameters and never written
    "episodic",  # written within a step, reset after it
)
REBUILD_BATCH = 128
"""Pairs written at a time when the memory is rebuilt: the published batch size."""


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
    return GraphReasoning(m.dim, m.affinity, boxes, m.graph_gate, m.residual_gain, dtype, name=name)


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


def sample_frames(
    x: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    count: int,
    sampling: str,
    keys: Keys | None,
) -> tuple[Float[Array, "B K F"], Bool[Array, "B K"], Float[Array, "B K"]]:
    """Sample at most ``count`` frames of every clip; clips with fewer frames keep all of them.

    Args:
        x: features, padded to T frames.
        lengths: number of frames of each clip.
        count: K; 0 samples all T.
        sampling: ``"uniform"``, or ``"random"`` in training (with ``keys``).
        keys: None at evaluation, where sampling is uniform.

    Returns:
        the frames in order, their mask, and their times: 0 is the first frame of the clip, 1 the
        last.
    """
    last = jnp.maximum(lengths - 1, 1).astype(jnp.float32)
    if not count or x.shape[1] <= count:
        time = jnp.arange(x.shape[1], dtype=jnp.float32)[None, :] / last[:, None]
        return x, length_mask(lengths, x.shape[1]), time
    if sampling == "random" and keys is not None:
        chosen = random_frames(lengths, count, keys.named("frames"))
    else:
        chosen = even_frames(lengths, count)
    place = jnp.where(lengths[:, None] > count, chosen, jnp.arange(count)[None, :])
    mask = length_mask(jnp.minimum(lengths, count), count)
    time = place.astype(jnp.float32) / last[:, None]
    return jnp.take_along_axis(x, place[:, :, None], axis=1), mask, time


def even_frames(lengths: Int[Array, " B"], count: int) -> Int[Array, "B K"]:
    """``round(linspace(0, n - 1, count))`` for every clip of n frames.

    In integers, with halves rounded to even as in numpy: the same frames on every machine.
    """
    steps = jnp.arange(count)[None, :] * (jnp.maximum(lengths, 1) - 1)[:, None]
    down, rest = jnp.divmod(steps, max(count - 1, 1))
    up = 2 * rest + down % 2 > max(count - 1, 1)
    return down + up.astype(down.dtype)


def random_frames(lengths: Int[Array, " B"], count: int, keys: Keys) -> Int[Array, "B K"]:
    """One random frame from each of ``count`` equal segments of clips with at least that many."""
    edges = jnp.arange(count + 1)[None, :] * lengths[:, None] // count
    first, size = edges[:, :-1], jnp.diff(edges, axis=1)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys.per_row())
    inside = jnp.floor(drawn * size.astype(jnp.float32)).astype(first.dtype)
    return first + jnp.minimum(inside, jnp.maximum(size, 1) - 1)


def time_waves(time: Float[Array, "B K"]) -> Float[Array, "B K W"]:
    """sin(π k t) and cos(π k t) of times t in 0..1, k = 1..WAVES; W = 2 · WAVES."""
    angle = time[:, :, None] * (jnp.pi * jnp.arange(1, WAVES + 1, dtype=jnp.float32))[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


# --- the system -------------------------------------------------------------------------------


@dataclass(frozen=True)
class HMGR(ReadsWords, RankedVectors):
    """Hyper-parameters of HMGR; sizes of 0 come from the data, warm-ups of -1 from the schedule."""

    visual: str = option("image", choices=tuple(VISUALS))
    text: str = option("gru", choices=TEXTS)
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
    affinity: str = option("dot", choices=AFFINITIES)
    graph_gate: bool = False
    residual_gain: float = 0.0
    """Initial gain of graph layers and of the region MLP; at 0 they start as the identity."""
    frame_times: bool = False
    """Edges depend on the time between two frames, and messages are differences."""
    boxes: bool = False
    pool: str = option("attention", choices=POOLS)
    pool_dropout: float = 0.4
    # memory
    memory: str = option("joint", choices=MEMORIES)
    slots: int = option(128, at_least=1)
    key_dim: int = option(256, at_least=1)
    hops: int = option(2, at_least=1)
    write_rate: float = option(0.1, share=True)
    write_rule: str = option("slotwise", choices=WRITE_RULES)
    write_address: str = option("learned", choices=WRITE_ADDRESSES)
    address_gain: float = option(1.0, at_least=0.0)
    """Factor of the inputs of address maps; at √dim their logits are of order 1."""
    memory_groups: int = option(8, at_least=1)
    memory_warmup_steps: int = -1
    """Steps before the memory is read."""
    rebuild_memory: int = option(0, at_least=0)
    """Batches of training pairs that are written again before evaluation."""
    pre_memory_loss: float = 1.0
    """λ_pre."""

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
        """Unit vectors: before the memory in training, after the frozen memory at inference."""
        if train or self.memory == "none":
            return output
        hopped, _, _ = self._memory(variables).read(self._slots(variables), output, modality)
        return jnp.where(variables.memory.active, hopped, output)

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
        """L(v̂, t̂) + λ_pre L(v, t), and the memory after the batch is written."""
        before = self.rank_vectors(variables.params, codes, row, step, axis)
        if self.memory == "none":
            return before, {"triplet": before}, variables.stats, None
        hats, slots, use = self._memory(variables).read_then_write(
            self._slots(variables), codes, row["valid"], axis
        )
        slots = jax.lax.stop_gradient(slots)
        active = step >= self.memory_warmup_steps
        read = {m: jnp.where(active, hats[m], codes[m]) for m in codes}
        after = self.rank_vectors(variables.params, read, row, step, axis)
        total = after + self.pre_memory_loss * before
        memory = variables.memory.replace(active=active)
        if self.memory in WRITTEN:
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

    # --- rebuilding the memory before evaluation ----------------------------------------------

    @property
    def needs_train(self) -> bool:
        """Whether the memory is rebuilt from the training pairs."""
        return self.rebuild_memory > 0 and self.memory in WRITTEN

    def before_finalize(self, variables: Variables) -> Variables:
        """Switch reading off: the memory stores the vectors before it."""
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
        """Write ``rebuild_memory`` batches of training pairs into the saved memory.

        The weights are final and there is no gradient ("precise memory"). The pairs are a fixed
        random sample without replacement.
        """
        if not self.needs_train:
            return variables
        drawn = np.random.default_rng(0).permutation(len(rows["text"]))
        drawn = drawn[: self.rebuild_memory * REBUILD_BATCH]
        codes = {m: np.asarray(train_codes[m])[rows[m][drawn]] for m in self.modalities}
        return replace(variables, memory=_rebuild_memory(self, variables, codes))

    # --- hyper-parameters and plumbing --------------------------------------------------------

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_bert()
        if self.visual == "video" and self.boxes:
            raise UserError("model.boxes needs model.visual image, got video: set it to false.")

    def sizes(self, features: Mapping[str, Mapping[str, tuple[int, ...]]]) -> Mapping[str, Any]:
        """The number of regions or frames, and of their features."""
        regions, region_dim = features[self.visual][VISUALS[self.visual]]
        return {"regions": regions, "region_dim": region_dim}

    def fit_to(self, plan: Plan) -> HMGR:
        """Sizes from the data; the memory is read after max(1 epoch, 10% of the steps)."""
        fitted: HMGR = super().fit_to(plan)
        if self.memory_warmup_steps >= 0:
            return fitted
        return replace(fitted, memory_warmup_steps=max(plan.steps_per_epoch, plan.steps // 10))

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
        if self.memory != "none":
            parts["memory"] = ("memory", "slots") if self.memory == "learned" else ("memory",)
        return {**parts, **self.loss_parts()}

    def init(self, key: Array, tables: Tree = None) -> Variables:
        """Fresh parameters, and a memory of random unit rows."""
        *k_towers, k_memory, k_slots = jax.random.split(key, 4)
        params, _ = self.init_towers(k_towers)
        if self.memory == "none":
            return Variables(params, None, None, tables)
        slots = initial_slots(k_slots, 2 if self.memory == "separate" else 1, self.slots, self.dim)
        params["memory"] = self._access().init(k_memory, slots[0], method="touch")["params"]
        if self.memory == "learned":
            params["slots"] = slots
        kept = None if self.memory == "learned" else slots
        state = MemoryState(kept, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        return Variables(params, None, state, tables)


@partial(jax.jit, static_argnums=0)
def _rebuild_memory(model: HMGR, variables: Variables, codes: Mapping[str, Array]) -> MemoryState:
    memory = model._memory(variables)
    slots = memory.rewrite(model._slots(variables), codes, REBUILD_BATCH, LocalAxis())
    written = variables.memory.written + len(codes["text"])
    return variables.memory.replace(slots=slots, written=written)
