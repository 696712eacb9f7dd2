"""FLOPs of the matrix products of a function, counted in its jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications and additions of all matrix products in one call, on one device.

    Unlike XLA's own count, a loop of n iterations counts n times. A ``while`` of unknown length
    counts once and a ``cond`` as its most expensive branch. Convolutions and elementwise operations
    are not counted; a product with an unused result is counted although XLA removes it. Nothing is
    computed: the arguments may be ShapeDtypeStructs.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        terms = math.prod(shape[axis] for axis in contracted)
        return 2 * terms * math.prod(equation.outvars[0].aval.shape)
    inner = [_count(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> list[Any]:
    """The jaxprs that a parameter of an equation holds."""
    if isinstance(value, tuple | list):
        return [jaxpr for part in value for jaxpr in _jaxprs(part)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []
