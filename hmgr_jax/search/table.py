"""Results of a search as tables on the terminal."""

from __future__ import annotations

from typing import Any

from hmgr_jax.progress import table

WORDS = 70
"""Characters of a caption."""


def show(found: dict[str, Any]) -> None:
    """Print a table per query of the JSON of a search, see `report.described`."""
    for row in found["queries"]:
        table(row["query"], [_cells(result) for result in row["results"]])


def _cells(result: dict[str, Any]) -> dict[str, str]:
    caption = result["caption"]
    return {
        "": str(result["rank"]),
        "score": f"{result['score']:.4f}",
        "id": result["id"] + (" (file missing)" if "missing" in result else ""),
        "caption": caption if len(caption) <= WORDS else f"{caption[: WORDS - 1]}…",
    }
