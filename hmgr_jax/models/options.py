"""Hyper-parameters with their ranges, declared beside the field that they belong to.

A field ``steps: int = option(3, at_least=1)`` carries its range in its metadata, and
``Model.__post_init__`` refuses a value outside of it with one sentence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from hmgr_jax.errors import UserError


def option(
    default: Any,
    *,
    choices: Collection[str] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    share: bool = False,
) -> Any:
    """A dataclass field with a default and the values that it may have.

    Args:
        default: its value where a recipe sets none.
        choices: the names that it may have; a tuple of names is checked name by name.
        at_least: the smallest number.
        above: every number must be greater.
        share: a number in [0, 1].
    """
    limits = {"choices": choices, "at_least": at_least, "above": above, "share": share}
    given = {
        name: limit for name, limit in limits.items() if limit is not None and limit is not False
    }
    return dataclasses.field(default=default, metadata=given)


def check_options(model: Any) -> None:
    """Check every field against its range; fields named ``*dropout`` must be in [0, 1).

    Raises:
        UserError: names the first field out of range, its value and what is allowed.
    """
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        complaint = _complaint(field, value)
        if complaint:
            raise UserError(f"model.{field.name} must be {complaint}, got {value!r}: change it.")


def _complaint(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What the value must be, where it is not."""
    limits = field.metadata
    if "choices" in limits:
        names = value if isinstance(value, tuple | list) else (value,)
        if not all(name in limits["choices"] for name in names):
            return "one of " + ", ".join(limits["choices"])
    if "at_least" in limits and not value >= limits["at_least"]:
        return f"at least {limits['at_least']}"
    if "above" in limits and not value > limits["above"]:
        return f"above {limits['above']}"
    if limits.get("share") and not 0.0 <= value <= 1.0:
        return "in [0, 1]"
    if field.name.endswith("dropout") and not 0.0 <= value < 1.0:
        return "in [0, 1)"
    return None
