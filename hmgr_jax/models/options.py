"""Options of a model: dataclass fields that carry their valid range.

A field ``steps: int = option(3, at_least=1)`` has its range in its metadata;
``Model.__post_init__`` checks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from hmgr_jax.errors import UserError


def option(
    default: Any,
    *,
    choices: Collection[Any] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    share: bool = False,
) -> Any:
    """A dataclass field with a default and a range.

    Args:
        default: the value unless a recipe sets another.
        choices: the valid values; each entry of a tuple is checked.
        at_least: the smallest valid number.
        above: the number that the value must exceed.
        share: whether the value must be in [0, 1].
    """
    limits = {"choices": choices, "at_least": at_least, "above": above, "share": share}
    given = {
        name: limit for name, limit in limits.items() if limit is not None and limit is not False
    }
    return dataclasses.field(default=default, metadata=given)


def check_options(model: Any) -> None:
    """Check every field against its range; fields named ``*dropout`` must be in [0, 1).

    Raises:
        UserError: names the first field out of range, its value and the valid range.
    """
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        violated = _violated_range(field, value)
        if violated:
            raise UserError(f"model.{field.name} must be {violated}, got {value!r}: change it.")


def _violated_range(field: dataclasses.Field[Any], value: Any) -> str | None:
    """The range that the value violates, or None."""
    limits = field.metadata
    if "choices" in limits:
        names = value if isinstance(value, tuple | list) else (value,)
        if not all(name in limits["choices"] for name in names):
            return "one of " + ", ".join(map(str, limits["choices"]))
    if "at_least" in limits and not value >= limits["at_least"]:
        return f"at least {limits['at_least']}"
    if "above" in limits and not value > limits["above"]:
        return f"above {limits['above']}"
    if limits.get("share") and not 0.0 <= value <= 1.0:
        return "in [0, 1]"
    if field.name.endswith("dropout") and not 0.0 <= value < 1.0:
        return "in [0, 1)"
    return None
