"""The values that hyper-parameters may have; a wrong one becomes one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from hmgr_jax.errors import UserError
from hmgr_jax.models.base import Model


def check_ranges(
    model: Model,
    *,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    at_least: Mapping[str, float] | None = None,
    shares: tuple[str, ...] = (),
) -> None:
    """Refuse hyper-parameters out of range; every dropout must be from 0 to below 1.

    Args:
        model: a system, from its ``__post_init__``.
        choices: {field: the names that it may have}.
        at_least: {field: its smallest value}.
        shares: fields from 0 to 1.

    Raises:
        UserError: one sentence for the first of them.
    """
    fields = model.hyperparameters()
    for field, names in (choices or {}).items():
        if fields[field] not in names:
            raise UserError(f"model.{field} is one of {', '.join(names)}, not {fields[field]!r}.")
    for field, least in (at_least or {}).items():
        if fields[field] < least:
            raise UserError(
                f"model.{field} must be at least {least}, not {fields[field]}: raise it."
            )
    for field, value in fields.items():
        if field.endswith("dropout") and not 0.0 <= value < 1.0:
            raise UserError(f"model.{field} is from 0 to below 1, not {value}: change it.")
        if field in shares and not 0.0 <= value <= 1.0:
            raise UserError(f"model.{field} is from 0 to 1, not {value}: change it.")
