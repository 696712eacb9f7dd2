"""Shape annotations: jaxtyping's names, or stand-ins where jaxtyping is not installed.

The shapes are checked in the tests only. Shape letters: B batch, R regions, L words, N nodes,
D features, K steps or samples, S memory slots; a lower-case b is one device's share of B.
"""

from __future__ import annotations

from typing import Any

try:
    from jaxtyping import Array, Bool, Float, Int, Num
except ImportError:  # an accelerator machine with jax, flax, optax and numpy alone

    class _Shape:
        def __class_getitem__(cls, item: Any) -> Any:
            return Any

    Array = Any  # type: ignore[misc,assignment]
    Bool = Float = Int = Num = _Shape  # type: ignore[misc,assignment]

__all__ = ["Array", "Bool", "Float", "Int", "Num", "Tree"]

Tree = Any
"""A pytree of arrays."""
