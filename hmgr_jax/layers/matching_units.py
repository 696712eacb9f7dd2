"""How a query takes up what it has attended to (IMRAM's memory distillation unit, spec 2.3, 2.7).

A unit sees the query x and the attended context c = Σ_y a_y y through linear maps of [x; c]. They
are split in two: the query's half is computed once a query, the context's half once a context
element, since attending to projected elements is projecting what was attended to. No unit needs c
itself unless it adds it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from hmgr_jax.layers.linear import einsum, repeated, uniform
from hmgr_jax.layers.masking import l2n
from hmgr_jax.shapes import Array, Float, Tree

Projected = tuple[Array, ...]
"""Linear maps of fragments, apart: what is cut out of one array costs a pass in the gradient."""
UNITS = ("gate_full", "add", "mlp", "att", "gate")


@dataclass(frozen=True)
class Unit:
    """One direction's unit; its parameters are shared by all matching steps.

    ``gate_full``: g = σ([x;c] W_g + b_g), o = tanh([x;c] W_o + b_o), x' = g x + (1 - g) o (the
    paper's). ``add``: x + c. ``mlp``: o. ``att``: x and c weighted by a softmax of their products
    with one vector. ``gate``: g x + (1 - g) c.
    """

    features: int
    kind: str = "gate_full"
    normalise: bool = False
    """Unit length after every update (the released code's ``IMRAM_norm``)."""
    dtype: Any = jnp.float32

    def _maps(self) -> tuple[str, ...]:
        return {"gate_full": ("gate", "out"), "mlp": ("out",), "gate": ("gate",)}.get(self.kind, ())

    def init(self, key: Array) -> Tree:
        """Parameters: U(±1/sqrt(2 D)) as PyTorch's linear layers start."""
        size = self.features
        draw = uniform((2 * size) ** -0.5)
        if self.kind == "att":
            return {"weight": {"kernel": draw(key, (size, 1))}}
        found = {}
        for name, own in zip(self._maps(), jax.random.split(key, 2), strict=False):
            k_kernel, k_bias = jax.random.split(own)
            found[name] = {
                "kernel": draw(k_kernel, (2 * size, size)),
                "bias": draw(k_bias, (size,)),
            }
        return found

    def query(self, params: Tree, x: Float[Array, "*batch D"]) -> Projected:
        """What an update needs of a query besides itself; nothing at all for ``add``."""
        if self.kind == "att":
            return (self._product(x, params["weight"]["kernel"]),)
        own = [params[name] for name in self._maps()]
        return tuple(self._product(x, p["kernel"][: self.features], p["bias"]) for p in own)

    def context(self, params: Tree, y: Float[Array, "*batch D"]) -> Projected:
        """What is attended to in the place of a context element."""
        if self.kind == "att":
            return (self._product(y, params["weight"]["kernel"]), y)
        own = [params[name] for name in self._maps()]
        found = tuple(self._product(y, p["kernel"][self.features :]) for p in own)
        return (*found, y) if self.kind in ("add", "gate") else found

    def update(
        self, x: Float[Array, "B Q D"], query: Projected, attended: Projected
    ) -> Float[Array, "B Q D"]:
        """The refined query from x, its ``query`` and what it attended to of ``context``."""
        x = self._updated(x, query, attended)
        return l2n(x) if self.normalise else x

    def _updated(self, x: Array, query: Projected, attended: Projected) -> Array:
        if self.kind == "gate_full":
            gate = jax.nn.sigmoid(query[0] + attended[0])
            out = jnp.tanh(query[1] + attended[1])
            return out + gate * (x - out)
        if self.kind == "mlp":
            return jnp.tanh(query[0] + attended[0])
        context = attended[-1]
        if self.kind == "add":
            return x + context
        # A softmax of two is a sigmoid of their difference.
        other = attended[0] if self.kind == "gate" else -attended[0]
        return context + jax.nn.sigmoid(query[0] + other) * (x - context)

    def _product(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        flat = x.reshape(-1, x.shape[-1])
        y = einsum("nd,dp->np", flat, kernel, dtype=self.dtype)
        if bias is not None:
            y = y + repeated(bias, y.shape[0])
        return y.reshape(*x.shape[:-1], kernel.shape[-1])
