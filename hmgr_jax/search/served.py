"""What a server searches, to be replaced while it serves."""

from __future__ import annotations

from typing import Any

from hmgr_jax.errors import UserError
from hmgr_jax.search.index import Index


class Served:
    """What a server searches: take ``index`` once for every request, and search and read that."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def swap(self, other: Index) -> Index:
        """Search ``other`` from the next request on; the index before, for its last requests.

        Raises:
            UserError: ``other`` is of another model or dimension.
        """
        before = self.index
        demand_alike(before.about, other.about)
        self.index = other
        return before


def demand_alike(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse to put one index in the other's place where models or dimensions differ.

    Raises:
        UserError: says what differs.
    """
    for key, what in (("model", "model"), ("dim", "dimension")):
        if before[key] != after[key]:
            raise UserError(
                f"The other index is of {what} {after[key]}, the one in use of {before[key]}: "
                "build one with the same run."
            )
