"""A leaf or a subtree of nested dicts by its path, such as ``text/words/vectors``."""

from __future__ import annotations

from typing import Any


def leaf_at(tree: Any, path: str) -> Any:
    """What lies at ``path``; raises ``KeyError`` where nothing does."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def with_leaf(tree: Any, path: str, leaf: Any) -> Any:
    """The tree with ``leaf`` at ``path``; the given one stays as it is."""
    key, _, rest = path.partition("/")
    return {**tree, key: with_leaf(tree[key], rest, leaf) if rest else leaf}
