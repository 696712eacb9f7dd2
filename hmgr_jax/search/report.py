"""What a search found, for people and for programs: a table, JSON, a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmgr_jax.progress import table
from hmgr_jax.reports.search_sheet import Tile, draw_sheet
from hmgr_jax.search.asking import Questions
from hmgr_jax.search.item_pictures import ItemPictures, gone
from hmgr_jax.search.searcher import Hit, Searcher

WORDS = 70
"""Letters of a caption in the table."""
KNOWN = ("system", "step", "modality", "engine", "model")


def described(searcher: Searcher, asked: Questions, hits: list[list[Hit]]) -> dict[str, Any]:
    """Everything, for JSON; ``missing`` marks an item whose file is gone."""
    queries = [
        {
            "query": name,
            "results": [
                {"rank": rank, "score": hit.score, **hit.item._asdict()}
                | ({"missing": True} if gone(hit.item) else {})
                for rank, hit in enumerate(found, start=1)
            ],
        }
        for name, found in zip(asked.names, hits, strict=True)
    ]
    about = {key: searcher.index.about[key] for key in KNOWN}
    return {**about, "count": len(searcher.index), "queries": queries}


def show(found: dict[str, Any]) -> None:
    """A table for every query of what `described` returned."""
    for row in found["queries"]:
        table(row["query"], [_cells(result) for result in row["results"]])


def _cells(result: dict[str, Any]) -> dict[str, str]:
    words = result["caption"]
    return {
        "": str(result["rank"]),
        "score": f"{result['score']:.4f}",
        "id": result["id"] + (" (its file is gone)" if "missing" in result else ""),
        "caption": words if len(words) <= WORDS else f"{words[: WORDS - 1]}…",
    }


def draw(path: Path, searcher: Searcher, asked: Questions, hits: list[list[Hit]]) -> None:
    """Write a contact sheet, a row a query; warns of pictures that are gone."""
    about = searcher.index.about
    found_in = ItemPictures(searcher.retriever, about["split"])
    asked_of = ItemPictures(searcher.retriever, asked.split)
    rows = []
    for item, name, found in zip(asked.items, asked.names, hits, strict=True):
        seen = None if asked.modality == "text" else asked_of.of(asked.modality, [item])[0]
        query = Tile(None, name) if seen is None else Tile(seen, item.caption, name)
        pictures = found_in.of(searcher.modality, [hit.item for hit in found])
        tiles = [
            Tile(picture, _words(hit, picture is not None), f"{hit.item.id}  {hit.score:.3f}")
            for hit, picture in zip(found, pictures, strict=True)
        ]
        rows.append((query, tiles))
    title = f"{about['system']}: {len(searcher.index):,} {searcher.modality} items"
    draw_sheet(path, title, rows)


def _words(hit: Hit, seen: bool) -> str:
    """The name stands below in any case; without a picture it stands in its place as well."""
    return hit.item.caption or ("" if seen else hit.item.id)
